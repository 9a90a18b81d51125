"""A blocking client for large bodies: sends and receives at once, compares on the fly, keeps none.

Not for many connections (`tests.support.load`), and not a parser to trust with hostile bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.server import DEADLINE

PIECE = bytes(range(256)) * 256  # 64 KiB, every octet


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came back for a body that was streamed."""

    status: int
    head: bytes
    sent: int  # bytes of body
    received: int
    same: bool  # what came back is what `expect` makes of what was sent


def pattern(size: int) -> Iterator[bytes]:
    """`size` bytes in pieces of 64 KiB."""
    while size > 0:
        yield PIECE[:size]
        size -= len(PIECE)


def stream(
    port: int,
    size: int,
    *,
    host: str,
    path: str = "/",
    expect: Callable[[bytes], bytes] | None = None,
    idle: float = DEADLINE,
) -> Exchanged:
    """POST `size` bytes and compare what comes back with `expect(piece)` of each piece.

    AssertionError when the server closes early; TimeoutError when nothing moves for `idle` seconds.
    """
    wanted = hashlib.blake2b()
    with socket.create_connection(("127.0.0.1", port), timeout=idle) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {size}\r\n"
        client.sendall(head.encode() + b"connection: close\r\n\r\n")

        def send() -> None:
            for piece in pattern(size):
                wanted.update(expect(piece) if expect else piece)
                try:
                    client.sendall(piece)
                except OSError:  # the server gave up on us; what it answered tells
                    return

        sender = threading.Thread(target=send, name="body")
        sender.start()
        try:
            with client.makefile("rb", 1 << 18) as answer:
                first, status = _head(answer.readline)
                found, received = hashlib.blake2b(), 0
                for piece in _body(first, answer.readline, answer.read):
                    found.update(piece)
                    received += len(piece)
        finally:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)  # frees a sender that nobody reads from
            sender.join(idle)
    same = found.digest() == wanted.digest()
    return Exchanged(status, first, size, received, same)


def _head(readline: Callable[[], bytes]) -> tuple[bytes, int]:
    head = b""
    while (line := readline()) not in (b"\r\n", b""):
        head += line
    assert head.startswith(b"HTTP/1.1 "), f"no response: {head[:80]!r}"
    return head.lower(), int(head[9:12])


def _body(
    head: bytes, readline: Callable[[], bytes], read: Callable[[int], bytes]
) -> Iterator[bytes]:
    if b"transfer-encoding: chunked" not in head:
        while piece := read(1 << 18):
            yield piece
        return
    while size := int(readline(), 16):
        while size:
            piece = read(min(size, 1 << 18))
            assert piece, "the response ended inside a chunk"
            size -= len(piece)
            yield piece
        assert readline() == b"\r\n"
