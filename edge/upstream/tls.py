"""TLS towards backends: contexts made once per configuration, and whom a certificate is for.

The handshake itself is the event loop's.  The name is checked by us (`check_name`), because the
name to check and the name to send may differ, or none may be sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from typing import cast

from edge.http.special_addresses import parse_literal
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
MAX_PEM = 256 * 1024  # a guest's; the system's own bundle is about 220 KB
MAX_CIPHERS = 4096
MAX_WAITING = 64
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
    """What SNI says; empty for none.  Addresses are no names (RFC 6066 section 3)."""
    if not backend.use_sni:
        return ""
    name = backend.sni_host or backend.cert_host or backend.url.host
    return "" if parse_literal(name) is not None else name.removesuffix(".")


class TlsContexts:
    """The contexts of one worker, made on threads."""

    def __init__(self) -> None:
        self._lanes = Lanes("tls", count=2, reserved=1, most_waiting=MAX_WAITING)
        self._contexts: tuple[OrderedDict[bytes, ssl.SSLContext], ...] = (
            OrderedDict(),
            OrderedDict(),
        )
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
            try:
                job = self._lanes.submit(partial(build, backend), guarded=backend.dynamic)
            except TooMany as full:
                text = f"backend {backend.name}: no TLS context can be made now: {full}"
                raise UpstreamFailed(Cause.CONNECTION_LIMIT_REACHED, text) from None
            building = self._building[key] = job.result
            building.add_done_callback(partial(self._built, key))
        await asyncio.wait((building,))  # cancels nothing when we are cancelled
        if building.cancelled():
            text = f"backend {backend.name}: no TLS context can be made, the worker is stopping"
            raise UpstreamFailed(Cause.INTERNAL_ERROR, text)
        error = building.exception()
        if error is not None:
            text = f"backend {backend.name}: TLS settings: {_words(error)}"
            raise UpstreamFailed(Cause.TLS_CONFIGURATION_ERROR, text)
        return building.result()

    def _built(self, key: bytes, building: asyncio.Future[ssl.SSLContext]) -> None:
        del self._building[key]
        if not building.cancelled():
            building.exception()  # taken here as well: everyone who waited may have gone

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
    if backend.verify:
        _load_roots(context, backend.ca_certificate)
    if backend.client_certificate is not None:
        _load_identity(context, backend.client_certificate)
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
        if newest is not None:
            context.maximum_version = _VERSIONS[newest]
    if (oldest in _OLD or newest in _OLD) and backend.ciphers is None:
        # OpenSSL 3 has no cipher for these versions above level 0: SHA-1 is in their handshake.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")


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


def _load_identity(context: ssl.SSLContext, identity: ClientCertificate) -> None:
    """OpenSSL reads certificate and key from a path alone: one that leads to memory."""
    pem = identity.certificate.encode() + b"\n" + identity.key.reveal()
    if len(pem) > MAX_PEM:
        raise ValueError(f"certificate and key are {len(pem)} bytes, {MAX_PEM} allowed")
    descriptor = os.memfd_create("identity")
    try:
        view = memoryview(pem)
        while view:
            view = view[os.write(descriptor, view) :]
        # A password, lest OpenSSL ask at the terminal for that of an encrypted key.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    finally:
        os.close(descriptor)


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
    if not any(_is_for(kind, value, wanted) for kind, value in names):
        shown = ", ".join(value for _, value in names[:8])[:512] or "no name at all"
        text = f"backend {backend.name}: its certificate is for {shown}, not for {wanted}"
        raise UpstreamFailed(Cause.TLS_CERTIFICATE_ERROR, text)


def _is_for(kind: str, presented: str, wanted: str) -> bool:
    address = parse_literal(wanted)
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


def _words(error: BaseException) -> str:
    """OpenSSL's reason, without its source lines and without any of our bytes."""
    if isinstance(error, ssl.SSLError):
        # Python makes some itself, without a reason ("No cipher can be selected.").
        return getattr(error, "reason", None) or str(error.args[-1])
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, ValueError) else type(error).__name__
