"""What a token of one service may not say of its domains: that they are a part of another's host.

An activation is refused for it in any case; whoever writes a definition hears of it then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge.admin.api import Call
from edge.admin.around import Around
from edge.catalogue import parts, services
from edge.catalogue.records import PartKind
from edge.errors import ApiRefused, Refusal
from edge.model.route import Route

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def refuse_foreign_hosts(
    tx: Transaction, around: Around, call: Call, service: str, number: int
) -> None:
    """ApiRefused ROUTE_CONFLICT, naming the services that have the hosts of a version."""
    if not call.token.service_id:
        return
    domains = parts.listing(tx, service, number, PartKind.DOMAIN)
    refuse_foreign_domains(tx, around, call, service, (part.data for part in domains))


def refuse_foreign_domains(
    tx: Transaction,
    around: Around,
    call: Call,
    service: str,
    domains: Iterable[Mapping[str, object]],
) -> None:
    """The same for domains as the catalogue keeps them."""
    if not call.token.service_id:
        return
    routes = [
        Route(str(data["host"]), str(data.get("path", "/")), data.get("exact") is True)
        for data in domains
    ]
    name = services.get(tx, service).name
    problems = around.control.foreign_hosts(service, name, routes)
    if problems:
        raise ApiRefused(
            Refusal.ROUTE_CONFLICT,
            f"{name} would take a part of a host that another service has, which a token of one "
            "service may not; choose another domain",
            problems=problems,
        )
