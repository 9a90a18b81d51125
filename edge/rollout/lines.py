"""The lines that services wrote lately, and those who read along.

A window on the log, not the log: in memory, bounded, gone with the server.  Slow readers miss lines
and are told how many.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from edge.admin.control import LogFilter
from edge.errors import ApiRefused, Refusal
from edge.telemetry.lines import ACCESS, Batch, Line
from edge.watch import Follow

PER_SERVICE: Final = 1000  # lines
MAX_BYTES: Final = 8 * 1024 * 1024  # of all, as they came from workers
MAX_SERVICES: Final = 4096  # the one that wrote longest ago is forgotten first
OVERHEAD: Final = 512  # bytes that a line takes beyond its text, roughly
MAX_FOLLOWERS: Final = 64
MAX_FOLLOWERS_OF_ONE: Final = 16  # service; and of all services together as many
MAX_WAITING: Final = 1000  # lines for one follower
STEP: Final = 400  # lines kept and lines offered in one turn of the loop: at most about 2 ms
MAX_BEHIND: Final = 8192  # lines that wait for such a turn; more are left out
QUIET_SECONDS: Final = 5.0  # after which a follower gets an empty object, and its client a byte

Facts = Mapping[str, object]


class LineBook:
    """One per server, on the supervisor's loop."""

    def __init__(self, follow: Callable[[Follow], None]) -> None:
        """`follow` is told whose records workers are to send."""
        self._follow = follow
        self._kept: OrderedDict[str, deque[tuple[int, Line]]] = OrderedDict()
        self._bytes = 0
        self._sequence = 0
        self._followers: dict[str, list[_Follower]] = {}  # by service; "": of all of them
        self._behind: deque[Line] = deque()
        self._turn: asyncio.Handle | None = None
        self._wanted: dict[str, list[Facts]] = {}  # lines of invocations, by request
        self._over: dict[str, asyncio.Future[Facts]] = {}

    def take(self, batch: Batch) -> None:
        """Keep a worker's lines and pass them on: some now, the others in turns of the loop."""
        room = MAX_BEHIND - len(self._behind)
        self._behind.extend(batch.lines[:room])
        dropped = batch.dropped + max(0, len(batch.lines) - room)
        if dropped:
            for follower in self._everybody():
                follower.dropped += dropped
                follower.news.set()
        if self._turn is None:
            self._step()

    def _step(self) -> None:
        left = STEP
        while self._behind and left > 0:
            line = self._behind.popleft()
            self._sequence += 1
            facts = {**line.facts, "sequence": self._sequence}
            line = Line(line.service, line.version, line.size, facts)
            self._keep(line)
            left -= 1
            for service in (line.service, "") if line.service else ("",):
                for follower in self._followers.get(service, ()):
                    follower.offer(line)
                    left -= 1
            self._collect(facts)
        # Its turn comes after whatever else is ready, so that a loud service delays nothing.
        again = bool(self._behind)
        self._turn = asyncio.get_running_loop().call_soon(self._step) if again else None

    def lines(self, wanted: LogFilter, *, recent: int, follow: bool) -> AsyncGenerator[Facts, None]:
        """See ControlPlane.  ApiRefused BUSY when there are too many followers."""
        if follow:
            if len(self._everybody()) >= MAX_FOLLOWERS:
                raise ApiRefused(
                    Refusal.BUSY, f"{MAX_FOLLOWERS} readers follow the log already; end one of them"
                )
            if len(self._followers.get(wanted.service, ())) >= MAX_FOLLOWERS_OF_ONE:
                whose = f"the log of {wanted.service}" if wanted.service else "the whole log"
                raise ApiRefused(
                    Refusal.BUSY,
                    f"{MAX_FOLLOWERS_OF_ONE} readers follow {whose} already; end one of them",
                )
        return self._lines(wanted, recent, follow)

    async def _lines(
        self, wanted: LogFilter, recent: int, follow: bool
    ) -> AsyncGenerator[Facts, None]:
        follower = _Follower(wanted)
        found = self._recent(wanted, recent) if recent > 0 else []
        if follow:
            self._followers.setdefault(wanted.service, []).append(follower)
            self._tell()
        try:
            for facts in found:
                yield facts
            if follow:
                yield {}  # from here on nothing is missed
            while follow:
                async for facts in follower.news_of():
                    yield facts
        finally:
            if follow:
                self._leave(follower)
                self._tell()

    def drop(self, service: str) -> None:
        """A service is gone: what it wrote is not for the next one of its name."""
        self._bytes -= sum(size for size, _ in self._kept.pop(service, ()))
        self._behind = deque(line for line in self._behind if line.service != service)

    # Invocations ------------------------------------------------------------------------------

    def expect(self, request: str) -> asyncio.Future[Facts]:
        """Collect what a request writes; done when its record has come.  `forget` must follow."""
        self._wanted[request] = []
        over: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()
        self._over[request] = over
        return over

    def forget(self, request: str) -> list[Facts]:
        """The lines that a request has written so far; no more are collected."""
        over = self._over.pop(request, None)
        if over is not None and not over.done():
            over.cancel()
        return self._wanted.pop(request, [])

    def _collect(self, facts: Facts) -> None:
        request = str(facts.get("request", ""))
        written = self._wanted.get(request)
        if written is None:
            return
        if facts["kind"] == ACCESS:
            over = self._over[request]
            if not over.done():
                over.set_result(facts)
        elif len(written) < PER_SERVICE:
            written.append(facts)

    # Keeping ----------------------------------------------------------------------------------

    def _keep(self, line: Line) -> None:
        kept = self._kept.get(line.service)
        if kept is None:
            kept = self._kept[line.service] = deque()
            if len(self._kept) > MAX_SERVICES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= sum(size for size, _ in oldest)
        self._kept.move_to_end(line.service)
        size = line.size + OVERHEAD
        kept.append((size, line))
        self._bytes += size
        if len(kept) > PER_SERVICE:
            self._bytes -= kept.popleft()[0]
        while self._bytes > MAX_BYTES:
            largest = max(self._kept.values(), key=len)
            for _ in range(min(len(largest), 64)):  # several: looking for it took a while
                self._bytes -= largest.popleft()[0]

    def _recent(self, wanted: LogFilter, most: int) -> list[Facts]:
        if wanted.service:
            chosen = [line for _, line in self._kept.get(wanted.service, ())]
        else:
            chosen = [line for kept in self._kept.values() for _, line in kept]
        found = [line.facts for line in chosen if fits(wanted, line)]
        found.sort(key=lambda facts: int(str(facts["sequence"])))
        return found[-most:]

    def _everybody(self) -> list[_Follower]:
        return [follower for some in self._followers.values() for follower in some]

    def _leave(self, follower: _Follower) -> None:
        some = self._followers[follower.wanted.service]
        some.remove(follower)
        if not some:
            del self._followers[follower.wanted.service]

    def _tell(self) -> None:
        wanted = [f.wanted for f in self._everybody() if f.wanted.stream in ("", ACCESS)]
        everything = any(not one.service for one in wanted)
        names = () if everything else tuple(sorted({one.service for one in wanted}))
        self._follow(Follow(names, everything))


def fits(wanted: LogFilter, line: Line) -> bool:
    """Whether a filter wants a line."""
    facts = line.facts
    return (
        (not wanted.service or wanted.service == line.service)
        and (wanted.version is None or wanted.version == line.version)
        and (not wanted.stream or wanted.stream == facts.get("stream"))
        and (not wanted.request or wanted.request == facts.get("request"))
        and (not wanted.outcome or wanted.outcome == facts.get("outcome"))
    )


class _Follower:
    """Compared by identity."""

    def __init__(self, wanted: LogFilter) -> None:
        self.wanted = wanted
        self.dropped = 0
        self.news = asyncio.Event()
        self._waiting: deque[Facts] = deque()

    def offer(self, line: Line) -> None:
        if fits(self.wanted, line):
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
            else:
                self._waiting.append(line.facts)
            self.news.set()

    async def news_of(self) -> AsyncGenerator[Facts, None]:
        """What has come, once something has; an empty object when nothing does."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self.news.wait()
        except TimeoutError:
            yield {}
            return
        self.news.clear()
        while self._waiting:
            yield self._waiting.popleft()
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            yield {"dropped": dropped}
