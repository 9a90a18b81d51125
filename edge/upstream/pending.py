"""A request on its way: `Fetch` implements `Pending` and is what links carry.  It sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge.model.backend import Backend
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamRequest, UpstreamResponse

if TYPE_CHECKING:
    from edge.upstream.pool import Group

# RFC 9110 section 9.2.2, and the registered safe methods that people use.  Sending one of these
# twice means no more than sending it once.
IDEMPOTENT = frozenset(
    b"GET HEAD OPTIONS TRACE PUT DELETE QUERY SEARCH REPORT PROPFIND PURGE".split()
)


# Backend, why it failed if it did, the status if not (else 0), seconds to the head or the failure.
OnDone = Callable[[Backend, Cause | None, int, float], None]


class Carrier(Protocol):
    """Who has the fetch at present: a connection being made, or a link."""

    def drop(self, fetch: Fetch) -> None:
        """Nobody wants it any more."""
        ...


class Fetcher(Protocol):
    """Who is told what becomes of fetches: the client."""

    def responded(self, fetch: Fetch, status: int) -> None: ...

    def failed(self, fetch: Fetch, cause: Cause) -> None: ...

    def broken(self) -> None:
        """The body of a response broke off."""
        ...

    def retry(self, fetch: Fetch) -> None:
        """Send it once more, on a new connection."""
        ...


class Fetch:
    """One request, from `send` to the head of its response or its failure."""

    # Not slotted: defaults in the class cost a request nothing.
    carrier: Carrier | None = None
    # The whole body, once it has been taken out of `request.body` in one piece: what may be sent
    # again.  None while there is none or it went out as it came.
    whole: bytes | None = None
    retried = False
    on_done: OnDone | None = None
    _response: UpstreamResponse | None = None
    _error: UpstreamFailed | None = None
    _callbacks: list[Callable[[], None]] | None = None
    _done = False
    _taken = False

    def __init__(self, request: UpstreamRequest, group: Group | None, started: float) -> None:
        """`started` in monotonic seconds; `group` is None for one that fails at once."""
        self.request = request
        self.group = group
        self.started = started

    # Pending ----------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        return self._done

    def watch(self, callback: Callable[[], None]) -> None:
        if self._done:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if self._callbacks and callback in self._callbacks:
            self._callbacks.remove(callback)

    def result(self) -> UpstreamResponse:
        if self._error is not None:
            raise self._error
        response = self._response
        assert response is not None, "asked before it was ready"
        self._taken = True
        return response

    def abandon(self) -> None:
        carrier, self.carrier = self.carrier, None
        self._callbacks = None
        if not self._done:
            self._done = True
            self._error = UpstreamFailed(
                Cause.CONNECTION_TERMINATED, "the request was given up by its guest"
            )
            if carrier is not None:
                carrier.drop(self)
            self.request.body.discard()
        elif self._response is not None and not self._taken:
            self._response.body.discard()

    # For links and the client -----------------------------------------------------------------

    @property
    def repeatable(self) -> bool:
        """True if the request may be sent a second time: nothing it needs has been used up."""
        return self.whole is not None and self.request.method in IDEMPOTENT

    def respond(self, response: UpstreamResponse) -> None:
        """The head of the final response is here."""
        assert not self._done
        self.carrier = None
        self.whole = None
        self._response = response
        self._done = True
        group = self.group
        assert group is not None
        group.fetcher.responded(self, response.status)
        callbacks = self._callbacks
        if callbacks:
            self._callbacks = None
            for callback in callbacks:
                callback()

    def fail(
        self, error: UpstreamFailed, *, stale: bool = False, unprocessed: bool = False
    ) -> None:
        """There will be no response.

        `stale`: a connection that had been used before ended before any byte of a response, as
        happens when a server closes an idle one; sent once more if that does no harm.
        `unprocessed`: the server said that it has not looked at the request (HTTP/2); then any
        method may be sent again, as long as its body has not been used up.
        """
        assert not self._done
        self.carrier = None
        group = self.group
        again = (stale and self.repeatable) or (unprocessed and self.whole is not None)
        if again and not self.retried and group is not None:
            self.retried = True
            group.fetcher.retry(self)
            return
        self.whole = None
        self._error = error
        self._done = True
        self.request.body.discard()  # whoever still writes to it writes into nothing
        if group is not None:
            group.fetcher.failed(self, error.cause)
        callbacks = self._callbacks
        if callbacks:
            self._callbacks = None
            for callback in callbacks:
                callback()
