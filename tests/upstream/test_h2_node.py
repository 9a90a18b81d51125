"""HTTP/2 against a server of another make: Node's, which is nghttp2 inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.http.body import Account, Body, Ledger
from edge.model.backend import Backend
from edge.upstream.client import Client, ServiceUpstream
from edge.upstream.fetch import Cause, Pending, UpstreamFailed, UpstreamRequest
from edge.upstream.h2 import make_h2
from tests.support.backends import (
    authority_pem,
    backend,
    dialer,
    handshakes,
    identity,
    on_uvloop,
    server_context,
)
from tests.support.h2_peer import MIB, read, ready
from tests.support.toolchain import node

SERVER = Path(__file__).with_name("h2_node.mjs")


@asynccontextmanager
async def node_server(*arguments: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        str(node()), str(SERVER), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


class Scene:
    """The server and a client that trusts it."""

    def __init__(self, client: Client, to: Backend) -> None:
        self.client = client
        self.to = to
        self.upstream: ServiceUpstream = client.for_service("shop")

    def send(self, path: bytes, body: bytes | Body = b"", method: bytes = b"POST") -> Pending:
        if isinstance(body, bytes):
            content, body = body, Body(live=True)
            for at in range(0, len(content), 65536):
                body.write(content[at : at + 65536])
            body.finish()
        return self.upstream.send(
            UpstreamRequest(self.to, method, path, [], body, Account(Ledger(), 64 * MIB))
        )


@asynccontextmanager
async def over_tls(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    pem = folder / "server.pem"
    pem.write_bytes(identity("localhost").private_key_and_cert_chain_pem.bytes())
    async with node_server(str(pem)) as port, dialer() as network:
        client = Client(network, make_h2=make_h2)
        wanted = {"http2": True, "ca_certificate": authority_pem(), "cert_host": "localhost"}
        to = backend(f"https://127.0.0.1:{port}", **{**wanted, "connect_timeout": 5.0, **settings})
        try:
            yield Scene(client, to)
        finally:
            await client.aclose()


@on_uvloop
async def test_requests_one_after_another_share_a_connection(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as here:
        for i in range(20):
            response = await ready(here.send(b"/%d" % i, method=b"GET"))
            assert response.version == 20
            body = await read(response.body)
            assert body == b"%s /%d" % (here.to.url.authority.encode(), i)
        statistics = here.client.statistics()
        assert (statistics.connections_opened, statistics.connections_idle) == (1, 1)


@on_uvloop
async def test_many_requests_at_once_share_a_connection(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as here:
        pending = [here.send(b"/echo", b"x" * i) for i in range(100)]
        for i, each in enumerate(pending):
            assert await read((await ready(each)).body) == b"x" * i
        assert here.client.statistics().connections_opened == 1


@on_uvloop
async def test_a_large_body_goes_out_and_comes_back_at_once(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4 * 1024 * 8  # 8 MiB
    async with over_tls(tmp_path) as here:
        response = await ready(here.send(b"/echo", content))
        assert await read(response.body) == content


@on_uvloop
async def test_several_large_bodies_at_once(tmp_path: Path) -> None:
    contents = [bytes([i]) * MIB for i in range(8)]
    async with over_tls(tmp_path) as here:
        pending = [here.send(b"/echo", content) for content in contents]
        responses = [await ready(each) for each in pending]
        found = await asyncio.gather(*(read(response.body) for response in responses))
        assert list(found) == contents


@on_uvloop
async def test_hints_and_a_response_without_a_body(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as here:
        response = await ready(here.send(b"/hints", method=b"GET"))
        assert response.status == 204
        assert response.hints == [(103, [(b"link", b"</style.css>")])]
        assert await read(response.body) == b""


@on_uvloop
async def test_after_a_goodbye_the_next_request_gets_a_new_connection(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as here:
        for path, body in ((b"/leave", b"goodbye"), (b"/echo", b"")):
            response = await ready(here.send(path))
            assert await read(response.body) == body
        assert here.client.statistics().connections_opened == 2


@on_uvloop
async def test_a_server_that_knows_only_http2_ends_a_handshake_without_an_offer(
    tmp_path: Path,
) -> None:
    async with over_tls(tmp_path, http2=False) as here:
        with pytest.raises(UpstreamFailed) as caught:
            await ready(here.send(b"/"))
        assert caught.value.cause is Cause.TLS_ALERT_RECEIVED
        assert caught.value.tls_alert == 120  # no_application_protocol


@on_uvloop
async def test_a_certificate_of_ours_that_is_refused_after_the_handshake_is_an_alert() -> None:
    # With TLS 1.3 the client is done first: the refusal comes where the response was to come.
    context = server_context("localhost", alpn=("h2",), wants_client=True)
    async with handshakes(context) as port, dialer() as network:
        client = Client(network, make_h2=make_h2)
        to = backend(f"https://127.0.0.1:{port}", http2=True, verify=False)
        with pytest.raises(UpstreamFailed) as caught:
            await ready(Scene(client, to).send(b"/"))
        assert caught.value.cause is Cause.TLS_ALERT_RECEIVED
        assert caught.value.tls_alert == 116  # certificate_required
        await client.aclose()


@on_uvloop
async def test_grpc_needs_no_tls_and_ends_with_its_trailers() -> None:
    async with node_server() as port, dialer() as network:
        client = Client(network, make_h2=make_h2)
        here = Scene(client, backend(f"http://127.0.0.1:{port}", grpc=True))
        response = await ready(here.send(b"/grpc", b"request"))
        assert response.version == 20
        assert await read(response.body) == b"message"
        assert dict(response.body.trailers) == {b"grpc-status": b"0", b"x-te": b"trailers"}
        await client.aclose()
