"""Which connections are shared, how many there may be, and how long they live."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from edge.model.backend import Backend, ClientCertificate, Origin, TlsVersion
from edge.model.secret import Secret
from edge.upstream.fetch import Cause
from edge.upstream.pending import Fetch
from edge.upstream.pool import Pool, PoolLimits, pool_key
from edge.upstream.timers import NEVER
from tests.support.backends_h1 import Peer, answering, failure, fetching, ok, whole
from tests.support.serving import run, until

BACKEND = Backend("origin", Origin(True, "origin.example", 443))
CERTIFICATE = ClientCertificate("PEM", Secret(b"key"))


async def _forever(peer: Peer) -> None:
    while True:
        await peer.head()
        await peer.send(ok())


async def _held(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"url": Origin(False, "origin.example", 443)},
        {"url": Origin(True, "origin.example", 444)},
        {"url": Origin(True, "other.example", 443)},
        {"verify": False},
        {"cert_host": "x.example"},
        {"use_sni": False},
        {"sni_host": "x.example"},
        {"ca_certificate": "PEM"},
        {"client_certificate": CERTIFICATE},
        {"min_tls": TlsVersion.TLS_1_2},
        {"max_tls": TlsVersion.TLS_1_2},
        {"ciphers": "HIGH"},
        {"http2": True},
        {"grpc": True},
        {"dynamic": True},
    ],
)
def test_a_difference_that_a_connection_has_keeps_pools_apart(changed: dict[str, object]) -> None:
    other = replace(BACKEND, **changed)  # type: ignore[arg-type]
    assert pool_key("s", other, 0) != pool_key("s", BACKEND, 0)


def test_what_only_requests_have_does_not_keep_pools_apart() -> None:
    other = replace(
        BACKEND, url=replace(BACKEND.url, prefix="/x"), override_host="y", first_byte_timeout=1.0
    )
    assert pool_key("s", other, 0) == pool_key("s", BACKEND, 1)
    one = replace(BACKEND, client_certificate=CERTIFICATE)
    same = replace(BACKEND, client_certificate=ClientCertificate("PEM", Secret(b"key")))
    another = replace(BACKEND, client_certificate=ClientCertificate("PEM", Secret(b"yek")))
    assert pool_key("s", one, 0) == pool_key("s", same, 0)
    assert pool_key("s", one, 0) != pool_key("s", another, 0)
    assert b"key" not in repr(pool_key("s", one, 0)).encode()


def test_names_of_dynamic_backends_keep_nothing_apart_but_services_and_policies_do() -> None:
    one = replace(BACKEND, dynamic=True)
    other = replace(one, name="made up")
    assert pool_key("s", one, 0) == pool_key("s", other, 0)
    assert pool_key("s", one, 0) != pool_key("t", one, 0)
    assert pool_key("s", one, 0) != pool_key("s", one, 1)


def test_services_share_no_connection() -> None:
    async def main() -> None:
        async with fetching(_forever) as f:
            await f.fetch()
            f.upstream = f.client.for_service("another")
            await f.fetch()
            assert f.accepted == 2

    run(main())


def test_a_backend_made_anew_finds_the_connections_of_its_like() -> None:
    async def main() -> None:
        async with fetching(_forever, dynamic=True) as f:
            for number in range(200):  # more than are known by identity
                await f.fetch(backend=f.other(name=f"d{number}"))
            assert f.accepted == 1

    run(main())


def test_the_connection_used_last_is_used_next() -> None:
    ports: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            ports.append(peer.writer.get_extra_info("peername")[1])
            await release.wait()
            await peer.send(ok())

    release = asyncio.Event()

    async def main() -> None:
        async with fetching(script) as f:
            first, second = f.send(), f.send()
            await until(lambda: len(ports) == 2)
            release.set()
            await whole(first)
            await whole(second)
            await until(lambda: f.client.statistics().connections_idle == 2)
            for _ in range(5):
                await f.fetch()
            assert len(set(ports[2:])) == 1
            assert f.accepted == 2

    run(main())


def test_a_policy_that_changed_closes_what_dynamic_backends_had() -> None:
    async def main() -> None:
        async with fetching(_forever) as f:
            dynamic = f.other(dynamic=True)
            await f.fetch()
            await f.fetch(backend=dynamic)
            f.client.policy_changed()
            await until(lambda: f.client.statistics().connections_open == 1)
            await f.fetch()
            assert f.accepted == 2
            await f.fetch(backend=dynamic)
            assert f.accepted == 3

    run(main())


def test_a_connection_in_use_while_the_policy_changes_is_not_used_again() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await release.wait()
            await peer.send(ok())

    release = asyncio.Event()

    async def main() -> None:
        async with fetching(script, dynamic=True) as f:
            pending = f.send()
            await until(lambda: f.accepted)
            f.client.policy_changed()
            release.set()
            assert (await whole(pending)).body == b"hello"
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


# Bounds -----------------------------------------------------------------------------------------


def test_max_connections_fails_the_request_that_would_need_another() -> None:
    async def main() -> None:
        async with fetching(_held, max_connections=2) as f:
            pending = [f.send() for _ in range(2)]
            error = await failure(f.send())
            assert (error.cause, error.status_hint) == (Cause.CONNECTION_LIMIT_REACHED, 503)
            assert "max_connections" in str(error)
            for each in pending:
                each.abandon()
            await until(lambda: f.client.statistics().connections_open == 0)
            f.send().abandon()

    run(main())


def test_one_service_may_not_have_all_connections() -> None:
    async def main() -> None:
        async with fetching(_held, limits=PoolLimits(open=3, per_service=2)) as f:
            own = [f.send() for _ in range(2)]
            assert (await failure(f.send())).cause is Cause.CONNECTION_LIMIT_REACHED
            f.upstream = f.client.for_service("another")
            other = f.send()
            assert (await failure(f.send())).cause is Cause.CONNECTION_LIMIT_REACHED
            assert f.client.statistics().connections_open == 3
            for each in (*own, other):
                each.abandon()

    run(main())


@pytest.mark.parametrize("limits", [PoolLimits(open=2), PoolLimits(per_service=2)])
def test_an_idle_connection_gives_way_to_one_elsewhere(limits: PoolLimits) -> None:
    async def main() -> None:
        async with fetching(_forever, limits=limits) as f:
            a, b, c = (f.other(name=name) for name in "abc")
            for backend in (a, b, a, c):
                assert (await f.fetch(backend=backend)).status == 200
            await until(lambda: f.client.statistics().connections_open == 2)
            assert f.accepted == 3
            await f.fetch(backend=a)  # used after b: b's had to go
            assert f.accepted == 3
            await f.fetch(backend=b)
            assert f.accepted == 4

    run(main())


def test_idle_connections_have_a_bound_for_one_place_and_for_all() -> None:
    arrived = 0

    async def script(peer: Peer) -> None:
        nonlocal arrived
        await peer.head()
        arrived += 1
        await release.wait()
        await peer.send(ok())
        await peer.gone()

    release = asyncio.Event()

    async def main() -> None:
        async with fetching(script, limits=PoolLimits(idle=5, idle_per_group=3)) as f:
            other = f.other(name="other")
            pending = [f.send() for _ in range(6)] + [f.send(backend=other) for _ in range(6)]
            await until(lambda: arrived == 12)
            release.set()
            for each in pending:
                await whole(each)
            statistics = f.client.statistics
            await until(lambda: statistics().connections_open == 5)
            assert statistics().connections_idle == 5

    run(main())


@pytest.mark.parametrize(
    "options", [{"keep_alive": 0.0}, {"max_use": 1}, {"max_lifetime": 0.000001}]
)
def test_a_connection_that_must_not_be_used_again_is_closed(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with fetching(_forever, **options) as f:
            await f.fetch()
            await f.fetch()
            assert f.accepted == 2
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_max_use_counts_requests() -> None:
    async def main() -> None:
        async with fetching(_forever, max_use=3) as f:
            for _ in range(7):
                await f.fetch()
            assert f.accepted == 3

    run(main())


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"keep_alive": 0.05}, ()),
        ({"max_lifetime": 0.05}, ()),
        ({"keep_alive": 60.0}, (b"Keep-Alive: timeout=0",)),
    ],
)
def test_an_idle_connection_ends_in_time(
    options: dict[str, Any], fields: tuple[bytes, ...]
) -> None:
    async def main() -> None:
        async with fetching(answering(ok(b"", *fields)), **options) as f:
            await f.fetch()
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main(), seconds=5)


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: x, Close"])
def test_a_backend_that_wants_to_close_is_not_asked_again(field: bytes) -> None:
    async def main() -> None:
        async with fetching(answering(ok(b"hello", field))) as f:
            await f.fetch()
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_an_http_1_0_backend_keeps_a_connection_only_when_it_says_so() -> None:
    async def main() -> None:
        kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
        last = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"
        async with fetching(answering(kept, last)) as f:
            await f.fetch()
            await f.fetch()
            assert f.accepted == 1
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_names_that_guests_make_up_do_not_keep_pools_apart() -> None:
    for one in (replace(BACKEND, dynamic=True), replace(BACKEND, named_by_guest=True)):
        assert pool_key("s", one, 0) == pool_key("s", replace(one, name="another"), 0)


class Closing:
    """A link that has room for nothing; it may become idle without telling the pool."""

    address, port, pooled, room, deadline = b"", 0, False, 0, NEVER

    def __init__(self, *, idle: bool) -> None:
        self.idle = idle
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def carry(self, fetch: Fetch) -> None: ...

    def drop(self, fetch: Fetch) -> None: ...

    def abort(self) -> None: ...

    def on_due(self) -> None: ...


def test_a_connection_that_became_idle_while_it_closed_does_no_harm() -> None:
    async def main() -> None:
        async with fetching(answering()) as f:
            pool = Pool(PoolLimits(idle_per_group=1), f.client.deadlines)
            group = pool.group(f.client, "s", BACKEND, 0)
            first, second = Closing(idle=False), Closing(idle=True)
            pool.freed(group, first)
            first.idle = True
            pool.freed(group, second)
            assert (first.closed, second.closed) == (True, False)
            assert list(pool.idle) == [second]

    run(main())
