"""Renders metrics without holding up the loop: scrapes are rendered in a thread, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

log = logging.getLogger("edge.admin")

MAX_WAITING: Final = 8  # scrapes; more are told to come back, they would all read the same numbers

Render = Callable[[str], tuple[bytes, str]]  # Accept in; body and Content-Type out
Answer = Callable[[int, str, bytes], None]  # status, Content-Type, body


class MetricsPage:
    """The metrics page.  With hundreds of services one rendering takes tenths of a second."""

    def __init__(self, render: Render, loop: asyncio.AbstractEventLoop) -> None:
        self._render = render
        self._loop = loop
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "metrics")

    def answer(self, accept: str, answer: Answer) -> None:
        """Render, and call `answer` on the loop."""
        if self._waiting >= MAX_WAITING:
            answer(503, "text/plain", b"too many scrapes at once\n")
            return
        self._waiting += 1
        self._thread.submit(self._render, accept).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._done, done, answer)
        )

    def _done(self, rendered: Future[tuple[bytes, str]], answer: Answer) -> None:
        self._waiting -= 1
        try:
            body, content_type = rendered.result()
        except Exception:
            log.exception("rendering metrics failed")
            answer(500, "text/plain", b"rendering the metrics failed; see the log\n")
            return
        answer(200, content_type, body)

    def close(self) -> None:
        """End the thread; a scrape that waits is not answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)
