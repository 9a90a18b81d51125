"""Message heads as values, and what a guest's host needs of a client connection.

`Downstream` is the whole contract between the code that speaks HTTP to clients (`edge.server`) and
the code that speaks to guests (`edge.abi`): neither imports the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from edge.http.body import Body

Headers = list[tuple[bytes, bytes]]  # names lower-case, in order, repeats allowed


@dataclass(slots=True)
class RequestHead:
    """A request as the guest may see it: hop-by-hop fields gone, the routed authority in `host`.

    `target` is the origin form exactly as received (never normalised).  `authority` is lower-case,
    without a default port and without a trailing dot.  `original_names`: as the client spelt them.
    """

    method: bytes
    target: bytes
    authority: bytes
    scheme: bytes = b"http"
    version: int = 11  # 10 or 11
    headers: Headers = field(default_factory=list)
    original_names: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class ResponseHead:
    """A response as the guest made it.  `manual_framing`: use its Content-Length if it is valid."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    manual_framing: bool = False
    close: bool = False  # the guest asked that the client connection end after this response


class Answer(Protocol):
    """A final response that is on its way from somewhere else than the guest."""

    def abandon(self) -> None:
        """The client has left: nobody wants it any more."""
        ...


class Downstream(Protocol):
    """One request and the place its response goes.  Exactly one final response is accepted."""

    @property
    def head(self) -> RequestHead: ...

    @property
    def body(self) -> Body:
        """The request body; reading it lets the client send on."""
        ...

    @property
    def client_address(self) -> bytes:
        """4 or 16 octets."""
        ...

    @property
    def server_address(self) -> bytes:
        """4 or 16 octets."""
        ...

    @property
    def request_id(self) -> str:
        """32 lower-case hex characters, unique per request."""
        ...

    @property
    def responded(self) -> bool:
        """True once a final response head was accepted, or will come from an `Answer`."""
        ...

    @property
    def wants_websocket(self) -> bool:
        """True if the client asked to turn its connection into a websocket (RFC 6455)."""
        ...

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim (1xx) response; dropped for HTTP/1.0 clients."""
        ...

    def respond(self, head: ResponseHead, body: Body) -> None:
        """Take the final response.  `body` may still be written to; it is sent as it arrives."""
        ...

    def hand_over(self, answer: Answer) -> None:
        """The guest answers no more: `answer` will, by `deliver`, perhaps after the guest's end."""
        ...

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        """The final response, from whom it was handed over to.

        With status 101 the connection becomes two streams of bytes: `body` goes to the client as it
        is, and what the client sends goes into `incoming`.
        """
        ...

    def abort(self) -> None:
        """End the connection so that the client sees an unfinished message."""
        ...
