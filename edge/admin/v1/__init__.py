"""The server's own API: every module here with endpoints is named in `routes`."""

from __future__ import annotations

from edge.admin.api import Route
from edge.admin.around import Around


def routes(around: Around) -> list[Route]:
    """All of `/v1`, in the order in which the documentation lists them."""
    from edge.admin.v1 import deploy, services

    modules = (services, deploy)
    return [route for module in modules for route in module.routes(around)]
