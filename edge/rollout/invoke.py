"""One request in one version, off the public port: a connection of its own into a worker.

A version that no worker has loaded is loaded for it, in memory alone, and unloaded a minute after
its last invocation; a restart, or any change of its service, forgets it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge.admin.control import InvokeAnswer, InvokeRequest
from edge.catalogue import services
from edge.catalogue.database import Catalogue
from edge.catalogue.records import Actor
from edge.errors import ApiRefused, Refusal
from edge.http.chunked import ChunkedDecoder, LengthDecoder
from edge.http.framing import CHUNKED
from edge.http.headers import HOP_BY_HOP, is_token, is_value
from edge.http.refusal import Refused
from edge.http.upstream_head import MAX_HEAD, UNTIL_CLOSE, BadResponse, RawResponse, read_response
from edge.model.service import Role, Version
from edge.rollout.errands import Errands
from edge.rollout.lines import Facts, LineBook
from edge.rollout.publisher import Built, Publisher
from edge.rollout.wanted import Serving
from edge.supervisor.fleet import Fleet
from edge.supervisor.process import Phase
from edge.supervisor.watching import WatchPorts
from edge.telemetry.layout import Gauge
from edge.telemetry.shared import SharedCells
from edge.watch import NOT_HERE, Invoke

log = logging.getLogger("edge.rollout")

MAX_BODY: Final = 1024 * 1024  # bytes of an answer that are kept
MAX_AT_ONCE: Final = 32
MAX_LOADED: Final = 16  # versions loaded for invocations alone
IDLE_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 5.0  # beyond what the version's own limits allow
RECORD_SECONDS: Final = 0.5  # for the record of a request that is over; workers send every 50 ms
_ATTEMPTS: Final = 6  # activations of the same service, one after the other, unload it each
_PAUSE_SECONDS: Final = 0.02  # before the second attempt, and as much more before each after that
_OURS: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id", b"trailer"}


class Invoker:
    """One per server.  `run` must be under way, or nothing is unloaded."""

    def __init__(
        self,
        catalogue: Catalogue,
        fleet: Fleet,
        publisher: Publisher,
        errands: Errands,
        watch: WatchPorts,
        cells: SharedCells,
        book: LineBook,
        now: Callable[[], float],
    ) -> None:
        """`now`: seconds that never go back."""
        self._catalogue = catalogue
        self._fleet = fleet
        self._publisher = publisher
        self._errands = errands
        self._watch = watch
        self._cells = cells
        self._book = book
        self._now = now
        self._under_way = 0
        self._loaded: dict[tuple[str, int], float] = {}  # last use of what was loaded for this
        self._loading: Counter[tuple[str, int]] = Counter()  # invocations that wait for it

    async def invoke(
        self, actor: Actor, service_id: str, number: int, request: InvokeRequest
    ) -> InvokeAnswer:
        """See ControlPlane; `service_id` of a service of the file is its name."""
        if self._under_way >= MAX_AT_ONCE:
            raise ApiRefused(Refusal.BUSY, f"{MAX_AT_ONCE} invocations are under way; try later")
        self._under_way += 1
        try:
            for attempt in range(_ATTEMPTS):
                await asyncio.sleep(attempt * _PAUSE_SECONDS)
                version = await self._version(service_id, number)
                answer = await self._ask(version, actor, request)
                if answer.outcome != NOT_HERE:  # else it was unloaded in between
                    return answer
            raise ApiRefused(Refusal.BUSY, "no worker has this version loaded; try again")
        finally:
            self._under_way -= 1

    async def run(self) -> None:
        """Unload what nobody has invoked for a while, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep()

    async def sweep(self) -> None:
        """Unload what is idle now."""
        now = self._now()
        for (service_id, number), used in list(self._loaded.items()):
            if now - used > IDLE_SECONDS:
                try:
                    await self._unload(service_id, number)
                except ApiRefused as refused:
                    log.warning("an invoked version stays loaded for now: %s", refused)

    # Loading ----------------------------------------------------------------------------------

    async def _version(self, service_id: str, number: int) -> Version:
        found = self._find(service_id, number)
        if found is not None and (service_id, number) in self._loaded:
            self._loaded[service_id, number] = self._now()
            if await self._is_stale(found):
                await self._unload(service_id, number, stale=True)
                found = None
        return await self._load(service_id, number) if found is None else found

    async def _is_stale(self, found: Version) -> bool:
        """Whether a draft, or a store that it is linked to, has changed since it was loaded."""
        return found.role is Role.STAGED and not await self._publisher.is_current(found)

    def _find(self, service_id: str, number: int) -> Version | None:
        for version in self._fleet.world.versions_of(service_id):
            if version.number == number:
                if version.refused:
                    raise ApiRefused(Refusal.MODULE_REFUSED, version.refused)
                return version
        return None

    async def _load(self, service_id: str, number: int) -> Version:
        key = service_id, number
        self._loaded = {
            key: used for key, used in self._loaded.items() if key in self._loading or self._is(key)
        }
        if key not in self._loaded and len(self._loaded) >= MAX_LOADED:
            raise ApiRefused(
                Refusal.BUSY,
                f"{MAX_LOADED} versions are loaded for invocations; wait a minute, or stage it",
            )
        self._loaded[key] = self._now()  # its place, while it is loaded
        self._loading[key] += 1
        try:
            async with self._errands.turn(service_id):
                found = self._find(service_id, number)
                if found is None:
                    built = await self._publisher.build(service_id, Serving(staged=number))
                    (found,) = built.versions
                    await self._publish(service_id, number, built)
                self._loaded[key] = self._now()
        finally:
            self._loading[key] -= 1
            if not self._loading[key]:
                del self._loading[key]
                if not self._is(key):
                    self._loaded.pop(key, None)
        return found

    def _is(self, key: tuple[str, int]) -> bool:
        """Whether workers have that version of that service, for whatever reason."""
        service_id, number = key
        return any(v.number == number for v in self._fleet.world.versions_of(service_id))

    async def _unload(self, service_id: str, number: int, *, stale: bool = False) -> None:
        async with self._errands.turn(service_id):
            used = self._loaded.get((service_id, number), 0.0)
            if self._now() - used <= IDLE_SECONDS and not stale:
                return  # somebody came while we waited for our turn
            self._loaded.pop((service_id, number), None)
            found = self._find(service_id, number)
            if found is None or found.role is not Role.STAGED:
                return
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            if record.staged != number:  # else somebody has staged it in earnest
                await self._publish(service_id, number, None)

    async def _publish(self, service_id: str, number: int, built: Built | None) -> None:
        """The service as it is when its turn comes, with or without this version."""
        if built is None:
            built = Built(service_id, (), {}, ())
        await self._publisher.publish([replace(built, only=number)])

    # Asking -----------------------------------------------------------------------------------

    async def _ask(self, version: Version, actor: Actor, request: InvokeRequest) -> InvokeAnswer:
        data = encode_request(request, identity := secrets.token_hex(16))
        limits = version.service.limits
        seconds = limits.wall + limits.queue_wait + GRACE_SECONDS
        record = self._book.expect(identity)
        began = self._now()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._hand(version, identity, actor.remote, theirs)
            ours.setblocking(False)
            async with asyncio.timeout(seconds):
                answer = await converse(ours, data, to_head=request.method == "HEAD")
            wall = self._now() - began
            if answer.outcome == NOT_HERE:
                return answer
            facts = await self._record(record)
        except TimeoutError:
            raise ApiRefused(
                Refusal.BUSY, f"no complete answer within {seconds:g} s; the request was ended"
            ) from None
        except (OSError, EOFError, BadResponse) as error:
            raise ApiRefused(Refusal.BUSY, f"the worker gave no answer: {error!r}") from error
        finally:
            ours.close()
            lines = self._book.forget(identity)
        cpu = facts.get("cpu_us", 0)
        return replace(
            answer,
            outcome=str(facts.get("outcome") or answer.outcome),
            seconds=wall,
            cpu_seconds=cpu / 1e6 if isinstance(cpu, int) else 0.0,
            request_id=identity,
            detail=str(facts.get("detail", "")),
            lines=tuple(lines),
        )

    async def _record(self, record: asyncio.Future[Facts]) -> Facts:
        """What the worker noted of the request; nothing when it does not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORD_SECONDS):
                return await record
        return {}

    def _hand(
        self, version: Version, identity: str, client: str, connection: socket.socket
    ) -> None:
        """Give the connection to the worker that does least, or to the next."""

        def load(slot: int) -> int:
            return self._cells.worker(slot).get(Gauge.REQUESTS_IN_FLIGHT)

        order = Invoke(version.service.name, version.number, identity, client)
        ready = [worker.slot for worker in self._fleet.workers if worker.phase is Phase.READY]
        for slot in sorted(ready, key=load):
            if self._watch.invoke(slot, order, connection):
                return
        raise ApiRefused(Refusal.BUSY, "no worker is ready; try again in a moment")


def encode_request(request: InvokeRequest, identity: str) -> bytes:
    """A request in HTTP/1.1.  ApiRefused INVALID for what HTTP does not allow.

    The fields that frame a message, and those between two hops, are ours to set.
    """
    method, target = request.method.encode(), request.target.encode()
    fields = [(name.lower().encode(), value.encode()) for name, value in request.headers]
    hosts = [value for name, value in fields if name == b"host"] or [b"localhost"]
    kept = [field for field in fields if field[0] not in _OURS]
    kept = [(b"host", hosts[0]), *kept, (b"x-request-id", identity.encode())]
    if request.body or method in (b"POST", b"PUT", b"PATCH"):
        kept.append((b"content-length", b"%d" % len(request.body)))
    kept.append((b"connection", b"close"))
    bad = [name for name, value in kept if not is_token(name) or not is_value(value)]
    if not is_token(method) or bad:
        raise ApiRefused(Refusal.INVALID, f"not a method or a field of HTTP: {bad or method!r}")
    if not target.startswith(b"/") or not all(0x21 <= one <= 0x7E for one in target):
        raise ApiRefused(Refusal.INVALID, "the path must begin with / and be percent-encoded ASCII")
    head = b"".join(b"%b: %b\r\n" % field for field in kept)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, head, request.body)


async def converse(connection: socket.socket, data: bytes, *, to_head: bool) -> InvokeAnswer:
    """Send a request and read the answer to it.

    Raises EOFError without a head, OSError, BadResponse.  A body that breaks off is `truncated`.
    """
    reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD)
    try:
        writer.write(data)  # bounded by what the API takes; whoever answers early need not read it
        raw = await _head(reader, to_head=to_head)
        body, complete = await _body(reader, raw)
    finally:
        writer.transport.abort()
    marked = [value for name, value in raw.headers if name == b"x-edge-outcome"]
    outcome = "ok" if complete else "incomplete"
    return InvokeAnswer(
        status=raw.status,
        headers=tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in raw.headers),
        body=body,
        truncated=not complete,
        outcome=marked[0].decode("latin-1") if marked else outcome,
    )


async def _head(reader: asyncio.StreamReader, *, to_head: bool) -> RawResponse:
    while True:
        try:
            raw = read_response(await reader.readuntil(b"\r\n\r\n"), to_head=to_head)
        except asyncio.LimitOverrunError as error:
            raise EOFError("a response head that is too large") from error
        if raw.status >= 200:
            return raw


async def _body(reader: asyncio.StreamReader, raw: RawResponse) -> tuple[bytes, bool]:
    """At most MAX_BODY bytes, and whether that is all."""
    kept = bytearray()
    decoder: ChunkedDecoder | LengthDecoder | None = None
    if raw.length == CHUNKED:
        decoder = ChunkedDecoder()
    elif raw.length != UNTIL_CLOSE:
        decoder = LengthDecoder(raw.length)
    rest = b""
    while decoder is None or not decoder.done:
        data = rest or await reader.read(65536)
        if not data:
            return bytes(kept), decoder is None
        try:
            piece, rest = (data, b"") if decoder is None else decoder.feed(data)
        except Refused:
            return bytes(kept), False
        if len(kept) + len(piece) > MAX_BODY:
            kept += piece[: MAX_BODY - len(kept)]
            return bytes(kept), False
        kept += piece
    return bytes(kept), True
