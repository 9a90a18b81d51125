"""TLS towards backends: contexts made once per configuration, and whom a certificate is for.

The handshake itself is the event loop's.  The name is checked by us (`check_name`), because the
name to check and the name to send may differ, or none may be sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from time import thread_time
from typing import cast
from weakref import WeakSet

from edge.http.special_addresses import IPAddress, parse_literal
from edge.model.backend import Backend, ClientCertificate, TlsVersion
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.lanes import Lanes, TooMany

_VERSIONS = {
    TlsVersion.TLS_1_0: ssl.TLSVersion.TLSv1,
    TlsVersion.TLS_1_1: ssl.TLSVersion.TLSv1_1,
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}
_OLD = frozenset((TlsVersion.TLS_1_0, TlsVersion.TLS_1_1))

# A context with the system's roots takes 20 ms to make and 0.8 MB.  Guests have a share of their
# own, so that theirs never push out the operator's.
MAX_CONTEXTS = 256
MAX_GUEST_CONTEXTS = 64
# With those that connections still hold: a guest can make another one for each of its connections.
MAX_GUEST_ALIVE = 256
MAX_PEM = 256 * 1024  # a guest's; the system's own bundle is about 220 KB
MAX_CIPHERS = 4096
# Handshakes are made on the loop.  A guest's key may be of RSA with 4096 bits (12 ms) and not with
# 16,384 (half a second): so many bytes of PEM, and so many seconds for one signature.
MAX_GUEST_KEY = 4096
MAX_SIGNING = 0.05
MAX_WAITING = 64
_PLAIN = {"KEY_VALUES_MISMATCH": "the client certificate's key belongs to another certificate"}
_SOURCE_LINE = re.compile(r" \(_ssl\.c:\d+\)$")
# Where distributions keep roots, for an OpenSSL that was built for another one.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def alpn_of(backend: Backend) -> tuple[str, ...]:
    """The protocols that we offer, best first (RFC 7301)."""
    if backend.grpc:
        return ("h2",)
    return ("h2", "http/1.1") if backend.http2 else ("http/1.1",)


def certificate_host(backend: Backend) -> str:
    """The name or address that the backend's certificate must be for."""
    return backend.cert_host or backend.url.host


def server_name(backend: Backend) -> str:
    """What SNI says; empty for none.  Addresses are no names (RFC 6066 section 3).

    Raises UpstreamFailed for what no name can be: the library would fail on it in a callback.
    """
    if not backend.use_sni:
        return ""
    name = backend.sni_host or backend.cert_host or backend.url.host
    if parse_literal(name) is not None:
        return ""
    name = name.removesuffix(".")
    if not name.isascii() or not all(1 <= len(label) <= 63 for label in name.split(".")):
        text = f"backend {backend.name}: {name[:64]!r} is no name that TLS could ask for"
        raise UpstreamFailed(Cause.TLS_CONFIGURATION_ERROR, text)
    return name


class TlsContexts:
    """The contexts of one worker, made on threads."""

    def __init__(self) -> None:
        self._lanes = Lanes("tls", count=2, reserved=1, most_waiting=MAX_WAITING)
        self._contexts: tuple[OrderedDict[bytes, ssl.SSLContext], ...] = (
            OrderedDict(),
            OrderedDict(),
        )
        self._alive: WeakSet[ssl.SSLContext] = WeakSet()  # of guests
        self._building: dict[bytes, asyncio.Future[ssl.SSLContext]] = {}
        # Keys are digests, lest the cache be another place that holds private keys.  The secret
        # makes them useless as fingerprints.
        self._salt = os.urandom(32)

    def __len__(self) -> int:
        return sum(len(contexts) for contexts in self._contexts)

    def close(self) -> None:
        self._lanes.close()
        for contexts in self._contexts:
            contexts.clear()

    async def context(self, backend: Backend) -> ssl.SSLContext:
        """The context for a backend's connections.  Raises UpstreamFailed for what OpenSSL refuses.

        Two backends with the same settings share one; the names they want are not part of it.
        """
        key = self._key(backend)
        contexts = self._contexts[backend.dynamic]
        context = contexts.get(key)
        if context is None:
            context = await self._build(key, backend)
        contexts[key] = context
        contexts.move_to_end(key)
        if len(contexts) > (MAX_GUEST_CONTEXTS if backend.dynamic else MAX_CONTEXTS):
            contexts.popitem(last=False)
        return context

    async def _build(self, key: bytes, backend: Backend) -> ssl.SSLContext:
        building = self._building.get(key)
        if building is None:
            if backend.dynamic and len(self._alive) + len(self._building) >= MAX_GUEST_ALIVE:
                text = (
                    f"backend {backend.name}: {MAX_GUEST_ALIVE} TLS contexts of guests are in use"
                )
                raise UpstreamFailed(Cause.CONNECTION_LIMIT_REACHED, text)
            try:
                job = self._lanes.submit(partial(build, backend), guarded=backend.dynamic)
            except TooMany as full:
                text = f"backend {backend.name}: no TLS context can be made now: {full}"
                raise UpstreamFailed(Cause.CONNECTION_LIMIT_REACHED, text) from None
            building = self._building[key] = job.result
            building.add_done_callback(partial(self._built, key, dynamic=backend.dynamic))
        await asyncio.wait((building,))  # cancels nothing when we are cancelled
        if building.cancelled():
            text = f"backend {backend.name}: no TLS context can be made, the worker is stopping"
            raise UpstreamFailed(Cause.INTERNAL_ERROR, text)
        error = building.exception()
        if error is not None:
            text = f"backend {backend.name}: TLS settings: {words(error)}"
            raise UpstreamFailed(Cause.TLS_CONFIGURATION_ERROR, text)
        return building.result()

    def _built(
        self, key: bytes, building: asyncio.Future[ssl.SSLContext], *, dynamic: bool
    ) -> None:
        del self._building[key]
        # The exception is taken here as well: everyone who waited may have gone.
        if not building.cancelled() and building.exception() is None and dynamic:
            self._alive.add(building.result())

    def _key(self, backend: Backend) -> bytes:
        digest = hashlib.blake2b(key=self._salt, digest_size=32)
        for part in _parts(backend):
            digest.update(len(part).to_bytes(8) + part)
        return digest.digest()


def _parts(backend: Backend) -> Iterator[bytes]:
    """Everything that decides what a context is."""
    yield bytes((backend.dynamic, backend.verify, backend.ca_certificate is not None))
    yield (backend.ca_certificate or "").encode()
    yield ",".join(alpn_of(backend)).encode()
    for version in (backend.min_tls, backend.max_tls):
        yield version.value.encode() if version else b""
    yield (backend.ciphers or "").encode()
    if backend.client_certificate is not None:
        yield backend.client_certificate.certificate.encode()
        yield backend.client_certificate.key.reveal()


def build(backend: Backend) -> ssl.SSLContext:
    """A new context.  Blocks for milliseconds; raises ValueError, OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # `check_name` does that
    context.verify_mode = ssl.CERT_REQUIRED if backend.verify else ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn_of(backend)))
    _set_versions(context, backend)
    if backend.ciphers is not None:
        if len(backend.ciphers) > MAX_CIPHERS:
            raise ValueError(f"the cipher list has more than {MAX_CIPHERS} characters")
        context.set_ciphers(backend.ciphers)
    if backend.ciphers is None or backend.dynamic:
        _leave_out_dhe(context)
    if backend.verify:
        _load_roots(context, backend.ca_certificate)
    if backend.client_certificate is not None:
        _load_identity(context, backend.client_certificate, guarded=backend.dynamic)
    if backend.client_certificate is None or backend.dynamic:
        # A server that may ask for handshake after handshake has the loop work for it.  Some do ask
        # once, for a client's certificate.
        context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _set_versions(context: ssl.SSLContext, backend: Backend) -> None:
    oldest, newest = backend.min_tls, backend.max_tls
    if oldest is not None and newest is not None and oldest.value > newest.value:
        raise ValueError(f"TLS from {oldest.value} to {newest.value} is no version at all")
    with warnings.catch_warnings():
        # Python calls TLS 1.0 deprecated, and so does whoever asks for it by name.
        warnings.simplefilter("ignore", DeprecationWarning)
        if oldest is not None:
            context.minimum_version = _VERSIONS[oldest]
        elif newest in _OLD:
            context.minimum_version = _VERSIONS[TlsVersion.TLS_1_0]
        else:  # some systems leave it open
            context.minimum_version = _VERSIONS[TlsVersion.TLS_1_2]
        if newest is not None:
            context.maximum_version = _VERSIONS[newest]
    if (oldest in _OLD or newest in _OLD) and backend.ciphers is None:
        # OpenSSL 3 has no cipher for these versions above level 0: SHA-1 is in their handshake.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if newest in (None, TlsVersion.TLS_1_3):
        # TLS 1.3 has groups of integers as well, and the server chooses: 116 ms for one of 8192
        # bits.  Every server of TLS 1.3 must know P-256 (RFC 8446 section 9.1).
        context.set_ecdh_curve("prime256v1")


def _leave_out_dhe(context: ssl.SSLContext) -> None:
    """No Diffie-Hellman over integers: the server chooses how large they are.

    OpenSSL takes up to 10,000 bits, which hold the loop up for 1.6 s in one handshake.
    """
    left = [each["name"] for each in context.get_ciphers() if each.get("kea") != "kx-dhe"]
    if not left:
        raise ValueError("no cipher is left: finite-field Diffie-Hellman (DHE) is never used")
    context.set_ciphers(":".join(left))


def _load_roots(context: ssl.SSLContext, pem: str | None) -> None:
    if pem is not None:
        if len(pem) > MAX_PEM:
            raise ValueError(f"the CA certificates are {len(pem)} bytes, {MAX_PEM} allowed")
        context.load_verify_locations(cadata=pem)
        # What is named is trusted, even if it is an intermediate or the server's own.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        context.load_default_certs()
        return
    for bundle in _BUNDLES:
        if os.path.exists(bundle):
            context.load_verify_locations(cafile=bundle)
            return
    raise ValueError("this machine has no root certificates (package ca-certificates)")


def _load_identity(context: ssl.SSLContext, identity: ClientCertificate, *, guarded: bool) -> None:
    """OpenSSL reads certificate and key from a path alone: one that leads to memory.

    `guarded`: a guest's, whose key must be one that signs in little time.
    """
    key = identity.key.reveal()
    pem = identity.certificate.encode() + b"\n" + key
    if len(pem) > MAX_PEM:
        raise ValueError(f"certificate and key are {len(pem)} bytes, {MAX_PEM} allowed")
    if guarded and len(key) > MAX_GUEST_KEY:
        raise ValueError(f"the key is {len(key)} bytes, {MAX_GUEST_KEY} allowed")
    descriptor = os.memfd_create("identity")
    try:
        view = memoryview(pem)
        while view:
            view = view[os.write(descriptor, view) :]
        # A password, lest OpenSSL ask at the terminal for that of an encrypted key.
        path = f"/proc/self/fd/{descriptor}"
        context.load_cert_chain(path, password=b"")
        if guarded and signing_time(path) > MAX_SIGNING:
            raise ValueError("the key takes too long to sign with; RSA of 4096 bits is the most")
    finally:
        os.close(descriptor)


def signing_time(path: str) -> float:
    """Seconds of this thread for a handshake in which the key of a PEM file signs.

    It plays the server in it, whom a client makes sign.  Not its size: a key can be made slow.
    """
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    server.load_cert_chain(path, password=b"")
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client.wrap_bio(back, there).do_handshake()
    began = thread_time()
    with suppress(ssl.SSLError):  # it waits for the client's next message, or knows no such key
        server.wrap_bio(there, back, server_side=True).do_handshake()
    return thread_time() - began


def check_name(backend: Backend, peer: ssl.SSLObject | None) -> None:
    """Compare the certificate of a finished handshake with the name that the backend must have.

    RFC 9525: subject alternative names only, never the common name.  Raises UpstreamFailed.
    """
    if not backend.verify:
        return
    wanted = certificate_host(backend)
    certificate = peer.getpeercert() if peer is not None else None
    # typeshed knows the members of the dictionary only together.
    names = cast("tuple[tuple[str, str], ...]", (certificate or {}).get("subjectAltName", ()))
    address = parse_literal(wanted)
    if not any(_is_for(kind, value, wanted, address) for kind, value in names):
        shown = ", ".join(value for _, value in names[:8])[:512] or "no name at all"
        text = f"backend {backend.name}: its certificate is for {shown}, not for {wanted}"
        raise UpstreamFailed(Cause.TLS_CERTIFICATE_ERROR, text)


def _is_for(kind: str, presented: str, wanted: str, address: IPAddress | None) -> bool:
    """`address`: that which `wanted` spells, if it does."""
    if address is not None:
        if kind != "IP Address":
            return False
        try:
            return ip_address(presented.strip()) == address
        except ValueError:
            return False
    if kind != "DNS":
        return False
    presented, wanted = presented.lower(), wanted.lower().removesuffix(".")
    if not presented.startswith("*."):
        return presented == wanted
    # RFC 9525 section 6.3: the wildcard is one whole left-most label.  Not of a top-level domain.
    rest = presented[1:]
    label, dot, parent = wanted.partition(".")
    return bool(label) and dot + parent == rest and "." in parent


def words(error: BaseException) -> str:
    """OpenSSL's reason, without its source lines and without any of our bytes."""
    if isinstance(error, ssl.SSLError):
        # Python makes some itself, without a reason ("No cipher can be selected.").
        text = getattr(error, "reason", None) or str(error.args[-1])
        return _PLAIN.get(text) or _SOURCE_LINE.sub("", text)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, ValueError) else type(error).__name__
