"""Names to addresses: the system's resolver on threads, asked once per name, and a small cache.

The system's resolver knows /etc/hosts, search domains and whatever else an operator set up; a
resolver of our own would not.  It cannot be interrupted, so its threads are rationed.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from edge.clock import Clock
from edge.http.special_addresses import IPAddress, normal, parse_literal
from edge.model.backend import Backend
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.lanes import Job, Lanes, TooMany

Lookup = Callable[[str], list[str]]  # the addresses of a name; raises OSError

# The system does not tell how long an answer is good for.
GOOD_FOR = 10.0
BAD_FOR = 2.0  # a name that did not resolve: a storm of requests for it asks every two seconds
MAX_NAMES = 1024
MAX_ADDRESSES = 16
# A name server that never answers holds a thread for 10 to 30 s.  Guests may hold twelve.
LANES = 16
RESERVED = 4
MAX_WAITING = 256

# As edge.http.addresses: letters, digits, hyphens, and underscores that people really use.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?+"
_name = re.compile(rf"{_LABEL}(?:\.{_LABEL})*+\.?", re.ASCII | re.IGNORECASE)
MAX_NAME = 253  # RFC 1035 section 2.3.4, in text form


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a lookup gave: addresses, or the failure."""

    until: float
    addresses: tuple[IPAddress, ...] = ()
    problem: str = ""
    rcode: int | None = None


@dataclass(slots=True)
class _Lookup:
    """One question to the system, and how many wait for it."""

    job: Job[list[str]]
    waiters: int = 0
    answer: _Answer | None = None


_Key = tuple[str, bool]  # name, and whether a guest made the backend


@dataclass(frozen=True, slots=True)
class ResolverStatistics:
    """Names in the cache; lookups that run now, that were made, and that failed."""

    cached: int
    running: int
    lookups: int
    failures: int


def system_lookup(name: str) -> list[str]:
    """Ask the system.  Blocks, for as long as /etc/resolv.conf lets it."""
    # As bytes: text would go through the IDNA codec, which is slow and changes names.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class Resolver:
    """One per worker.  Names of dynamic backends have cache entries and threads of their own."""

    def __init__(self, clock: Clock, *, lookup: Lookup = system_lookup) -> None:
        self._clock = clock
        self._lookup = lookup
        self._lanes = Lanes("dns", count=LANES, reserved=RESERVED, most_waiting=MAX_WAITING)
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._running: dict[_Key, _Lookup] = {}
        self._lookups = self._failures = 0

    def statistics(self) -> ResolverStatistics:
        return ResolverStatistics(
            len(self._answers), self._lanes.running, self._lookups, self._failures
        )

    def close(self) -> None:
        """Forget everything; lookups that run end unheard."""
        self._lanes.close()
        self._answers.clear()

    async def resolve(self, backend: Backend) -> tuple[IPAddress, ...]:
        """The addresses of a backend's host in normal form, best first; at least one.

        Waits as long as the system does: the caller has a deadline.  Raises UpstreamFailed.
        """
        host = backend.url.host
        literal = parse_literal(host)
        if literal is not None:
            return (literal,)
        if len(host) > MAX_NAME + 1 or not _name.fullmatch(host):
            raise _failed(backend, "is not a name that DNS could know")
        key = (host.lower(), backend.dynamic)
        answer = self._answers.get(key)
        if answer is None or answer.until <= self._clock.monotonic():
            try:
                answer = await self._ask(key)
            except TooMany as error:
                raise _failed(backend, f"cannot be looked up now: {error}") from None
        if answer.problem:
            raise _failed(backend, answer.problem, answer.rcode)
        return answer.addresses

    async def _ask(self, key: _Key) -> _Answer:
        """Wait for the one lookup of a name, starting it if nobody has.  Raises TooMany."""
        lookup = self._running.get(key) or self._start(key)
        lookup.waiters += 1
        result = lookup.job.result
        try:
            await asyncio.wait((result,))  # cancels nothing when we are cancelled
        finally:
            lookup.waiters -= 1
            if not lookup.waiters and not lookup.job.started:
                result.cancel()
                self._running.pop(key, None)
            # One that runs stays known: whoever asks again waits for it and takes no other thread.
        if lookup.answer is None:
            raise TooMany("the resolver is closed")
        return lookup.answer

    def _start(self, key: _Key) -> _Lookup:
        job = self._lanes.submit(partial(self._lookup, key[0]), guarded=key[1])
        self._lookups += 1
        lookup = self._running[key] = _Lookup(job)
        job.result.add_done_callback(partial(self._ended, key, lookup))
        return lookup

    def _ended(self, key: _Key, lookup: _Lookup, result: asyncio.Future[list[str]]) -> None:
        if result.cancelled():
            return
        self._running.pop(key, None)
        answer = lookup.answer = _answer(result, self._clock.monotonic())
        self._failures += bool(answer.problem)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > MAX_NAMES:
            self._answers.popitem(last=False)


def _answer(result: asyncio.Future[list[str]], now: float) -> _Answer:
    error = result.exception()
    if error is not None:
        return _Answer(now + BAD_FOR, problem=_words(error), rcode=_rcode(error))
    addresses = tuple(dict.fromkeys(normal(ip_address(text)) for text in result.result()))
    if not addresses:
        return _Answer(now + BAD_FOR, problem="has no address")
    return _Answer(now + GOOD_FOR, addresses[:MAX_ADDRESSES])


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be resolved: {error.strerror}"
    return f"cannot be resolved: {type(error).__name__}"


def _rcode(error: BaseException) -> int | None:
    """The code of the answer (RFC 1035 section 4.1.1), as far as the system tells."""
    return 3 if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME else None


def _failed(backend: Backend, problem: str, rcode: int | None = None) -> UpstreamFailed:
    text = f"backend {backend.name}: host {backend.url.host[:MAX_NAME]} {problem}"
    return UpstreamFailed(Cause.DNS_ERROR, text, dns_rcode=rcode)
