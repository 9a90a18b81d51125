"""Over TLS, an end that is not a goodbye is no end: anybody on the way could have made it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable

import pytest
import trustme

from edge.errors import Incomplete
from edge.http.body import Account, Body, Ledger
from edge.model.backend import Backend, Origin
from edge.upstream.client import Client
from edge.upstream.dialing import Dialed, ProtocolFactory
from edge.upstream.fetch import UpstreamRequest
from tests.support.backends_h1 import answer, read_all
from tests.support.serving import run


def _say_goodbye(connection: ssl.SSLSocket) -> None:
    connection.unwrap().close()


def _cut(connection: ssl.SSLSocket) -> None:
    os.close(connection.detach())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _body(authority: trustme.CA, end: Callable[[ssl.SSLSocket], None]) -> bytes:
    """What a client reads of a body without a length that a server ends like that."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        accepted, _ = listener.accept()
        connection = context.wrap_socket(accepted, server_side=True)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        end(connection)

    class Dialer:
        async def dial(
            self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
        ) -> Dialed:
            del backend, deadline
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: protocol_factory(None),
                "127.0.0.1",
                port,
                ssl=trusting,
                server_hostname="localhost",
            )
            return Dialed(transport, protocol, b"\x7f\0\0\1", port, None)

    found = b""

    async def main() -> None:
        nonlocal found
        client = Client(Dialer())
        backend = Backend("origin", Origin(True, "localhost", port))
        request = UpstreamRequest(backend, b"GET", b"/", [], Body(), Account(Ledger(), 1 << 20))
        try:
            found = await read_all((await answer(client.for_service("s").send(request))).body)
        finally:
            await client.aclose()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        run(main())
    finally:
        thread.join(10)
        listener.close()
    return found


def test_a_goodbye_ends_a_body_that_has_no_length(authority: trustme.CA) -> None:
    assert _body(authority, _say_goodbye) == b"hello"


def test_an_end_without_a_goodbye_does_not(authority: trustme.CA) -> None:
    with pytest.raises(Incomplete):
        _body(authority, _cut)
