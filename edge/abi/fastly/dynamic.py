"""`fastly_http_req.register_dynamic_backend`: backends that a guest makes for itself.

Its struct has grown over the years and guests pass older, shorter ones: a field is read only if its
bit is set (ABI page, section 4).  Whether such a backend may be reached is the egress policy's
business, not ours.
"""

from __future__ import annotations

from typing import Annotated, Any

from edge.abi.codec import U32, Bits, Text
from edge.abi.fastly.backend import TLS_VERSIONS, Tls, add_backend
from edge.abi.fastly.http_req import abi
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, InvalidArgument, InvalidHead, Unsupported
from edge.http.addresses import parse_authority
from edge.http.headers import is_token
from edge.model.backend import Backend, ClientCertificate, HealthCheck, Origin, TlsVersion
from edge.model.secret import Secret

MAX_NAME = 1024
MAX_PEM = 64 * 1024
MAX_CIPHERS = 8192
# What an operator may write for a backend; whoever asks for more gets that.
MAX_CONNECT = 600.0
MAX_SECONDS = 3600.0
MAX_LIFETIME = 86_400.0
MAX_CONNECTIONS = 100_000
MAX_USE = 1_000_000
LEAST_TIMEOUT = 0.001
TCP_KEEP_ALIVE = 300.0  # seconds of silence, where a guest wants it and does not say how long

# `backend_config_options`; bit 0 is reserved.
OVERRIDE_HOST = 1 << 1
CONNECT_TIMEOUT = 1 << 2
FIRST_BYTE_TIMEOUT = 1 << 3
BETWEEN_BYTES_TIMEOUT = 1 << 4
USE_TLS = 1 << 5
MIN_TLS = 1 << 6
MAX_TLS = 1 << 7
CERT_HOST = 1 << 8
CA_CERTIFICATE = 1 << 9
CIPHERS = 1 << 10
SNI_HOST = 1 << 11
DO_NOT_POOL = 1 << 12
CLIENT_CERTIFICATE = 1 << 13
GRPC = 1 << 14
KEEP_ALIVE = 1 << 15
POOLING_LIMITS = 1 << 16
PREFER_IPV4 = 1 << 17
HEALTH_CHECK = 1 << 18

Name = Annotated[str, Text(limit=MAX_NAME)]
Options = Annotated[int, Bits(known=(1 << 19) - 2)]


@abi.hostcall
def register_dynamic_backend(
    box: Sandbox, name: Name, target: Name, options: Options, config: U32
) -> None:
    """Make a backend for this sandbox: `target` is a host, perhaps with a port.

    ERROR: the name is taken; INVAL: a length, a name or a number that cannot be, an unknown bit;
    BADF: no such secret; LIMITEXCEEDED: more than 200 of them.
    """
    if box.capabilities.upstream is None:
        raise Unsupported("nothing here sends requests to backends")
    if not name:
        raise InvalidArgument("a backend has a name")
    struct = _Struct(box, config, options)
    parts = struct.read()
    url = _origin(target, tls=bool(options & USE_TLS))
    add_backend(box, Backend(name=name, url=url, dynamic=True, **parts), struct.carried)


def _origin(target: str, *, tls: bool) -> Origin:
    authority = _authority(target.encode(), b"https" if tls else b"http")
    host = authority[0].decode()
    return Origin(tls, host.removeprefix("[").removesuffix("]"), authority[1])


def _authority(raw: bytes, scheme: bytes) -> tuple[bytes, int]:
    """Canonical host and port."""
    try:
        found = parse_authority(raw, scheme)
    except InvalidHead as error:
        raise InvalidArgument(str(error)) from None
    port = found.text[len(found.host) + 1 :]
    return found.host, int(port) if port else (443 if scheme == b"https" else 80)


class _Struct:
    """`dynamic_backend_config` in guest memory, and which of its fields are there."""

    def __init__(self, box: Sandbox, at: int, options: int) -> None:
        self._box = box
        self._mem: GuestMemory = box.memory
        self._at = at
        self._options = options
        self.carried = 0  # bytes of what was copied

    def read(self) -> dict[str, Any]:
        """The fields of a `Backend` that the guest has set."""
        options = self._options
        parts = self._timeouts() | self._tls()
        if options & OVERRIDE_HOST:
            parts["override_host"] = self._host(0, least=1)
        if options & KEEP_ALIVE:
            parts |= self._keep_alive()
        if options & DO_NOT_POOL:
            parts["keep_alive"] = 0.0
        if options & POOLING_LIMITS:
            parts["max_connections"] = min(self._u32(92), MAX_CONNECTIONS)
            parts["max_use"] = min(self._u32(96), MAX_USE)
            parts["max_lifetime"] = min(self._u32(100) / 1000, MAX_LIFETIME)
        if options & PREFER_IPV4:
            parts["prefer_ipv4"] = True
        if options & GRPC:
            parts["grpc"] = True
        if options & HEALTH_CHECK:
            parts["health_check"] = self._health_check(self._u32(104))
        return parts

    def _timeouts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for bit, offset, name, most in (
            (CONNECT_TIMEOUT, 8, "connect_timeout", MAX_CONNECT),
            (FIRST_BYTE_TIMEOUT, 12, "first_byte_timeout", MAX_SECONDS),
            (BETWEEN_BYTES_TIMEOUT, 16, "between_bytes_timeout", MAX_SECONDS),
        ):
            if self._options & bit:
                parts[name] = max(LEAST_TIMEOUT, min(self._u32(offset) / 1000, most))
        return parts

    def _tls(self) -> dict[str, Any]:
        options = self._options
        parts: dict[str, Any] = {}
        if options & MIN_TLS:
            parts["min_tls"] = self._version(20)
        if options & MAX_TLS:
            parts["max_tls"] = self._version(24)
        if options & MIN_TLS and options & MAX_TLS and self._u32(20) > self._u32(24):
            raise InvalidArgument("the oldest TLS is newer than the newest")
        if options & CERT_HOST:
            parts["cert_host"] = self._host(28, least=1)
        if options & CA_CERTIFICATE:
            parts["ca_certificate"] = self._text(36, 1, MAX_PEM)
        if options & CIPHERS:
            parts["ciphers"] = self._text(44, 1, MAX_CIPHERS)
        if options & SNI_HOST:
            name = self._host(52, least=0)
            parts |= {"sni_host": name} if name else {"use_sni": False}
        if options & CLIENT_CERTIFICATE:
            parts["client_certificate"] = self._client_certificate()
        return parts

    def _keep_alive(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        kept, enabled = self._u32(72) / 1000, self._u32(76)
        if kept:
            parts["keep_alive"] = min(kept, MAX_SECONDS)
        if enabled:
            parts["tcp_keep_alive_interval"] = min(float(self._u32(80)), MAX_LIFETIME)
            parts["tcp_keep_alive_probes"] = min(self._u32(84), 127)  # Linux: MAX_TCP_KEEPCNT
            parts["tcp_keep_alive"] = min(float(self._u32(88)) or TCP_KEEP_ALIVE, MAX_LIFETIME)
        return parts

    def _client_certificate(self) -> ClientCertificate:
        certificate = self._text(60, 1, MAX_PEM)
        key = self._box.items[self._u32(68)]
        if type(key) is not Secret:
            raise BadHandle("the key of a client certificate is not a secret")
        self.carried += len(key.reveal())
        return ClientCertificate(certificate, key)

    def _health_check(self, at: int) -> HealthCheck:
        """`healthcheck_config`: it has no mask, so a zero is what nobody has set."""
        mem, default = self._mem, HealthCheck()
        check = _Struct(self._box, at, 0)
        host = check._host(16, least=0)
        method = check._text(24, 0, 64) or default.method
        path = check._text(32, 0, 8192) or "/"
        status, window, threshold, initial = (check._u32(offset) for offset in (40, 44, 48, 52))
        self.carried += check.carried
        if not is_token(method.encode()):
            raise InvalidArgument("the method of a health check is not a token")
        if path[0] != "/" or not path.isascii() or not path.isprintable() or " " in path:
            raise InvalidArgument("the path of a health check is not a path")
        status = status or default.expected_status
        window = window or default.window
        if not 100 <= status <= 599 or window > 64 or max(threshold, initial) > window:
            raise InvalidArgument("a health check with numbers that cannot be")
        return HealthCheck(
            path=path,
            method=method,
            host=host,
            expected_status=status,
            interval=_between(mem.u64(at) / 1000, 0.05, MAX_SECONDS, default.interval),
            timeout=_between(mem.u64(at + 8) / 1000, 0.01, 60.0, default.timeout),
            window=window,
            threshold=threshold or min(default.threshold, window),
            initial=initial,
        )

    def _version(self, offset: int) -> TlsVersion:
        number = self._u32(offset)
        if number not in TLS_VERSIONS:
            raise InvalidArgument(f"{number} is not a TLS version")
        return TLS_VERSIONS[Tls(number)]

    def _host(self, offset: int, *, least: int) -> str:
        """A host, perhaps with a port, as it goes into a Host field or a TLS handshake."""
        text = self._text(offset, least, MAX_NAME)
        if text and not (text.isascii() and text.isprintable() and " " not in text):
            raise InvalidArgument("a host holds white space, a control character or no ASCII")
        return text

    def _text(self, offset: int, least: int, most: int) -> str:
        """UTF-8 text at the pointer and length that stand at `offset`."""
        at, length = self._u32(offset), self._u32(offset + 4)
        if not least <= length <= most:
            raise InvalidArgument(f"{length} bytes where {least} to {most} are allowed")
        if not length:
            return ""
        self.carried += length
        try:
            return self._mem.read(at, length).decode()
        except UnicodeDecodeError:
            raise InvalidArgument("expected UTF-8") from None

    def _u32(self, offset: int) -> int:
        return self._mem.u32(self._at + offset)


def _between(value: float, least: float, most: float, default: float) -> float:
    return max(least, min(value, most)) if value else default
