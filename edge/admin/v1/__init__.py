"""The server's own API: every module here with endpoints is named in `routes`."""

from __future__ import annotations

from edge.admin.api import Route
from edge.admin.around import Around
from edge.admin.openapi import document_route
from edge.admin.v1 import (
    acls,
    activation,
    audit,
    config_stores,
    deploy,
    invoke,
    kv,
    node,
    observe,
    purge,
    secret_stores,
    services,
    status,
    tokens,
    validate,
    versions,
)


def routes(around: Around) -> list[Route]:
    """All of `/v1`, in the order in which the documentation lists them."""
    modules = (
        services,
        deploy,
        validate,
        versions,
        activation,
        invoke,
        observe,
        config_stores,
        kv,
        secret_stores,
        acls,
        purge,
        tokens,
        audit,
        status,
        node,
    )
    found = [route for module in modules for route in module.routes(around)]
    return [*found, document_route(found)]
