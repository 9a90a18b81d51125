"""The one-line deploy: `PUT /v1/services/NAME` with a program, and it is served.

All or nothing: a program that cannot be served, or not at once, leaves neither a version nor a
service behind.  The same program twice is one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from edge.admin import schema
from edge.admin.api import NDJSON, Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.control import Inspection, Progress, no_progress
from edge.admin.documents import is_yes, json_reply
from edge.admin.hosts import refuse_foreign_hosts
from edge.admin.v1.canaries import CANARY_QUERY, Terms, terms_of_query
from edge.admin.v1.events import EVENTS, event_stream, wants_events
from edge.admin.v1.finding import refuse_file_service
from edge.admin.v1.parts import every_part, read_domain, with_domains
from edge.admin.v1.settings import module_needs
from edge.admin.v1.uploads import FORMS, PACKAGE_MARGIN, look, refuse_unfit, stored, unpack
from edge.admin.v1.views import (
    NUMBER,
    SERVICE_NAME,
    WORDS,
    domains_of,
    milliseconds,
    plain_parts,
    url_of,
)
from edge.catalogue import services, versions
from edge.catalogue.database import Transaction
from edge.catalogue.definition import Named
from edge.catalogue.records import Part, PartKind, Scope, ServiceRecord, VersionRecord
from edge.catalogue.upload import Upload
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_service_name

DEPLOYED = schema.obj(
    {
        "service": schema.text(),
        "sha256": schema.text(),
        "size": schema.number(kind="integer"),
        "language": schema.text(),
        "imports": WORDS,
        "compile_ms": schema.number(),
        "active": schema.YES_OR_NO,
        "unchanged": schema.YES_OR_NO,
        "domains": WORDS,
        "url": schema.maybe(schema.text()),
        "warnings": WORDS,
    },
    {
        "id": schema.text(),
        "version": NUMBER,
        "percent": schema.number(),
        "activation_ms": schema.number(),
        "dry_run": schema.YES_OR_NO,
        "creates": WORDS,
    },
)
_QUERY = (
    Parameter("activate", "Serve it at once.", schema.SWITCH),
    Parameter(
        "domain",
        "A host, perhaps with a path, that the service answers; more than one may be given. "
        "Without any, those of the version before, or NAME below `deploy.domain`.",
        schema.text(1, 2048),
        many=True,
    ),
    Parameter("comment", "Of the version.", schema.text(0, 4096)),
    Parameter("dry_run", "Check and compile, but store nothing.", schema.SWITCH),
    *CANARY_QUERY,
)


def routes(around: Around) -> list[Route]:
    """One."""
    return [
        Route(
            "PUT",
            "/v1/services/{service}",
            _Deploy(around).put,
            Scope.DEPLOY,
            service="service",
            max_body=around.settings.admin.package_bytes + PACKAGE_MARGIN,
            operation=Operation(
                "deploy_service",
                "Deploy a program: WebAssembly, its text, or a Fastly package",
                "services",
                query=_QUERY,
                request=FORMS,
                responses={200: DEPLOYED, 201: DEPLOYED},
                media={200: {NDJSON: EVENTS}},
                refusals=(404, 409, 413, 422, 507),
                params={"service": SERVICE_NAME},
            ),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one PUT asks for."""

    call: Call
    name: str
    upload: Upload
    domains: tuple[Named, ...]  # empty: those of before
    activate: bool
    terms: Terms | None  # of a canary


@dataclass(frozen=True, slots=True)
class _Base:
    """What the new version would be a clone of, and the version that is it already."""

    record: ServiceRecord | None
    latest: VersionRecord | None
    parts: tuple[Part, ...]  # of `latest`
    same: VersionRecord | None


@dataclass(frozen=True, slots=True)
class _Made:
    """The version that was asked for, and whether it is new."""

    record: ServiceRecord
    number: int
    parts: tuple[Part, ...]
    new_version: bool
    new_service: bool


@dataclass(frozen=True, slots=True)
class _Deploy:
    around: Around

    async def put(self, call: Call) -> Reply:
        name = call.params["service"]
        refuse_file_service(self.around, name)
        domains = tuple(read_domain(text) for text in call.query.get("domain", ()))
        terms = terms_of_query(call)
        activate = is_yes(call, "activate") or terms is not None
        body = await call.body.read()

        async def work(progress: Progress) -> Mapping[str, object]:
            upload = await unpack(self.around, call, body, progress)
            wanted = _Wanted(call, name, upload, domains, activate, terms)
            return (await self._deploy(wanted, progress))[1]

        if wants_events(call):
            return Reply(200, event_stream(call, work), NDJSON)
        upload = await unpack(self.around, call, body, no_progress)
        wanted = _Wanted(call, name, upload, domains, activate, terms)
        status, facts = await self._deploy(wanted, no_progress)
        return json_reply(facts, status)

    async def _deploy(self, wanted: _Wanted, progress: Progress) -> tuple[int, dict[str, object]]:
        """Status and facts of the reply."""
        base = await self.around.catalogue.read(lambda tx: _base(tx, wanted))
        name = wanted.name if base.record is None else base.record.name
        needs = module_needs(self.around, name, base.latest.settings if base.latest else {})
        inspection = await look(self.around, wanted.upload, progress, needs, label=name)
        refuse_unfit(inspection)
        if is_yes(wanted.call, "dry_run"):
            return 200, self._dry(wanted, base, name, inspection)
        async with stored(self.around, wanted.upload):
            made = await self.around.catalogue.write(
                wanted.call.actor, lambda tx: _make(tx, self.around, wanted)
            )
        facts = {
            "service": made.record.name,
            "id": made.record.id,
            "version": made.number,
            **self._facts(made.record.name, wanted, made.parts, inspection),
        }
        changed = made.new_version
        if wanted.activate:
            try:
                changed = await self._activate(wanted, made, facts, progress) or changed
            except ApiRefused:
                await self._undo(wanted, made)
                raise
        facts["unchanged"] = not changed
        return 201 if made.new_version else 200, facts

    async def _activate(
        self, wanted: _Wanted, made: _Made, facts: dict[str, object], progress: Progress
    ) -> bool:
        """Whether anything else is served than before."""
        record, control = made.record, self.around.control
        facts["active"] = True
        began = perf_counter()
        if wanted.terms is not None and record.active is not None:
            terms = wanted.terms
            if record.active == made.number:
                return False
            facts["active"], facts["percent"] = terms.is_whole, terms.percent
            done = await control.canary(
                wanted.call.actor, record.id, made.number, **terms.arguments()
            )
            progress("activated", {"version": made.number, "percent": terms.percent})
        else:
            done = await control.activate(
                wanted.call.actor, record.id, made.number, progress=progress
            )
            if done.previous == made.number:
                return False
        facts["activation_ms"] = milliseconds(perf_counter() - began)
        facts["warnings"] = _joined(facts["warnings"], done.warnings)
        return True

    async def _undo(self, wanted: _Wanted, made: _Made) -> None:
        """Take back what was made for a version that did not come to serve."""

        def work(tx: Transaction) -> None:
            if made.new_version:
                versions.delete(tx, made.record.id, made.number)
            if made.new_service and versions.latest(tx, made.record.id) is None:
                services.delete(tx, made.record.id)

        with suppress(ApiRefused):  # somebody else serves it by now, or removed it: theirs then
            await self.around.catalogue.write(wanted.call.actor, work)

    def _dry(
        self, wanted: _Wanted, base: _Base, name: str, inspection: Inspection
    ) -> dict[str, object]:
        parts = with_domains(base.parts, wanted.domains)
        facts = self._facts(name, wanted, parts, inspection)
        creates = []
        if base.record is None:
            creates.append("service")
        if base.same is None:
            creates.append("version")
        same = base.same is not None
        active = base.record.active if base.record is not None else None
        serves = base.same is not None and base.same.number == active
        facts |= {
            "dry_run": True,
            "creates": creates,
            "unchanged": same and (serves or not wanted.activate),
            "active": serves,
        }
        if base.record is not None:
            facts["id"] = base.record.id
        return facts

    def _facts(
        self, name: str, wanted: _Wanted, parts: tuple[Part, ...], inspection: Inspection
    ) -> dict[str, object]:
        package = wanted.upload.package
        domains = domains_of(name, parts, self.around)
        return {
            "service": name,
            "sha256": package.sha256,
            "size": package.size,
            "language": package.language,
            "imports": list(inspection.imports),
            "compile_ms": milliseconds(inspection.compile_seconds),
            "active": False,
            "unchanged": False,
            "domains": domains,
            "url": url_of(domains, self.around),
            "warnings": list(inspection.warnings),
        }


def _base(tx: Transaction, wanted: _Wanted) -> _Base:
    """What is there already."""
    record = None
    with suppress(ApiRefused):  # by id first: no name takes the place of another one's id
        record = services.find(tx, wanted.name)
    if record is None:
        _check_name(wanted.name)
        return _Base(None, None, (), None)
    latest = versions.latest(tx, record.id)
    if latest is None:
        return _Base(record, None, (), None)
    parts = tuple(every_part(tx, record.id, latest.number))
    desired = plain_parts(with_domains(parts, wanted.domains))
    numbers = [record.active] if wanted.activate and record.active is not None else []
    for number in dict.fromkeys([*numbers, latest.number]):
        version = versions.get(tx, record.id, number)
        package = version.package
        if (
            package is not None
            and package.sha256 == wanted.upload.package.sha256
            and version.settings == latest.settings
            and plain_parts(every_part(tx, record.id, number)) == desired
        ):
            return _Base(record, latest, parts, version)
    return _Base(record, latest, parts, None)


def _make(tx: Transaction, around: Around, wanted: _Wanted) -> _Made:
    """The version that is wanted: the one that is there, or a new one."""
    base = _base(tx, wanted)
    record = base.record
    if record is not None and base.same is not None:
        parts = tuple(every_part(tx, record.id, base.same.number))
        return _Made(record, base.same.number, parts, new_version=False, new_service=False)
    if record is None:
        record = services.create(tx, wanted.name)
    version = versions.create(
        tx,
        record.id,
        clone_of=None if base.latest is None else base.latest.number,
        comment=wanted.call.asked("comment"),
    )
    versions.set_package(tx, record.id, version.number, wanted.upload.package)
    if wanted.domains:
        versions.replace_parts(
            tx,
            record.id,
            version.number,
            PartKind.DOMAIN,
            wanted.domains,
        )
        refuse_foreign_hosts(tx, around, wanted.call, record.id, version.number)
    parts = tuple(every_part(tx, record.id, version.number))
    return _Made(record, version.number, parts, new_version=True, new_service=base.record is None)


def _check_name(name: str) -> None:
    try:
        read_service_name(name)
    except ValueError as error:
        raise ApiRefused(Refusal.INVALID, str(error)) from None


def _joined(first: object, more: tuple[str, ...]) -> list[str]:
    """Warnings, each once."""
    assert isinstance(first, list)
    return list(dict.fromkeys([*first, *more]))
