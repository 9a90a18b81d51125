"""Backends that are not there: an `Upstream` whose responses a test gives, a guest that has it."""

from __future__ import annotations

from collections.abc import Callable

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.abi.sandbox import Sandbox
from edge.http.body import Body
from edge.http.message import Headers
from edge.model.backend import Backend, Origin
from edge.model.limits import Limits
from edge.upstream.fetch import (
    Cause,
    Health,
    Pending,
    UpstreamFailed,
    UpstreamRequest,
    UpstreamResponse,
)
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import FastlyGuest

ADDRESS, PORT = bytes([192, 0, 2, 80]), 8080


class FakePending:
    """A request that waits until the test answers it."""

    def __init__(self, request: UpstreamRequest) -> None:
        self.request = request
        self.outcome: UpstreamResponse | UpstreamFailed | None = None
        self.watchers: list[Callable[[], None]] = []
        self.abandoned = False
        self.taken = False

    @property
    def is_ready(self) -> bool:
        return self.outcome is not None

    def watch(self, callback: Callable[[], None]) -> None:
        if self.outcome is not None:
            callback()
        else:
            self.watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if callback in self.watchers:
            self.watchers.remove(callback)

    def result(self) -> UpstreamResponse:
        assert self.outcome is not None, "asked before it was ready"
        assert not self.abandoned
        if isinstance(self.outcome, UpstreamFailed):
            raise self.outcome
        self.taken = True
        return self.outcome

    def abandon(self) -> None:
        self.abandoned = True
        self.watchers.clear()
        if self.outcome is None:
            self.request.body.discard()
        elif isinstance(self.outcome, UpstreamResponse) and not self.taken:
            self.outcome.body.discard()

    def respond(
        self,
        status: int = 200,
        headers: Headers | None = None,
        body: bytes | Body = b"",
        version: int = 11,
    ) -> Body:
        """The backend answers; its body, charged as the real one would be."""
        if isinstance(body, bytes):
            data, body = body, Body(self.request.account)
            body.write(data)
        self._settle(
            UpstreamResponse(status, headers or [], body, version, address=ADDRESS, port=PORT)
        )
        return body

    def fail(self, cause: Cause, **facts: object) -> None:
        """There will be no answer."""
        self._settle(UpstreamFailed(cause, f"backend failed: {cause.value}", **facts))  # type: ignore[arg-type]

    def _settle(self, outcome: UpstreamResponse | UpstreamFailed) -> None:
        assert self.outcome is None
        self.outcome = outcome
        if isinstance(outcome, UpstreamFailed):
            self.request.body.discard()
        watchers, self.watchers = self.watchers, []
        for callback in watchers:
            callback()


class FakeUpstream:
    """Keeps what it was given to send.  `ready` answers each request at once with 200."""

    def __init__(self, *, ready: bool = False) -> None:
        self.ready = ready
        self.sent: list[FakePending] = []
        self.told: dict[str, Health] = {}
        self.left: list[Pending] = []

    def send(self, request: UpstreamRequest) -> FakePending:
        pending = FakePending(request)
        self.sent.append(pending)
        if self.ready:
            pending.respond(body=b"from the backend")
        return pending

    def leave(self, pending: Pending) -> None:
        self.left.append(pending)

    def health(self, backend: Backend) -> Health:
        return self.told.get(backend.name, Health.UNKNOWN)


ORIGIN = Backend("origin", Origin(False, "origin.example", 80))


class SendingGuest(FastlyGuest):
    """A guest with a backend called `origin`, and `failures` that its operator was told of."""

    def __init__(
        self,
        *backends: Backend,
        ready: bool = False,
        limits: Limits | None = None,
        client: FakeDownstream | None = None,
        size: int = 1 << 20,
    ) -> None:
        self.upstream = FakeUpstream(ready=ready)
        self.failures: list[tuple[str, Cause]] = []

        def failed(box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
            self.failures.append((backend.name, failure.cause))

        named = {backend.name: backend for backend in (ORIGIN, *backends)}
        super().__init__(
            client=client,
            limits=limits,
            size=size,
            capabilities=Capabilities(self.upstream, named, failed),
        )

    def request(self, *headers: tuple[bytes, bytes], method: bytes = b"GET") -> int:
        """A request of the guest's own."""
        request = self.get("http_req.new")
        assert self.do("http_req.method_set", request, *self.put(method)) == Status.OK
        for name, value in headers:
            raw = (*self.put(name), *self.put(value))
            assert self.do("http_req.header_append", request, *raw) == Status.OK
        return request

    def send_async(self, *, name: str = "http_req.send_async", backend: bytes = b"origin") -> int:
        """Handle of a new, empty request that was sent."""
        return self.get(name, self.request(), self.body(), *self.put(backend))

    @property
    def last(self) -> FakePending:
        """The request that was sent last."""
        return self.upstream.sent[-1]

    def handles(self, *handles: int) -> tuple[int, int]:
        """A `list<handle>` in memory: its length counts elements."""
        packed = b"".join(handle.to_bytes(4, "little") for handle in handles)
        return self.put(packed)[0], len(handles)
