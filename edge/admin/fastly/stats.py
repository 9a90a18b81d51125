"""`fastly stats`: what has been counted since this server started, as one block.

There is no history here, so `from`, `to`, `by` and `region` choose nothing, and the answer says so
in its `meta`.  There is no cache either: every request was passed to a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.control import ServiceStats
from edge.admin.fastly.shape import answer, endpoint
from edge.admin.v1.finding import counted_name
from edge.catalogue import services
from edge.catalogue.records import Page, ServiceRecord
from edge.errors import ApiRefused, Refusal

REGION: Final = "local"
MAX_SERVICES: Final = 1000  # that are added up

Block = dict[str, object]


def routes(around: Around) -> list[Route]:
    """Those whose address clients let one choose; `stats realtime` has an address of its own."""
    its = _Stats(around)
    return [
        endpoint("GET", "/stats/regions", its.regions, confined=True),
        endpoint("GET", "/stats/aggregate", its.aggregate),
        endpoint("GET", "/stats/usage", its.usage),
        endpoint("GET", "/stats/usage_by_service", its.usage_by_service),
        endpoint("GET", "/stats/service/{service}", its.of_service),
        endpoint("GET", "/stats/service/{service}/field/{field}", its.of_field),
    ]


class _Stats:
    def __init__(self, around: Around) -> None:
        self._around = around
        self._since = int(around.clock.wall())

    async def regions(self, call: Call) -> Reply:
        return answer({"status": "success", "meta": {}, "msg": None, "data": [REGION]})

    async def of_service(self, call: Call) -> Reply:
        record = await self._find(call)
        return self._answer([{**await self._block(record), "service_id": record.id}])

    async def of_field(self, call: Call) -> Reply:
        block = await self._block(await self._find(call))
        field = call.params["field"]
        if field not in block:
            raise ApiRefused(
                Refusal.NOT_FOUND, f"no field {field}; there are {', '.join(sorted(block))}"
            )
        return self._answer([{"start_time": block["start_time"], field: block[field]}])

    async def aggregate(self, call: Call) -> Reply:
        total: Block = self._as_block(None)
        for _, block in await self._all():
            for name, value in block.items():
                before = total[name]
                if name != "start_time" and isinstance(value, int | float):
                    assert isinstance(before, int | float)
                    total[name] = before + value
        return self._answer([total])

    async def usage(self, call: Call) -> Reply:
        found = [_usage(block) for _, block in await self._all()]
        total = {name: sum(one[name] for one in found) for name in _usage(self._as_block(None))}
        return self._answer({REGION: total})

    async def usage_by_service(self, call: Call) -> Reply:
        found = {record.id: _usage(block) for record, block in await self._all()}
        return self._answer({REGION: found})

    async def _find(self, call: Call) -> ServiceRecord:
        named = call.params["service"]
        await counted_name(self._around, named)
        return await self._around.catalogue.read(lambda tx: services.find(tx, named))

    async def _all(self) -> list[tuple[ServiceRecord, Block]]:
        records = await self._around.catalogue.read(
            lambda tx: services.listing(tx, Page(MAX_SERVICES))
        )
        return [(record, await self._block(record)) for record in records]

    async def _block(self, record: ServiceRecord) -> Block:
        return self._as_block(await asyncio.to_thread(self._around.control.stats, record.name))

    def _as_block(self, stats: ServiceStats | None) -> Block:
        codes: Mapping[str, int] = stats.by_code if stats else {}
        outcomes: Mapping[str, int] = stats.by_outcome if stats else {}
        requests = stats.requests if stats else 0
        sent = stats.response_bytes if stats else 0
        return {
            "start_time": self._since,
            "requests": requests,
            "pass": requests,
            "hits": 0,
            "miss": 0,
            "synth": 0,
            "uncacheable": 0,
            "hit_ratio": 0,
            "hits_time": 0,
            "miss_time": 0,
            "errors": sum(count for word, count in outcomes.items() if word != "ok"),
            "bandwidth": sent + (stats.request_bytes if stats else 0),
            "req_body_bytes": stats.request_bytes if stats else 0,
            "resp_body_bytes": sent,
            "compute_requests": requests,
            "compute_request_time_ms": stats.cpu_seconds * 1000 if stats else 0,
            "compute_execution_time_ms": stats.wall_seconds * 1000 if stats else 0,
            **{f"status_{label}": codes.get(label, 0) for label in ("1xx", "2xx", "3xx", "4xx",
                                                                   "5xx")},
        }  # fmt: skip

    def _answer(self, data: object) -> Reply:
        begin, now = (
            datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            for at in (self._since, self._around.clock.wall())
        )
        meta = {"from": begin, "to": now, "by": "since the start", "region": REGION}
        return answer({"status": "success", "meta": meta, "msg": None, "data": data})


def _usage(block: Block) -> dict[str, int]:
    found = {}
    for name in ("bandwidth", "requests", "compute_requests"):
        value = block[name]
        assert isinstance(value, int)
        found[name] = value
    return found
