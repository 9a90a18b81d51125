"""Domains of a version, as Fastly's API has them: host names, each with a comment.

A domain that our own API has given a path is named by both, `example.com/api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.admin import api
from edge.admin.api import Call, Reply
from edge.admin.around import Around
from edge.admin.fastly.shape import Form, answer, endpoint, version_number
from edge.admin.fastly.version_parts import VERSION, PartEndpoints
from edge.admin.hosts import refuse_foreign_domains
from edge.catalogue import parts, services, versions
from edge.catalogue.checks import read
from edge.catalogue.definition import domain_part
from edge.catalogue.records import Part, PartKind
from edge.model.names import read_host
from edge.model.route import Route

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def routes(around: Around) -> list[api.Route]:
    """The endpoints."""

    def allowed(tx: Transaction, call: Call, service: str, data: Mapping[str, object]) -> None:
        refuse_foreign_domains(tx, around, call, service, [data])

    every = PartEndpoints(around, PartKind.DOMAIN, _changed, _shown, allowed)
    checks = _Checks(around, every)
    return [
        *every.routes("domain"),
        endpoint("GET", f"{VERSION}/domain/check_all", checks.check_all),
        endpoint("GET", f"{VERSION}/domain/{{name}}/check", checks.check_one),
    ]


class _Checks:
    """Whether requests for a domain get to the service.

    Fastly looks at the DNS; where this server is reached from, it cannot know, so it says what it
    does know: whether the version is active here, and so answers for the domain.
    """

    def __init__(self, around: Around, every: PartEndpoints) -> None:
        self._around = around
        self._every = every

    async def check_all(self, call: Call) -> Reply:
        number = version_number(call)

        def read_all(tx: Transaction) -> list[object]:
            service = services.find(tx, call.params["service"]).id
            active = versions.get(tx, service, number).active
            found = parts.listing(tx, service, number, PartKind.DOMAIN)
            return [self._verdict(service, number, part, active) for part in found]

        return answer(await self._around.catalogue.read(read_all))

    async def check_one(self, call: Call) -> Reply:
        number = version_number(call)

        def read_one(tx: Transaction) -> object:
            service = services.find(tx, call.params["service"]).id
            active = versions.get(tx, service, number).active
            part = parts.get(tx, service, number, PartKind.DOMAIN, call.params["name"])
            return self._verdict(service, number, part, active)

        return answer(await self._around.catalogue.read(read_one))

    def _verdict(self, service: str, number: int, part: Part, active: bool) -> object:
        """Domain, what its CNAME leads to (unknown), and whether it works."""
        return [self._every.shape(service, number, part), "", active]


def _changed(name: str, data: Mapping[str, object], form: Form) -> tuple[str, Mapping[str, object]]:
    path, exact = str(data.get("path", "/")), data.get("exact") is True
    comment = form.text("comment", str(data.get("comment", "")))
    before = domain_part(Route(str(data.get("host", "")), path, exact))[0]
    host = str(data["host"]) if data and name == before else read("name", name, read_host)
    return domain_part(Route(host, path, exact), comment)


def _shown(name: str, data: Mapping[str, object]) -> dict[str, object]:
    return {"name": name, "comment": data.get("comment", "")}
