"""What HTTP/2 we speak to backends: our settings, and a request's head in its words.  No I/O."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from edge.http.message import Headers
from edge.http.upstream_head import MAX_HEAD
from edge.model.backend import Backend
from edge.upstream.h2_frames import BoundedDecoder

MAX_STREAMS = 100
WINDOW = 256 * 1024  # of each stream; with what a body holds, 512 KiB wait at most
# Fields of HTTP/1.1 that have no place here (RFC 9113 section 8.2.2).
_CONNECTION = frozenset((b"connection", b"transfer-encoding", b"host"))


class _Protocol(H2Connection):
    """The library's connection, remembering fewer of its closed streams."""

    MAX_CLOSED_STREAMS = 1024


def new_protocol() -> H2Connection:
    protocol = _Protocol(H2Configuration(client_side=True, header_encoding=None))
    # In force at once and not when the peer has agreed: a push is refused from the start.
    protocol.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        },
    )
    del protocol.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL]  # unknown to old servers
    protocol.decoder = BoundedDecoder(max_header_list_size=MAX_HEAD)
    return protocol


def request_headers(head: bytes, backend: Backend) -> Headers:
    """The head that HTTP/1.1 would have, said in HTTP/2: the same checks have been made of it."""
    first, *lines = head[:-4].split(b"\r\n")
    method, target, _ = first.split(b" ")
    authority, fields = b"", []
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            authority = value
        elif name not in _CONNECTION and not (name == b"te" and backend.grpc):
            fields.append((name, value))
    if backend.grpc:
        fields.append((b"te", b"trailers"))  # gRPC over HTTP/2: proxies that drop them are found
    return [
        (b":method", method),
        (b":scheme", b"https" if backend.url.tls else b"http"),
        (b":authority", authority),
        (b":path", target),
        *fields,
    ]
