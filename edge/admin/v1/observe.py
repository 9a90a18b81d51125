"""Watching services: their numbers, and their lines as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from edge.admin import schema
from edge.admin.api import NDJSON, Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.control import LogFilter, ServiceStats
from edge.admin.documents import is_yes, json_reply
from edge.admin.v1.finding import counted_name, file_service, number_of
from edge.admin.v1.versions import ONE, ONE_PARAMS
from edge.admin.v1.views import SERVICE_NAME
from edge.catalogue import services, versions

MAX_RECENT: Final = 1000
_SERVICE: Final = "/v1/services/{service}"
_COUNT: Final = schema.number(kind="integer")
_COUNTS: Final[schema.Schema] = {"type": "object", "additionalProperties": _COUNT}
_VALUES: Final[schema.Schema] = {"type": "object", "additionalProperties": schema.number()}
_STATS: Final = schema.obj(
    {
        "service": schema.text(),
        "version": schema.maybe(_COUNT),
        "requests": _COUNT,
        "in_flight": _COUNT,
        "by_code": _COUNTS,
        "by_outcome": _COUNTS,
        "cpu_seconds": schema.number(),
        "wall_seconds": schema.number(),
        "request_bytes": _COUNT,
        "response_bytes": _COUNT,
        "wall_ms": _VALUES,
        "cpu_ms": _VALUES,
        "memory_bytes": _VALUES,
        "backends": {"type": "object", "additionalProperties": _COUNTS},
    }
)
_LINES: Final[schema.Schema] = {"type": "string", "contentMediaType": NDJSON}
_FILTERS: Final = (
    Parameter("follow", "Go on with new lines until the client leaves.", schema.SWITCH),
    Parameter(
        "recent",
        "Kept lines to begin with: 100 unless told.",
        schema.number(0, MAX_RECENT, kind="integer"),
    ),
    Parameter("version", "Of this version only.", schema.number(1, 2**31 - 1, kind="integer")),
    Parameter(
        "stream",
        "`stdout`, `stderr`, the name of a log endpoint, or `access` for records of requests.",
        schema.text(0, 256),
    ),
    Parameter("request", "Of one request, by its id.", schema.text(0, 64)),
    Parameter("outcome", "Records of requests that ended so: `cpu_limit` ...", schema.text(0, 32)),
)


def routes(around: Around) -> list[Route]:
    """Numbers and lines."""
    its = _Watching(around)
    lines = Operation(
        "read_logs",
        "Lines of a service, newest last; with `follow=1` as they are written",
        "watching",
        query=_FILTERS,
        responses={200: _LINES},
        refusals=(404, 422),
        params={"service": SERVICE_NAME},
    )
    return [
        Route(
            "GET",
            _SERVICE + "/stats",
            its.of_service,
            service="service",
            operation=Operation(
                "service_stats",
                "Numbers of a service since the server started",
                "watching",
                responses={200: _STATS},
                refusals=(404, 422),
                params={"service": SERVICE_NAME},
            ),
        ),
        Route(
            "GET",
            ONE + "/stats",
            its.of_version,
            service="service",
            operation=Operation(
                "version_stats",
                "Numbers of one version since it was loaded",
                "watching",
                responses={200: _STATS},
                refusals=(404, 422),
                params=ONE_PARAMS,
            ),
        ),
        Route("GET", _SERVICE + "/logs", its.lines, service="service", operation=lines),
        Route(
            "GET",
            "/v1/logs",
            its.all_lines,
            operation=Operation(
                "read_all_logs",
                "Lines of all services",
                "watching",
                query=_FILTERS,
                responses={200: _LINES},
                refusals=(422,),
            ),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Watching:
    around: Around

    async def of_service(self, call: Call) -> Reply:
        return await self._stats(await self._name(call), None)

    async def of_version(self, call: Call) -> Reply:
        name, number = await self._name(call), number_of(call)
        if file_service(self.around, name) is None:
            await self.around.catalogue.read(
                lambda tx: versions.get(tx, services.find(tx, name).id, number)
            )
        return await self._stats(name, number)

    async def _stats(self, name: str, number: int | None) -> Reply:
        found = await asyncio.to_thread(self.around.control.stats, name, number)
        return json_reply(asdict(found or nothing_counted(name, number)))

    async def lines(self, call: Call) -> Reply:
        return self._lines(call, await self._name(call))

    async def all_lines(self, call: Call) -> Reply:
        return self._lines(call, "")

    def _lines(self, call: Call, service: str) -> Reply:
        version = call.asked("version")
        wanted = LogFilter(
            service=service,
            version=int(version) if version else None,
            stream=call.asked("stream"),
            request=call.asked("request"),
            outcome=call.asked("outcome"),
        )
        found = self.around.control.lines(
            wanted, recent=int(call.asked("recent") or 100), follow=is_yes(call, "follow")
        )
        return Reply(body=_ndjson(found), content_type=NDJSON)

    async def _name(self, call: Call) -> str:
        """The name of the service that the path names, whoever owns it."""
        named = call.params["service"]
        if file_service(self.around, named) is not None:
            return named
        return await counted_name(self.around, named)


def nothing_counted(service: str, version: int | None) -> ServiceStats:
    """The numbers of what has not been loaded."""
    return ServiceStats(service, version, 0, 0, {}, {}, 0.0, 0.0, 0, 0, {}, {}, {})


async def _ndjson(found: AsyncIterator[Mapping[str, object]]) -> AsyncIterator[bytes]:
    try:
        async for facts in found:
            text = json.dumps(facts, ensure_ascii=False)
            yield text.encode("utf-8", "backslashreplace") + b"\n"
    finally:
        aclose = getattr(found, "aclose", None)
        if aclose is not None:
            await aclose()
