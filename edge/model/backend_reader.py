"""Reads backends from a document tree: where they are, how TLS is spoken, how health is known.

Certificates and keys come from the document or, where the caller allows files, from there; nothing
here opens one, and no message quotes a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.model import names
from edge.model.backend import Backend, ClientCertificate, HealthCheck, Origin, TlsVersion
from edge.model.reader import Reader, parsed
from edge.model.secret import Secret
from edge.model.yaml_lines import Entries, Node, join
from edge.settings import Kind

_URL = re.compile(
    r"(https?)://(\[[^\]/?#@]*\]|[^:/?#@\[\]]+)(?::([0-9]{1,5}))?(/[^?#]*)?", re.ASCII
)
_TLS_ORDER = tuple(TlsVersion)
# What only TLS can use, and so is a mistake beside an `http:` URL.
_TLS_ONLY = (
    "cert_host", "sni_host", "ca_certificate", "client_certificate", "min_tls", "max_tls",
    "ciphers",
)  # fmt: skip

ReadMaterial = Callable[[Node], bytes]  # text, or what a file holds; raises ValueError


def read_origin(text: str) -> Origin:
    """`scheme://host[:port][/prefix]`; no user, no query, no fragment."""
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not the URL of a backend: write http:// or https://, a host, perhaps "
            ":port and a path; no user name, query or fragment"
        )
    scheme, host, port, path = match.groups()
    name = names.read_one_host(host).removeprefix("[").removesuffix("]")
    tls = scheme == "https"
    number = int(port) if port else (443 if tls else 80)
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is not a port")
    prefix = names.read_path(path).rstrip("/") if path else ""
    return Origin(tls, name, number, prefix)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose word the backends are: the operator's, or that of whoever deploys through an API."""

    read_material: ReadMaterial
    dynamic: bool


class BackendReader(Reader):
    """Reads the backends of one service; `problems` has what is wrong with them."""

    def __init__(self, base: Path, trust: Trust) -> None:
        special = {
            Kind.URL: lambda node, path: parsed(node, read_origin),
            Kind.PEM: self._pem,
            Kind.CERTIFICATE: self._certificate,
        }
        super().__init__(base, special)
        self._trust = trust

    def backends(self, node: Node, path: str) -> dict[str, Backend]:
        """Every backend that could be read."""
        found: dict[str, Backend] = {}
        for key, child in self.entries(node, path).entries.items():
            where = join(path, key)
            try:
                name = names.read_name(key)
            except ValueError as error:
                self.problem(where, str(error), child.line)
                continue
            values = self.changes(Backend, child, where)
            if "url" in values:
                values["dynamic"] = self._trust.dynamic
                backend = Backend(name, **values)  # type: ignore[arg-type]
                self._check(backend, self.entries(child, where), where)
                found[name] = backend
        return found

    def _check(self, backend: Backend, node: Entries, path: str) -> None:
        """What no single key can be wrong about."""

        def wrong(key: str, message: str) -> None:
            self.problem(join(path, key), message, node.lines.get(key, node.line))

        if not backend.url.tls:
            for key in _TLS_ONLY:
                if node.entries.get(key) is not None and getattr(backend, key) is not None:
                    wrong(key, "has no meaning without TLS; the url begins with http:")
            if backend.http2:
                wrong("http2", "is agreed on with TLS; the url begins with http:")
        if backend.sni_host is not None and not backend.use_sni:
            wrong("sni_host", "has no meaning while use_sni is false")
        low, high = backend.min_tls, backend.max_tls
        if low is not None and high is not None and _TLS_ORDER.index(low) > _TLS_ORDER.index(high):
            wrong("min_tls", f"{low.value} is above max_tls, {high.value}")
        check = backend.health_check
        if check is not None:
            self._check_health(check, wrong)

    def _check_health(self, check: HealthCheck, wrong: Callable[[str, str], None]) -> None:
        for key in ("threshold", "initial"):
            if getattr(check, key) > check.window:
                wrong("health_check", f"{key} is above window, {check.window}")
        if not check.path.startswith("/"):
            wrong("health_check", f"path {check.path!r} does not begin with /")

    def _pem(self, node: Node, path: str) -> str:
        return _certificates(self._trust.read_material(node))

    def _certificate(self, node: Node, path: str) -> ClientCertificate:
        entries = self.entries(node, path)
        self.check_keys(entries, ("certificate", "key"), path)
        for key in ("certificate", "key"):
            if key not in entries.entries:
                raise ValueError(f"has no {key}; both are needed")
        chain = _certificates(self._trust.read_material(entries.entries["certificate"]))
        key_pem = self._trust.read_material(entries.entries["key"])
        _pem_text(key_pem)
        return ClientCertificate(chain, Secret(key_pem))


def _certificates(material: bytes) -> str:
    """The same for what is shown to whoever may read it, so no file with the key beside it."""
    text = _pem_text(material)
    if "PRIVATE KEY-----" in text:
        raise ValueError("has a private key in it: give the certificates alone")
    return text


def _pem_text(material: bytes) -> str:
    """Raises ValueError, which does not quote it, unless it looks like PEM."""
    if b"-----BEGIN " not in material or not material.isascii():
        raise ValueError("is not PEM: there is no -----BEGIN line")
    return material.decode("ascii")
