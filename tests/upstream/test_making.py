"""Connections being made: shared where HTTP/2 may come of it; and what links may expect."""

from __future__ import annotations

import asyncio
from typing import Any

from edge.http.body import Account, Body, Ledger
from edge.model.backend import Backend
from edge.upstream import making
from edge.upstream.client import Client
from edge.upstream.dialing import Dialed, Owner, ProtocolFactory
from edge.upstream.fetch import Cause, Pending, UpstreamFailed, UpstreamRequest, UpstreamResponse
from edge.upstream.pending import Fetch
from edge.upstream.timers import NEVER
from tests.support.backends_h1 import Peer, answering, failure, fetching, ok, whole
from tests.support.serving import run, until


class ManyLink(asyncio.Protocol):
    """Carries up to three fetches at once and answers when told; writes nothing."""

    made: list[ManyLink]

    def __init__(self, backend: Backend, owner: Owner) -> None:
        self.owner = owner
        self.address, self.port, self.pooled = b"", 0, False
        self.deadline = NEVER
        self.carried: list[Fetch] = []
        self.dropped: list[Fetch] = []
        self._transport: asyncio.Transport | None = None
        self.made.append(self)

    def on_due(self) -> None:
        """Has no deadline."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.owner.deadlines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.owner.deadlines.remove(self)
        self.owner.lost(self)
        for fetch in self.carried:
            fetch.fail(UpstreamFailed(Cause.H2_ERROR, "lost"))

    @property
    def room(self) -> int:
        return 0 if self._transport is None else 3 - len(self.carried)

    @property
    def idle(self) -> bool:
        return not self.carried

    def carry(self, fetch: Fetch) -> None:
        fetch.carrier = self
        self.carried.append(fetch)

    def drop(self, fetch: Fetch) -> None:
        self.carried.remove(fetch)
        self.dropped.append(fetch)
        self.owner.freed(self)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def end(self, error: UpstreamFailed | None = None, **how: bool) -> None:
        """Answer or fail the oldest fetch."""
        fetch = self.carried.pop(0)
        self.owner.freed(self)
        if error is not None:
            fetch.fail(error, **how)
        else:
            fetch.respond(UpstreamResponse(200, [], Body()))


class AlpnDialer:
    """Connects where a plain one would and says that TLS had agreed on something."""

    def __init__(self, alpn: str | None) -> None:
        self.alpn = alpn
        self.dials = 0
        self.gate = asyncio.Event()

    async def dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
    ) -> Dialed:
        del deadline
        self.dials += 1
        await self.gate.wait()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: protocol_factory(self.alpn), backend.url.host, backend.url.port
        )
        return Dialed(transport, protocol, b"\x7f\0\0\1", backend.url.port, self.alpn)


async def _mute(peer: Peer) -> None:
    await peer.gone()


def h2_backend(backend: Backend) -> Backend:
    url = type(backend.url)(True, backend.url.host, backend.url.port)
    return Backend("h2", url, http2=True)


def ask(client: Client, backend: Backend, body: Body | None = None, **fields: Any) -> Pending:
    request = UpstreamRequest(
        backend, fields.pop("method", b"GET"), b"/", [], body or Body(), Account(Ledger(), 1 << 20)
    )
    return client.for_service("s").send(request)


def test_requests_share_a_connection_that_is_being_made_when_it_may_carry_many() -> None:
    async def main() -> None:
        ManyLink.made = []
        async with fetching(_mute) as f:
            dialer = AlpnDialer("h2")
            client = Client(dialer, make_h2=ManyLink)
            backend = h2_backend(f.backend)
            pending = [ask(client, backend) for _ in range(5)]
            await until(lambda: dialer.dials)
            dialer.gate.set()
            # Three fit; the two others share the next one.
            await until(lambda: sum(len(link.carried) for link in ManyLink.made) == 5)
            assert dialer.dials == 2
            assert client.statistics().connections_idle == 0
            first, second = ManyLink.made
            pending.append(ask(client, backend))  # there is room on the second
            assert len(second.carried) == 3
            pending[0].abandon()
            assert len(first.dropped) == 1
            for link in (first, second):
                while link.carried:
                    link.end()
            assert client.statistics().connections_idle == 2
            for each in pending[1:]:
                assert each.result().status == 200
            await client.aclose()
            assert len(client.deadlines) == 0

    run(main())


def test_a_backend_that_turns_out_plain_gets_a_connection_for_each_request() -> None:
    async def main() -> None:
        async with fetching(answering(ok())) as f:
            dialer = AlpnDialer("http/1.1")
            client = Client(dialer, make_h2=ManyLink)
            backend = h2_backend(f.backend)
            pending = [ask(client, backend) for _ in range(5)]
            await until(lambda: dialer.dials)
            assert dialer.dials == 1
            dialer.gate.set()
            for each in pending:
                assert (await whole(each)).body == b"hello"
            assert 1 < dialer.dials <= 5
            await client.aclose()

    run(main())


def test_a_connection_whose_first_request_could_not_be_sent_is_nobody_elses_to_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            dialer = AlpnDialer("http/1.1")
            client = Client(dialer, make_h2=ManyLink)
            backend = h2_backend(f.backend)
            bad, good = ask(client, backend, method=b"CONNECT"), ask(client, backend)
            dialer.gate.set()
            assert (await failure(bad)).cause is Cause.HTTP_REQUEST_URI_INVALID
            (link,) = client.pool.links
            assert not link.idle
            assert not link.pooled
            assert client.statistics().connections_idle == 0
            good.abandon()
            await client.aclose()

    run(main())


def test_no_more_than_so_many_wait_for_one_connection() -> None:
    async def main() -> None:
        async with fetching(_mute) as f:
            client = Client(AlpnDialer("h2"), make_h2=ManyLink)
            backend = h2_backend(f.backend)
            for _ in range(making.MAX_WAITING):
                ask(client, backend)
            error = await failure(ask(client, backend))
            assert error.cause is Cause.CONNECTION_LIMIT_REACHED
            await client.aclose()

    run(main())


def test_a_dial_goes_on_until_the_last_that_waits_for_it_has_gone() -> None:
    async def main() -> None:
        async with fetching(_mute) as f:
            dialer = AlpnDialer("h2")
            client = Client(dialer, make_h2=ManyLink)
            backend = h2_backend(f.backend)
            first, second = ask(client, backend), ask(client, backend)
            await until(lambda: dialer.dials)
            first.abandon()
            assert client.statistics().connections_open == 1
            second.abandon()
            third = ask(client, backend)  # a dial of its own, not the one that was cancelled
            await until(lambda: dialer.dials == 2)
            await until(lambda: client.statistics().connections_open == 1)
            assert not third.is_ready
            third.abandon()
            await client.aclose()

    run(main())


def test_what_a_server_did_not_look_at_is_sent_once_more_whatever_its_method() -> None:
    refused = UpstreamFailed(Cause.H2_ERROR, "refused stream")

    async def main() -> None:
        ManyLink.made = []
        async with fetching(_mute) as f:
            dialer = AlpnDialer("h2")
            dialer.gate.set()
            client = Client(dialer, make_h2=ManyLink)
            pending = ask(client, h2_backend(f.backend), method=b"POST")
            await until(lambda: ManyLink.made and ManyLink.made[0].carried)
            ManyLink.made[0].carried[0].whole = b""
            ManyLink.made[0].end(refused, unprocessed=True)
            assert not pending.is_ready
            await until(lambda: len(ManyLink.made) == 2 and ManyLink.made[1].carried)
            ManyLink.made[1].carried[0].whole = b""
            ManyLink.made[1].end(refused, unprocessed=True)
            assert (await failure(pending)).cause is Cause.H2_ERROR
            assert client.statistics().retries == 1
            await client.aclose()

    run(main())


def test_http_2_that_nobody_asked_for_is_refused() -> None:
    async def main() -> None:
        async with fetching(_mute) as f:
            dialer = AlpnDialer("h2")
            dialer.gate.set()
            client = Client(dialer)
            error = await failure(ask(client, h2_backend(f.backend)))
            assert error.cause is Cause.HTTP_PROTOCOL_ERROR
            await until(lambda: client.statistics().connections_open == 0)
            await client.aclose()

    run(main())


def test_a_server_that_speaks_first_gets_no_request_and_no_second_dial() -> None:
    class Eager:
        dials = 0

        async def dial(
            self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
        ) -> Dialed:
            del deadline
            self.dials += 1
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: protocol_factory(None), backend.url.host, backend.url.port
            )
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            return Dialed(transport, protocol, b"\x7f\0\0\1", backend.url.port, None)

    async def main() -> None:
        async with fetching(_mute) as f:
            dialer = Eager()
            client = Client(dialer)
            error = await failure(ask(client, f.backend))
            assert error.cause is Cause.CONNECTION_TERMINATED
            assert dialer.dials == 1
            await until(lambda: client.statistics().connections_open == 0)
            await client.aclose()

    run(main())
