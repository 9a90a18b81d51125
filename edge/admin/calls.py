"""From a request to a reply: route, token, body, endpoint, and what the endpoint made of it.

Every call runs in a task that is kept here and bounded in number.  A client that leaves ends what
only it was to see (GET); a change whose request arrived whole is carried through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import parse_qs

from edge.admin import documents
from edge.admin.api import Call, Reply, Route
from edge.admin.app import Request
from edge.admin.around import Around
from edge.admin.auth import ANONYMOUS, Gate, TooManyFailures, shown_token
from edge.admin.incoming import Held, RequestBody
from edge.admin.problems import fault_reply, refusal_reply
from edge.admin.router import Match, NoMethod, Router
from edge.catalogue import tokens
from edge.catalogue.records import Actor, Token
from edge.errors import ApiRefused, EdgeError, Refusal
from edge.http.addresses import format_address
from edge.http.body import Body
from edge.http.message import Headers, ResponseHead

log = logging.getLogger("edge.admin")

MAX_CALLS: Final = 256  # at once, followers of logs included
MAX_CALLS_OF_ONE: Final = 32  # of those, with tokens of one service: others want to deploy as well
MAX_PARAMETERS: Final = 200  # of a query
TOUCH_SECONDS: Final = 60.0  # a token's last use is no more exact than that
_READS: Final = (b"GET", b"HEAD")
_COMMON: Final[Headers] = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Exchange(Request, Protocol):
    """What a call needs of an exchange of the server."""

    on_gone: Callable[[], None] | None
    on_body_limit: Callable[[], None] | None

    @property
    def target(self) -> bytes: ...

    @property
    def body(self) -> Body: ...

    @property
    def content_length(self) -> int | None: ...

    @property
    def client_address(self) -> bytes: ...

    @property
    def request_id(self) -> str: ...

    @property
    def responded(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    def limit_request_body(self, maximum: int) -> bool: ...

    def respond(self, head: ResponseHead, body: Body) -> None: ...

    def abort(self) -> None: ...


class Calls:
    """All routes, and every call that is under way."""

    def __init__(
        self, around: Around, routes: Iterable[Route], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._around = around
        self._router = Router(routes)
        self._gate = Gate(around)
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._of: dict[str, int] = {}  # calls under way with tokens of one service, by its id
        self._touched: dict[str, float] = {}  # when a token's use was last written, by its id
        # Two of the largest, each with the program that came out of it: one owner gets half.
        self._held = Held(2 * (self._router.max_body + around.settings.admin.package_bytes))
        self._stopping = False

    @property
    def routes(self) -> Sequence[Route]:
        return self._router.routes

    def handle(self, exchange: Exchange) -> None:
        """Answer, now or later."""
        method, path = exchange.method.decode("latin-1"), exchange.path.decode("latin-1")
        fastly = not path.startswith("/v1/")
        try:
            match = self._router.match(method, path)
            fastly = match.route.fastly
            if self._stopping:
                raise ApiRefused(Refusal.STOPPING, "the server is stopping")
            if len(self._tasks) >= MAX_CALLS:
                raise ApiRefused(Refusal.BUSY, f"{MAX_CALLS} calls are under way already")
        except NoMethod as error:
            allow = [("allow", error.allowed)]
            _respond(
                exchange,
                refusal_reply(error, exchange.request_id, fastly=error.fastly, headers=allow),
            )
            return
        except ApiRefused as error:
            _respond(exchange, refusal_reply(error, exchange.request_id, fastly=fastly))
            return
        task = self._loop.create_task(self._run(exchange, match))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if exchange.method in _READS:
            exchange.on_gone = lambda: _cancel(task)

    async def aclose(self) -> None:
        """End every call, and take no more; returns when they are over."""
        self._stopping = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, exchange: Exchange, match: Match) -> None:
        route = match.route
        body = RequestBody(exchange.body, exchange.content_length, route.max_body, self._held)
        exchange.on_body_limit = body.limit_reached  # whoever reads it says so, in our own words
        exchange.limit_request_body(route.max_body)
        try:
            reply = await self._reply(exchange, match, body)
            await _send(exchange, reply)
        except asyncio.CancelledError:
            if exchange.responded:
                exchange.abort()
            else:  # we are stopping, or nobody is there to be told
                stopping = ApiRefused(Refusal.STOPPING, "the server stopped before this was done")
                _respond(
                    exchange, refusal_reply(stopping, exchange.request_id, fastly=route.fastly)
                )
            raise
        except Exception:
            log.exception("a call failed", extra={"request_id": exchange.request_id})
            if exchange.responded:
                exchange.abort()
            else:
                _respond(exchange, fault_reply(exchange.request_id, fastly=route.fastly))
        finally:
            self._end(body.owner)
            body.release()

    async def _reply(self, exchange: Exchange, match: Match, body: RequestBody) -> Reply:
        """What the endpoint answers, or why it was not asked."""
        route, headers = match.route, _headers(exchange)
        try:
            token = ANONYMOUS
            if route.scope is not None:
                token = await self._gate.admit(shown_token(headers), exchange.client_address)
                await self._gate.allow(route, token, match.params.__getitem__)
                self._begin(token.service_id, body)
                await self._touch(token)
            query = _query(exchange.target)
            if route.operation is not None:
                documents.check_params(route.operation, match.params)
                documents.check_query(route.operation, query)
            body.refuse_early()
            return await route.endpoint(
                Call(
                    method=exchange.method.decode("latin-1"),
                    path=exchange.path.decode("latin-1"),
                    params=match.params,
                    query=query,
                    headers=headers,
                    body=body,
                    actor=Actor(
                        token.name,
                        token.id,
                        format_address(exchange.client_address),
                        exchange.request_id,
                        token.service_id,
                    ),
                    token=token,
                )
            )
        except TooManyFailures as error:
            wait = [("retry-after", str(error.seconds))]
            return refusal_reply(error, exchange.request_id, fastly=route.fastly, headers=wait)
        except ApiRefused as error:
            return refusal_reply(error, exchange.request_id, fastly=route.fastly)

    def _begin(self, service: str, body: RequestBody) -> None:
        """Count a call with a token of one service.  ApiRefused BUSY when those are too many."""
        if not service:
            return
        count = self._of.get(service, 0)
        if count >= MAX_CALLS_OF_ONE:
            raise ApiRefused(
                Refusal.BUSY, f"{count} calls with tokens of this service are under way already"
            )
        self._of[service] = count + 1
        body.owner = service

    def _end(self, service: str) -> None:
        if service:
            self._of[service] -= 1
            if not self._of[service]:
                del self._of[service]

    async def _touch(self, token: Token) -> None:
        """Write down that a token is in use, once in a while."""
        now = self._around.clock.wall()
        last = max(token.last_used_at or 0.0, self._touched.get(token.id, 0.0))
        if now - last < TOUCH_SECONDS:
            return
        if len(self._touched) >= MAX_CALLS:
            self._touched.clear()
        self._touched[token.id] = now
        try:
            await self._around.catalogue.write(
                Actor(token.name, token.id), lambda tx: tokens.touch(tx, token.id)
            )
        except EdgeError as error:  # a full disk must not keep operators out
            log.warning("the use of a token was not written down: %s", error)


def _headers(exchange: Exchange) -> Callable[[str], str | None]:
    def header(name: str) -> str | None:
        value = exchange.request_header(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    return header


def _query(target: bytes) -> Mapping[str, Sequence[str]]:
    """Raises ApiRefused BAD_REQUEST for escapes that are not UTF-8, and for far too many."""
    _, _, text = target.partition(b"?")
    if not text:
        return {}
    try:
        found = parse_qs(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise ApiRefused(
            Refusal.BAD_REQUEST,
            f"the query is not percent-encoded UTF-8 of at most {MAX_PARAMETERS} parameters",
        ) from None
    if any("\x00" in name or any("\x00" in one for one in all_) for name, all_ in found.items()):
        raise ApiRefused(Refusal.INVALID, "the query has a NUL")
    return found


async def _send(exchange: Exchange, reply: Reply) -> None:
    if isinstance(reply.body, bytes):
        _respond(exchange, reply)
    else:
        await _stream(exchange, reply, reply.body)


def _respond(exchange: Exchange, reply: Reply) -> None:
    """Answer with a complete body.  Too late is no error: the client has left."""
    assert isinstance(reply.body, bytes)
    if exchange.responded:
        return
    body = Body()
    body.write(reply.body)
    exchange.respond(_head(exchange, reply), body)


async def _stream(exchange: Exchange, reply: Reply, pieces: AsyncIterator[bytes]) -> None:
    """Send pieces as fast as the client takes them.

    When it has left, what is written is dropped: the iterator of a change runs to its end.
    """
    body = Body(live=True)
    try:
        exchange.respond(_head(exchange, reply), body)
        if exchange.ended and exchange.method in _READS:
            return  # HEAD
        async for piece in pieces:
            body.write(piece)
            await body.wait_room()
        body.finish()
    finally:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()


def _head(exchange: Exchange, reply: Reply) -> ResponseHead:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
    if reply.status not in (204, 304):
        headers.insert(0, (b"content-type", reply.content_type.encode()))
    headers += [*_COMMON, (b"x-request-id", exchange.request_id.encode())]
    return ResponseHead(status=reply.status, headers=headers)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
