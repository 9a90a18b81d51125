"""The part of Fastly's API that its CLI needs: every module here with endpoints is in `routes`."""

from __future__ import annotations

from edge.admin.api import Route
from edge.admin.around import Around


def routes(around: Around) -> list[Route]:
    """All of them, outside `/v1`."""
    from edge.admin.fastly import (
        account,
        acls,
        backends,
        config_stores,
        dictionaries,
        domains,
        health_checks,
        kv_stores,
        log_tail,
        packages,
        purge,
        resources,
        secret_stores,
        service_acls,
        services,
        stats,
        versions,
    )

    modules = (
        *(account, services, versions, packages, domains, backends, health_checks, purge),
        *(config_stores, kv_stores, secret_stores, acls, resources, dictionaries, service_acls),
        *(log_tail, stats),
    )
    return [route for module in modules for route in module.routes(around)]
