"""The two translations of CGI/1.1 (RFC 3875): request to variables, header block to response.

Pure functions; the streams around them are in `cgi`.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

from edge import __version__
from edge.abi.sandbox import Sandbox
from edge.http.message import Headers, RequestHead, ResponseHead

# Only what maps to a variable name and back: with `_` allowed, `X_User` could pass for `X-User`.
_PLAIN_NAME = re.compile(rb"[a-z0-9-]+")
# `Proxy` would become HTTP_PROXY, which HTTP clients obey (httpoxy, CVE-2016-5385); the other two
# have variables of their own.
_NOT_PASSED = frozenset({b"proxy", b"content-length", b"content-type", b"host"})

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # section 5.5
_STATUS = re.compile(rb"([2-5][0-9][0-9])(?:[ \t].*)?")
_ONCE = frozenset({b"status", b"location", b"content-type", b"content-length"})


class CgiProblem(Exception):
    """A header block that is no CGI response; the message is for the program's author."""


def request_variables(box: Sandbox) -> dict[bytes, bytes]:
    """The meta-variables of RFC 3875, section 4.1, and those that servers add by custom."""
    downstream = box.downstream
    head = downstream.head
    path, _, query = head.target.partition(b"?")
    host, port = _split_authority(head)
    client = str(ip_address(downstream.client_address)).encode()
    variables = {
        b"GATEWAY_INTERFACE": b"CGI/1.1",
        b"SERVER_SOFTWARE": b"edge-server/" + __version__.encode(),
        b"SERVER_PROTOCOL": b"HTTP/1.0" if head.version == 10 else b"HTTP/1.1",
        b"SERVER_NAME": host,
        b"SERVER_PORT": port,
        b"SERVER_ADDR": str(ip_address(downstream.server_address)).encode(),
        b"REQUEST_METHOD": head.method,
        b"REQUEST_SCHEME": head.scheme,
        b"REQUEST_URI": head.target,
        # the program answers for the whole of its routes: it is mounted at the root
        b"SCRIPT_NAME": b"",
        # decoded, as section 4.1.5 says, but for %00, which would end the variable early
        b"PATH_INFO": unquote_to_bytes(path).replace(b"\0", b"%00"),
        b"QUERY_STRING": query,
        b"REMOTE_ADDR": client,
        b"REMOTE_HOST": client,  # section 4.1.9: the address where no name is known
        b"REQUEST_ID": downstream.request_id.encode(),
        b"HTTP_HOST": head.authority,
    }
    if head.scheme == b"https":
        variables[b"HTTPS"] = b"on"
    for name, value in head.headers:
        if name in _NOT_PASSED:
            if name in (b"content-length", b"content-type"):
                variables[name.upper().replace(b"-", b"_")] = value
        elif _PLAIN_NAME.fullmatch(name):
            variable = b"HTTP_" + name.upper().replace(b"-", b"_")
            earlier = variables.get(variable)
            if earlier is None:
                variables[variable] = value
            else:
                variables[variable] = earlier + (b"; " if name == b"cookie" else b", ") + value
    return variables


def _split_authority(head: RequestHead) -> tuple[bytes, bytes]:
    host, colon, port = head.authority.rpartition(b":")
    if colon and port.isdigit():
        return host, port
    return head.authority, b"443" if head.scheme == b"https" else b"80"


def end_of_head(data: bytes | bytearray, start: int) -> int:
    """Where the body begins, or -1; `start` is how far an earlier search has come."""
    if data[:1] == b"\n" or data[:2] == b"\r\n":
        return 1 if data[:1] == b"\n" else 2  # an empty header block
    at = max(0, start - 2)
    while (at := data.find(b"\n", at)) >= 0:
        at += 1
        if data[at : at + 1] == b"\n":
            return at + 1
        if data[at : at + 2] == b"\r\n":
            return at + 2
    return -1


def response_head(block: bytes, *, max_fields: int) -> ResponseHead:
    """The response that a header block asks for (RFC 3875, section 6.3).

    A Location without a Status is a 302, whether it names a path or a whole URI: a path is not
    looked up here again.  Raises CgiProblem.
    """
    headers: Headers = []
    seen: set[bytes] = set()
    status = 0
    for ended in block.split(b"\n"):
        line = ended.removesuffix(b"\r")
        if not line:
            continue
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _TOKEN.fullmatch(name):
            raise CgiProblem(f"not a header field: {_shown(line)}")
        if not _VALUE.fullmatch(value):
            raise CgiProblem(f"the value of {_shown(name)} has a control character")
        name = name.lower()
        if name in _ONCE:
            if name in seen:
                raise CgiProblem(f"{_shown(name)} is given twice")
            seen.add(name)
        if name == b"status":
            match = _STATUS.fullmatch(value)
            if match is None:
                raise CgiProblem(f"Status: {_shown(value)}; write a number from 200 to 599")
            status = int(match[1])
            continue
        if name == b"content-length" and not re.fullmatch(rb"[0-9]{1,18}", value):
            raise CgiProblem(f"Content-Length: {_shown(value)} is not a number")
        if len(headers) >= max_fields:
            raise CgiProblem(f"more than {max_fields} header fields (limits.head_fields)")
        headers.append((name, value))
    if not status and not headers:
        raise CgiProblem("no header field before the blank line; Content-Type or Status is usual")
    return ResponseHead(
        status=status or (302 if b"location" in seen else 200),
        headers=headers,
        manual_framing=b"content-length" in seen,
    )


def _shown(data: bytes) -> str:
    return ascii(data[:80].decode("latin-1"))
