"""What the endpoints of the control API are written in: a call, its reply, and a declared route.

An endpoint is an async function from a `Call` to a `Reply`, or to an `ApiRefused`.  Which requests
reach it, whether their token allows it, and how a refusal looks on the wire is told by its `Route`
and done by `edge.admin.app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from edge.catalogue.records import Actor, Scope, Token

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain; charset=utf-8"
SMALL_BODY: Final = 1024 * 1024  # bytes of a document; packages and values say their own bound


class Incoming(Protocol):
    """The body of a request."""

    async def read(self) -> bytes:
        """All of it.  ApiRefused TOO_LARGE above the route's bound, BUSY when too much is held."""
        ...

    def hold(self, count: int) -> None:
        """Count so many bytes more, which were made of it, until the call is over.  BUSY."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose token allows it."""

    method: str
    path: str  # raw, without the query
    params: Mapping[str, str]  # the `{name}` parts of the route, percent-decoded
    query: Mapping[str, Sequence[str]]  # percent-decoded, in order
    headers: Callable[[str], str | None]  # lower-case name -> the first value
    body: Incoming
    actor: Actor
    token: Token

    def asked(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        found = self.query.get(name)
        return found[-1] if found else default


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered.  An iterator is streamed, and closed when the client has left."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()


Endpoint = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter of an operation; `schema` is JSON Schema."""

    name: str
    summary: str
    schema: Mapping[str, object] = field(default_factory=lambda: {"type": "string"})
    many: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """What the OpenAPI document says of a route."""

    id: str  # operationId, `deploy_service`
    summary: str
    tag: str
    query: tuple[Parameter, ...] = ()
    request: Mapping[str, object] = field(default_factory=dict)  # media type -> JSON Schema
    # Status -> JSON Schema, or None for no body; `contentMediaType` in it: not JSON, but that.
    responses: Mapping[int, object] = field(default_factory=dict)
    media: Mapping[int, Mapping[str, object]] = field(default_factory=dict)  # other forms of those
    body_required: bool = True
    # Statuses of problems beyond those that go without saying: 400, 401, 403, 422, 429 and 503;
    # 404 where the path names something, 413 where there is a body, 507 unless it is a GET.
    refusals: tuple[int, ...] = ()
    params: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # path -> JSON Schema


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `pattern` has `{name}` for one segment.  Where `service` names such a part, a token of one
    service is refused for all others (by name or id).  Where it names none, such a token is
    refused, unless `confined`: then the endpoint itself keeps to `call.token.service_id`.
    """

    method: str
    pattern: str
    endpoint: Endpoint
    scope: Scope | None = Scope.READ  # None: no token is needed
    service: str = ""
    confined: bool = False
    max_body: int = SMALL_BODY  # bytes
    operation: Operation | None = None  # None: not in the OpenAPI document (Fastly's paths)
    fastly: bool = False  # refusals in the shape of Fastly's API
