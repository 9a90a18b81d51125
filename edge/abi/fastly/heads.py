"""Request and response heads while a guest builds them: fields, limits, charges.  No hostcalls.

Fields are a list of pairs: appending looks at none of the others, and the rest looks at 512 at
most; what a head may hold is `limits.head_bytes` and `limits.head_fields`.  A client request's
fields are copied only when its guest looks at them: a hello world never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Annotated

from edge.abi.codec import MAX_TEXT, Codec, Handle, Names, Span
from edge.abi.sandbox import Sandbox
from edge.errors import InvalidArgument, InvalidHead, LimitExceeded
from edge.http.message import Downstream, Headers, RequestHead

# What a field costs us above its own bytes: two bytes objects, a tuple, a place in the list.
FIELD_OVERHEAD = 96
# Heads this small are neither charged nor checked: the least limits allow more (1 KiB, 16 fields),
# and `limits.handles` bounds how many there can be.
FREE = 1024
MAX_URI = 16 * 1024  # twice the client's limit: guests add parameters on the way to a backend

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FIELD_VALUE = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))  # RFC 9110 §5.5
_URI = bytes(range(0x21, 0x7F))  # RFC 3986 wants even less; what the SDKs accept goes through


class HttpVersion(IntEnum):
    """`http_version`."""

    HTTP_09 = 0
    HTTP_10 = 1
    HTTP_11 = 2
    H2 = 3
    H3 = 4


class FramingMode(IntEnum):
    """`framing_headers_mode`."""

    AUTOMATIC = 0
    MANUALLY_FROM_HEADERS = 1


@dataclass(frozen=True, slots=True)
class CacheOverride:
    """What the guest asks of the cache for this request; kept for when it is sent."""

    tag: int
    ttl: int  # seconds
    stale_while_revalidate: int  # seconds
    surrogate_key: bytes = b""
    lookup_timeout: int | None = None  # milliseconds that a lookup may take


@dataclass(frozen=True, slots=True)
class FieldName(Span):
    """A field name: a token (RFC 9110 §5.1), lower-cased."""

    limit: int = MAX_TEXT

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        known, check = names.bind(_KNOWN.get, "known"), names.bind(_field_name, "field_name")
        return [
            *Span.lift(self, raw, target, names),
            f"{target} = {known}({target}) or {check}({target})",
        ]


@dataclass(frozen=True, slots=True)
class FieldValue(Codec):
    """A field value; longer than a whole head may be is LIMITEXCEEDED, with nothing copied.

    `nul` lets through the NUL bytes that end each value of a list.
    """

    nul: bool = False
    wasm: str = "ii"

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        ptr, length = raw
        check = names.bind(_field_values if self.nul else _field_value, "field_value")
        too_long = names.bind(_too_long, "too_long")
        room = "box.limits.head_bytes" + (" + box.limits.head_fields" if self.nul else "")
        return [
            # No limit is less than FREE, which spares most values the look at it.
            f"if {length} > {FREE} and {length} > {room}: {too_long}({length}, {room})",
            f"if {ptr} + {length} > m.size: m.require({ptr}, {length})",
            f"at = m.base + {ptr}",
            f"{target} = w[at : at + {length}]",
            # Visible ASCII and spaces, as nearly always, is found out in 90 ns; `check` takes 140.
            f"if not ({target}.isascii() and {target}.decode().isprintable()): {check}({target})",
        ]


# Names that nearly every response uses, in the spellings people use: no check, no lower-casing.
_COMMON = (
    b"Accept Accept-Encoding Access-Control-Allow-Origin Age Authorization Cache-Control "
    b"Content-Encoding Content-Language Content-Length Content-Security-Policy Content-Type Cookie "
    b"Date ETag Expires Host Last-Modified Link Location Server Set-Cookie "
    b"Strict-Transport-Security User-Agent Vary X-Content-Type-Options X-Frame-Options"
).split()
_KNOWN = {spelling: name.lower() for name in _COMMON for spelling in (name, name.lower())}


def _field_name(name: bytes) -> bytes:
    if not name or name.translate(None, _TOKEN):
        raise InvalidHead(f"{name[:64]!r} is not a field name")
    return name.lower()


def _field_value(value: bytes) -> None:
    if value.translate(None, _FIELD_VALUE):
        raise InvalidHead("a field value holds a control character")


def _field_values(values: bytes) -> None:
    if values.translate(None, _FIELD_VALUE + b"\0"):
        raise InvalidHead("a field value holds a control character")


def _too_long(length: int, limit: int) -> None:
    raise LimitExceeded(
        f"a field value of {length} bytes, a whole head may have {limit}", limit="limits.head_bytes"
    )


class Head:
    """What requests and responses have in common: the fields, a plain list as the wire has them.

    Defaults are class attributes and there are no slots: a hello world makes two heads and changes
    two attributes of them, and this halves what they cost it.
    """

    headers: Headers  # lower-case names
    version: HttpVersion
    size = 0  # bytes of names and values
    cost = 0  # bytes charged for them
    manual_framing = False
    abandon = leave = None  # nothing to give up when the sandbox closes

    def names(self) -> list[bytes]:
        """The distinct names, in order."""
        return list(dict.fromkeys(name for name, _ in self.headers))

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field; none when it is absent."""
        return [value for found, value in self.headers if found == name]

    def first(self, name: bytes) -> bytes:
        """The first value.  Raises InvalidArgument when the field is absent (ABI page, 6.2)."""
        for found, value in self.headers:
            if found == name:
                return value
        raise InvalidArgument(f"no field {name[:64]!r}")

    def replace(self, box: Sandbox, name: bytes, values: list[bytes]) -> None:
        """Make `values` the field's values; none at all removes it."""
        headers = [field for field in self.headers if field[0] != name]
        headers += [(name, value) for value in values]
        size = sum(len(name) + len(value) for name, value in headers)
        self.admit(box, size, len(headers))
        self.size, self.headers = size, headers

    def remove(self, box: Sandbox, name: bytes) -> None:
        """Raises InvalidArgument when the field is absent."""
        self.first(name)
        self.replace(box, name, [])

    def release(self, box: Sandbox) -> None:
        """The guest has let go of the head."""
        if self.cost:
            box.hold(-self.cost)
            self.cost = 0

    def take(self, box: Sandbox, headers: Headers) -> None:
        """Charge for fields that somebody else made, whatever their number.

        Raises LimitExceeded.
        """
        size = sum(map(len, chain.from_iterable(headers)))
        cost = size + FIELD_OVERHEAD * len(headers)
        if cost > FREE:
            box.hold(cost)
            self.cost = cost
        self.size = size

    def admit(self, box: Sandbox, size: int, count: int) -> None:
        """Charge for that much in all, or raise LimitExceeded before anything has changed."""
        limits = box.limits
        if size > limits.head_bytes and size > self.size:
            raise LimitExceeded(
                f"a head of {size} bytes, {limits.head_bytes} allowed", limit="limits.head_bytes"
            )
        if count > limits.head_fields and count > len(self.headers):
            raise LimitExceeded(
                f"a head of {count} fields, {limits.head_fields} allowed",
                limit="limits.head_fields",
            )
        cost = size + FIELD_OVERHEAD * count
        if cost > FREE or self.cost:
            box.hold(cost - self.cost)
            self.cost = cost


class GuestRequest(Head):
    """A request head; `from_client` marks the one that came from the client."""

    method: bytes
    uri: bytes
    auto_decompress = 0  # the encodings we are asked to undo on the response
    cache_override: CacheOverride | None = None
    downstream: Downstream  # the client's, of a request that came from one
    _line_cost = 0  # charged for what the guest set besides fields

    def __init__(self, box: Sandbox, *, from_client: bool = False) -> None:
        self._box = box
        self.from_client = from_client
        if from_client:
            self.downstream = box.downstream  # the sandbox may serve another client by and by
        else:
            self.method = b"GET"
            self.uri = b"/"
            self.version = HttpVersion.HTTP_11
            self.headers = []
        # the client's own parts are looked up when asked for: see __getattr__

    def __getattr__(self, name: str) -> object:
        """Fill in a part of the client's request on first use (called while the slot is empty)."""
        if not self.from_client or name not in _FROM_CLIENT:
            raise AttributeError(name)
        client = self.downstream.head
        value = _FROM_CLIENT[name](client)
        if name == "headers":
            self.take(self._box, client.headers)
        setattr(self, name, value)
        return value

    def for_sending(self) -> tuple[bytes, bytes, int, Headers]:
        """Method, URI, version and fields; parts that the guest never looked at are not kept.

        Asking for them one by one costs a failed look-up each, 3 us in all.
        """
        if not self.from_client:
            return self.method, self.uri, self.version, self.headers
        own, client = self.__dict__, self.downstream.head
        uri = own.get("uri")
        headers = own.get("headers")
        return (
            own.get("method", client.method),
            absolute_uri(client) if uri is None else uri,
            own.get("version", HttpVersion.HTTP_11),  # a client's own is never more
            client.headers if headers is None else headers,
        )

    def fields(self) -> Headers:
        """The fields for sending: a client's own ones if its guest has never looked at them."""
        if self.from_client and "headers" not in self.__dict__:
            return self.downstream.head.headers
        return self.headers

    def set_method(self, method: bytes) -> None:
        """Raises InvalidHead unless it is a token (RFC 9110 §9.1)."""
        if not method or method.translate(None, _TOKEN):
            raise InvalidHead(f"{method[:64]!r} is not a method")
        self._charge_line(method, self.uri, self.cache_override)
        self.method = method

    def set_uri(self, uri: bytes) -> None:
        """Raises InvalidHead when it is no URI."""
        check_uri(uri)
        self._charge_line(self.method, uri, self.cache_override)
        self.uri = uri

    def set_cache_override(self, override: CacheOverride) -> None:
        """Keep it for when the request is sent."""
        self._charge_line(self.method, self.uri, override)
        self.cache_override = override

    def _charge_line(self, method: bytes, uri: bytes, override: CacheOverride | None) -> None:
        key = override.surrogate_key if override else b""
        cost = len(method) + len(uri) + len(key)
        self._box.hold(cost - self._line_cost)
        self._line_cost = cost

    def release(self, box: Sandbox) -> None:
        """The guest has let go of the head."""
        box.hold(-self._line_cost)
        self._line_cost = 0
        Head.release(self, box)

    def hand_on(self) -> int:
        """Bytes that stay charged for the head: whoever sends it gives them back."""
        cost = self.cost + self._line_cost
        if cost:
            self.cost = self._line_cost = 0
        return cost


class GuestResponse(Head):
    """A response head: the guest's own, or a backend's (whose fields nobody copies)."""

    version = HttpVersion.HTTP_11
    status = 200
    close = False  # end the client's connection after this response
    address = b""  # octets of the backend that sent it, if the guest may know
    port = 0

    def __init__(self, headers: Headers | None = None) -> None:
        self.headers = [] if headers is None else headers


def absolute_uri(head: RequestHead) -> bytes:
    """What the guest sees of the client's request target, made absolute (ABI page, section 7)."""
    if head.target == b"*":  # RFC 9112 §3.2.4: its target URI has an empty path
        return b"%s://%s" % (head.scheme, head.authority)
    return b"%s://%s%s" % (head.scheme, head.authority, head.target)


_FROM_CLIENT: dict[str, Callable[[RequestHead], object]] = {
    "method": lambda head: head.method,
    "uri": absolute_uri,
    "version": lambda head: HttpVersion.HTTP_10 if head.version == 10 else HttpVersion.HTTP_11,
    "headers": lambda head: list(head.headers),
}


def check_uri(uri: bytes) -> bytes:
    """Raises InvalidHead unless it could be a URI: visible ASCII, and an authority after `://`."""
    if not uri or len(uri) > MAX_URI or uri.translate(None, _URI):
        raise InvalidHead("not a URI: empty, too long, or with bytes that must be percent-encoded")
    scheme, separator, rest = uri.partition(b"://")
    if separator and not scheme.translate(None, _SCHEME) and uri[:1] not in b"/*":
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        if not scheme or not authority or authority.endswith((b"@", b":@")):
            raise InvalidHead("a URI without scheme or host")
    return uri


_SCHEME = b"+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

Name = Annotated[bytes, FieldName()]
Value = Annotated[bytes, FieldValue()]
ValueList = Annotated[bytes, FieldValue(nul=True)]  # each value followed by a NUL
Request = Annotated[GuestRequest, Handle(GuestRequest)]
Response = Annotated[GuestResponse, Handle(GuestResponse)]


def split_values(values: bytes) -> list[bytes]:
    """`header_values_set`: each value is followed by a NUL; text after the last one is dropped."""
    return values.split(b"\0")[:-1]
