"""Progress as a stream of events, one JSON object a line: for calls that take seconds."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from edge.admin.api import NDJSON, Call
from edge.admin.control import Progress
from edge.admin.problems import problem_of
from edge.admin.schema import Schema
from edge.errors import ApiRefused

MAX_EVENTS: Final = 256  # that wait for the client; more are left out, the last one never is
BEAT_SECONDS: Final = 2.0  # of silence, after which the client hears that there is still work

EVENTS: Final[Schema] = {
    "type": "string",
    "contentMediaType": NDJSON,
    "description": "One JSON object a line, each with `event`: received, unpacked, queued, "
    "compiling, compiled, linking, activated, working; the last is `done`, with what the other "
    "form answers, or `refused`, with a problem.",
}

Work = Callable[[Progress], Awaitable[Mapping[str, object]]]


def wants_events(call: Call) -> bool:
    """Whether the client names this form in Accept."""
    return NDJSON in (call.headers("accept") or "")


async def event_stream(call: Call, work: Work) -> AsyncIterator[bytes]:
    """Lines of `{"event": ..., ...}`; the last is `done` with what `work` gave, or `refused`.

    Closing it early cancels `work`.
    """
    waiting: deque[bytes] = deque()
    changed = asyncio.Event()

    def report(event: str, facts: Mapping[str, object]) -> None:
        if len(waiting) < MAX_EVENTS:
            waiting.append(_line(event, facts))
            changed.set()

    def over(_: asyncio.Task[tuple[str, Mapping[str, object]]]) -> None:
        changed.set()

    task = asyncio.get_running_loop().create_task(_outcome(call, work, report))
    task.add_done_callback(over)
    try:
        while not task.done() or waiting:
            if not waiting:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield _line("working", {})
                changed.clear()
            while waiting:
                yield waiting.popleft()
        yield _line(*task.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _outcome(call: Call, work: Work, report: Progress) -> tuple[str, Mapping[str, object]]:
    try:
        return "done", await work(report)
    except ApiRefused as error:
        return "refused", {**problem_of(error), "request_id": call.actor.request_id}


def _line(event: str, facts: Mapping[str, object]) -> bytes:
    text = json.dumps({"event": event, **facts}, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace") + b"\n"
