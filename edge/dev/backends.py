"""The backends in a `fastly.toml`: Viceroy's keys, and ours for what it cannot be told."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from edge.dev.tables import Table, Tables
from edge.local.faults import Fault
from edge.model.backend import Backend, ClientCertificate, MockHealth
from edge.model.backend_reader import read_origin
from edge.model.names import read_name
from edge.model.secret import Secret
from edge.upstream.fetch import Cause

_KEYS: Final = (
    "url", "override_host", "cert_host", "use_sni", "client_certificate", "ca_certificate", "grpc",
    "first_byte_timeout_ms", "between_bytes_timeout_ms", "health",
    # Ours:
    "connect_timeout_ms", "http2", "inject",
)  # fmt: skip
_TIMEOUTS: Final = ("connect_timeout", "first_byte_timeout", "between_bytes_timeout")
_DAY_MS: Final = 86_400_000


def backend(tables: Tables, name: str, value: object, path: str) -> Backend | None:
    """One backend; None when what it cannot do without is bad."""
    table = tables.table(value, path)
    tables.check_keys(table, _KEYS, path)
    tables.attempt(path, lambda: read_name(name))
    given: dict[str, Any] = {}
    url = tables.required(table, "url", path)
    if url is not None:
        expanded = tables.expand(url, f"{path}.url")
        given["url"] = tables.attempt(f"{path}.url", lambda: read_origin(expanded))
    for key in ("override_host", "cert_host"):
        if key in table:
            given[key] = tables.required(table, key, path)
    for key in ("use_sni", "grpc", "http2"):
        if key in table:
            given[key] = tables.switch(table, key, path, default=False)
    for key in _TIMEOUTS:
        milliseconds = tables.number(table, f"{key}_ms", path, least=1, most=_DAY_MS)
        if milliseconds is not None:
            given[key] = milliseconds / 1000
    if "health" in table:
        given["health"] = _choice(tables, table, "health", path, MockHealth)
    if "ca_certificate" in table:
        given["ca_certificate"] = _pem(tables, table["ca_certificate"], f"{path}.ca_certificate")
    if "client_certificate" in table:
        given["client_certificate"] = _client_certificate(tables, table, path)
    if given.get("url") is None:
        return None
    defaults = {item.name for item in fields(Backend)}
    assert given.keys() <= defaults
    return Backend(name, **{key: found for key, found in given.items() if found is not None})


def fault(tables: Tables, value: object, path: str) -> Fault | None:
    """What `inject` of one backend says."""
    table = tables.table(value, path)
    tables.check_keys(table, ("latency_ms", "jitter_ms", "error_rate", "cause"), path)

    def seconds(key: str) -> float:
        return (tables.number(table, key, path, least=0, most=_DAY_MS) or 0) / 1000

    rate = tables.number(table, "error_rate", path, least=0, most=1)
    cause = Cause.CONNECTION_REFUSED
    if "cause" in table:
        cause = _choice(tables, table, "cause", path, Cause) or cause
        rate = 1.0 if rate is None else rate
    return Fault(seconds("latency_ms"), seconds("jitter_ms"), rate or 0.0, cause)


def _choice(tables: Tables, table: Table, key: str, path: str, options: type[Any]) -> Any:
    text = tables.text(table, key, path)
    known = [option.value for option in options]
    if text is not None and text not in known:
        tables.problem(f"{path}.{key}", f"{text!r} is not one of {', '.join(known)}")
        return None
    return None if text is None else options(text)


def _pem(tables: Tables, value: object, path: str) -> str | None:
    """PEM text, `{file = ...}`, `{value = ...}`, or a list of those."""
    if isinstance(value, list):
        parts = [_pem(tables, item, f"{path}[{at}]") for at, item in enumerate(value)]
        return "\n".join(part for part in parts if part) or None
    if isinstance(value, str):
        text: str | None = value
    else:
        table = tables.table(value, path)
        tables.check_keys(table, ("file", "value"), path)
        text = _given(tables, table, "value", "file", path)
    return _checked(tables, text, path)


def _client_certificate(tables: Tables, table: Table, path: str) -> ClientCertificate | None:
    path = f"{path}.client_certificate"
    inner = tables.table(table["client_certificate"], path)
    tables.check_keys(inner, ("certificate", "certificate_file", "key", "key_file"), path)
    chain, key = (
        _checked(tables, _given(tables, inner, name, f"{name}_file", path), f"{path}.{name}")
        for name in ("certificate", "key")
    )
    return ClientCertificate(chain, Secret(key.encode())) if chain and key else None


def _given(tables: Tables, table: Table, inline: str, file: str, path: str) -> str | None:
    """Text that stands in the document or in a file it names."""
    if (inline in table) is (file in table):
        tables.problem(path, f"needs exactly one of {inline} and {file}")
        return None
    if inline in table:
        return tables.text(table, inline, path)
    name = tables.required(table, file, path)
    data = tables.file(name, f"{path}.{file}") if name else None
    return data.decode("latin-1") if data is not None else None


def _checked(tables: Tables, text: str | None, path: str) -> str | None:
    if text is not None and ("-----BEGIN " not in text or not text.isascii()):
        tables.problem(path, "is not PEM: there is no -----BEGIN line")
        return None
    return text
