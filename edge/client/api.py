"""Calls to the control API: one answer, all pages of a list, or lines as they come.

Whatever goes wrong on the way is one of `edge.client.failures`; nothing of httpx leaves here.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

import edge
from edge.client.failures import Refused, Unreachable, Unusable
from edge.client.profile import Target

MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of a document; values of stores are streamed
MAX_LINE: Final = 4 * 1024 * 1024
NDJSON: Final = "application/x-ndjson"
_PAGE: Final = 1000
# A large program takes minutes to compile; the server has bounds of its own and says so.
PATIENCE: Final = 600.0
_CONNECT: Final = 10.0

Query = Mapping[str, str | int | list[str]]
Content = bytes | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A success."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> object:
        """What the JSON says; None for an empty body.  Raises Unreachable for what is no JSON."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Unreachable("the answer is no JSON; is this an edge server?") from None

    @property
    def fields(self) -> dict[str, object]:
        """The JSON object that it is."""
        value = self.value
        if not isinstance(value, dict):
            raise Unreachable("the answer is no JSON object; is this an edge server?")
        return value


class Api:
    """One server.  Used on one thread; close it."""

    def __init__(
        self,
        target: Target,
        *,
        authority: Path | None = None,
        transport: httpx.BaseTransport | None = None,
        seconds: float = PATIENCE,
    ) -> None:
        """`authority`: certificates to trust in place of the system's, PEM.

        `seconds`: how long an answer may take; what is streamed may be silent for any time.
        """
        self.target = target
        self._timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT))
        self._endless = httpx.Timeout(seconds, connect=min(seconds, _CONNECT), read=None)
        headers = {"user-agent": f"edge/{edge.__version__}"}
        if target.token:
            if not target.token.isascii() or not target.token.isprintable():
                raise Unusable("the token has characters that no token has")
            headers["authorization"] = f"Bearer {target.token}"
        self._client = httpx.Client(
            base_url=target.server,
            headers=headers,
            timeout=self._timeout,
            verify=_trust(authority),
            transport=transport,
            trust_env=not target.is_local,  # a proxy is not asked for this machine itself
        )

    def close(self) -> None:
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        document: object = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call.  Raises Refused, Unreachable."""
        with self._open(method, path, query, document, content, headers) as response:
            return Answer(response.status_code, dict(response.headers), _body(response))

    def get(self, path: str, **query: str | int) -> Answer:
        return self.call("GET", path, query=query)

    def items(self, path: str, query: Query | None = None, most: int = 0) -> list[object]:
        """All entries of a list, page after page; `most` of them where that is given."""
        found: list[object] = []
        after = ""
        while True:
            asked: dict[str, str | int | list[str]] = dict(query or {})
            asked["limit"] = min(_PAGE, most - len(found)) if most else _PAGE
            if after:
                asked["after"] = after
            fields = self.call("GET", path, query=asked).fields
            page, following = fields.get("items"), fields.get("next")
            found += page if isinstance(page, list) else []
            if (
                not isinstance(following, str)
                or following == after
                or (most and len(found) >= most)
            ):
                return found
            after = following

    def lines(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """Lines of an answer, as they come."""
        asked = {"accept": NDJSON, **(headers or {})}
        with self._open(method, path, query, None, content, asked, endless=True) as response:
            rest = b""
            for piece in response.iter_bytes():
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line for line in whole if line.strip())
                if len(rest) > MAX_LINE:
                    raise Unreachable(f"a line of the answer has more than {MAX_LINE} bytes")
            if rest.strip():
                yield rest

    @contextmanager
    def pieces(self, path: str) -> Iterator[Iterator[bytes]]:
        """The body of an answer, however long."""
        with self._open("GET", path, None, None, None, None) as response:
            yield response.iter_bytes()

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        document: object,
        content: Content | None,
        headers: Mapping[str, str] | None,
        *,
        endless: bool = False,
    ) -> Iterator[httpx.Response]:
        try:
            request = self._client.build_request(
                method,
                path,
                params=dict(query or {}),
                json=document,
                content=content,
                headers=dict(headers or {}),
                timeout=self._endless if endless else self._timeout,
            )
            response = self._client.send(request, stream=True)
            try:
                if not response.is_success:
                    raise _refusal(response)
                yield response
            finally:
                response.close()
        except httpx.TimeoutException:
            raise Unreachable(f"{self.target.server} does not answer in time") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unreachable(_explain(self.target.server, error)) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise Unusable(f"this cannot be sent: {error}") from None


def part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


def _trust(authority: Path | None) -> ssl.SSLContext | bool:
    if authority is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise Unusable(f"{authority} has no certificates that can be read: {error}") from None


def _body(response: httpx.Response) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > MAX_ANSWER:
            raise Unreachable(f"the answer has more than {MAX_ANSWER} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _refusal(response: httpx.Response) -> Refused | Unreachable:
    raw = _body(response)
    try:
        problem = json.loads(raw)
    except (ValueError, RecursionError):
        problem = None
    if response.status_code == 413 and not isinstance(problem, dict):
        # told by the server's HTTP layer, before the control API has seen it
        detail = "the body is larger than the server takes (admin.package_bytes)"
        return Refused({"code": "too_large", "title": "Too large", "detail": detail}, raw)
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if not isinstance(problem, dict) or "code" not in problem:
        return Unreachable(
            f"{response.request.url.copy_with(query=None)} answers {status}, and not as an edge "
            "server does; is this the control API?"
        )
    return Refused(problem, raw)


def _explain(server: str, error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"{server} is not trusted: {error}; name its authority with --ca"
    if isinstance(error, httpx.ConnectError):
        return (
            f"{server} cannot be reached: {error}; is the server running? Name another with "
            "--server, EDGE_SERVER or `edge login`"
        )
    if isinstance(error, httpx.RemoteProtocolError) and server.startswith("http:"):
        return f"{server}: {error}; does it want https?"
    return f"{server}: the connection failed: {str(error) or type(error).__name__}"
