"""`fastly log-tail`: what guests print, in windows of whole seconds.

Its client asks for the window that begins with a second and is told by a Link field where the next
one begins; that number counts as a time for it, so it is one.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from edge.admin.api import NDJSON, Call, Reply, Route
from edge.admin.around import Around
from edge.admin.control import LogFilter
from edge.admin.fastly.shape import answer, done, endpoint
from edge.admin.v1.finding import counted_name
from edge.errors import ApiRefused, Refusal

LATE_SECONDS: Final = 0.3  # lines take up to this to get here, and windows end that much earlier
FUTURE_SECONDS: Final = 60
MOST: Final = 1000  # lines of one window; what is kept of a service is no more
BATCH: Final = 100  # the client takes 10 MiB at once, and a line may have 64 KiB
_PATH: Final = "/service/{service}/log_stream/managed/instance_output"

Facts = Mapping[str, object]


def routes(around: Around) -> list[Route]:
    """Switching it on and off, which changes nothing, and reading."""
    its = _Tail(around)
    return [
        endpoint("POST", _PATH, its.enable),
        endpoint("DELETE", _PATH, its.disable),
        endpoint("GET", _PATH, its.window),
    ]


class _Tail:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def enable(self, call: Call) -> Reply:
        await self._name(call)
        return answer({"service_id": call.params["service"]})

    async def disable(self, call: Call) -> Reply:
        await self._name(call)
        return done()

    async def window(self, call: Call) -> Reply:
        """Waits until the second is over."""
        name = await self._name(call)
        clock = self._around.clock
        now = clock.wall() - LATE_SECONDS
        asked = call.asked("from")
        if asked and not (asked.isascii() and asked.isdigit() and len(asked) <= 12):
            raise ApiRefused(Refusal.INVALID, "from is a number of seconds since 1970")
        begin = int(asked) if asked else math.floor(now)
        if begin > now + FUTURE_SECONDS:
            raise ApiRefused(Refusal.NOT_FOUND, "from is too far in the future")
        await asyncio.sleep(max(begin + 1 - now, 0))
        end = max(math.floor(clock.wall() - LATE_SECONDS), begin + 1)
        found = self._around.control.lines(LogFilter(service=name), recent=MOST, follow=False)
        lines = [_log(facts) async for facts in found if facts.get("kind") == "guest"]
        chosen = [line for at, line in lines if begin <= at < end]
        path = _PATH.replace("{service}", call.params["service"])
        batches = [chosen[at : at + BATCH] for at in range(0, len(chosen), BATCH)]
        return Reply(
            body=b"".join(
                _batch(f"{begin}-{number}", batch) for number, batch in enumerate(batches)
            ),
            content_type=NDJSON,
            headers=[("link", f'<{path}?from={end}>; rel="next"')],
        )

    async def _name(self, call: Call) -> str:
        return await counted_name(self._around, call.params["service"])


def _log(facts: Facts) -> tuple[float, dict[str, object]]:
    """When a line was written, and how the client wants it."""
    at = datetime.fromisoformat(str(facts["time"])).timestamp()
    return at, {
        "sequence_number": facts["sequence"],
        "request_start_us": int(at * 1e6),
        "stream": facts["stream"],
        "id": facts["request"],
        "message": facts["message"],
    }


def _batch(identity: str, logs: Sequence[Facts]) -> bytes:
    text = json.dumps({"batch_id": identity, "logs": list(logs)}, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
