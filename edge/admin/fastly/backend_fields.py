"""Backends between Fastly's words and ours, both ways: milliseconds, port numbers, TLS fields.

A part's data has the keys of a backend in the configuration, all values text as there, and under
`fastly` what only Fastly's API knows: fields without effect here, kept so that clients read what
they wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from edge.admin.fastly.part_fields import (
    Data,
    kept_of,
    seconds_of,
    take_counts,
    take_texts,
    take_times,
)
from edge.admin.fastly.shape import Form
from edge.errors import ApiRefused, Refusal
from edge.model.backend import Backend, Origin
from edge.model.backend_reader import read_origin

# Fastly's field -> our key, and how many of its units are a second.
_TIMES: Final = {
    "connect_timeout": ("connect_timeout", 1000),
    "first_byte_timeout": ("first_byte_timeout", 1000),
    "between_bytes_timeout": ("between_bytes_timeout", 1000),
    "max_lifetime": ("max_lifetime", 1000),
    "keepalive_time": ("keep_alive", 1),
}
_COUNTS: Final = {"max_conn": "max_connections", "max_use": "max_use"}
_TEXTS: Final = {
    "override_host": "override_host",
    "ssl_ca_cert": "ca_certificate",
    "ssl_ciphers": "ciphers",
    "min_tls_version": "min_tls",
    "max_tls_version": "max_tls",
}
# The CLI sends these for every backend that has a name, with TLS or without: keys only with it.
_TLS_NAMES: Final = {"ssl_cert_hostname": "cert_host", "ssl_sni_hostname": "sni_host"}
# Whoever sends one of these means TLS, also where the CLI keeps `--use-ssl` to itself.
_TLS_MATERIAL: Final = (
    "ssl_ca_cert", "ssl_client_cert", "ssl_client_key", "ssl_ciphers", "min_tls_version",
    "max_tls_version",
)  # fmt: skip
# Kept and shown, and without effect.
_KEPT_TEXTS: Final = ("comment", "healthcheck", "shield", "share_key")
_KEPT_COUNTS: Final = (
    "weight", "error_threshold", "tcp_keepalive_interval", "tcp_keepalive_probes",
    "tcp_keepalive_time",
)  # fmt: skip
_KEPT_SWITCHES: Final = ("auto_loadbalance", "tcp_keepalive_enable")
_TCP_KEEPALIVE_SECONDS: Final = 300  # Fastly's, where only `tcp_keepalive_enable` is said


def changed(data: Data, form: Form) -> dict[str, object]:
    """The data of a backend after a request to make it (`data` is empty) or to change it.

    ApiRefused INVALID for what cannot be said in our keys; the rest is for the reader of backends.
    """
    if form.text("request_condition"):
        raise ApiRefused(
            Refusal.INVALID,
            "request_condition belongs to VCL: the program chooses its backend; leave it out",
        )
    keys = {key: value for key, value in data.items() if key != "fastly"}
    kept = kept_of(data)
    names = {theirs: _text(keys.get(ours)) or _text(kept.pop(theirs, ""))
             for theirs, ours in _TLS_NAMES.items()}  # fmt: skip
    origin = _origin(form, keys)
    keys["url"] = str(origin)
    _change_keys(form, keys)
    _change_kept(form, keys, kept)
    _change_names(form, names)
    for theirs, ours in _TLS_NAMES.items():
        keys.pop(ours, None)
        if names[theirs]:
            (keys if origin.tls else kept)[ours if origin.tls else theirs] = names[theirs]
    _change_client_certificate(form, keys)
    _change_tcp_keepalive(form, keys, kept)
    if kept:
        keys["fastly"] = kept
    return keys


def shown(name: str, data: Data) -> dict[str, object]:
    """Every field of a backend but its service, version and times."""
    kept = kept_of(data)
    origin = read_origin(_text(data.get("url")))
    defaults = Backend(name, origin)
    certificate = data.get("client_certificate")
    pem = certificate.get("certificate") if isinstance(certificate, Mapping) else None
    named = _is_name(origin.host)
    fields: dict[str, object] = {
        "name": name,
        "address": origin.host,
        "hostname": origin.host if named else None,
        "ipv4": origin.host if not named and ":" not in origin.host else None,
        "ipv6": origin.host if ":" in origin.host else None,
        "port": origin.port,
        "use_ssl": origin.tls,
        "ssl_check_cert": _is_on(data.get("verify", True)),
        "ssl_client_cert": pem,
        "ssl_client_key": None,  # what was given is used, and never shown
        "ssl_hostname": None,
        "prefer_ipv6": not _is_on(data.get("prefer_ipv4", False)),
        "request_condition": "",
        "client_cert": None,
    }
    for theirs, (ours, units) in _TIMES.items():
        time = seconds_of(data[ours]) if ours in data else getattr(defaults, ours)
        fields[theirs] = round(time * units)
    for theirs, ours in _COUNTS.items():
        fields[theirs] = int(str(data.get(ours, getattr(defaults, ours))))
    for theirs, ours in _TEXTS.items():
        fields[theirs] = data.get(ours)
    for theirs, ours in _TLS_NAMES.items():
        fields[theirs] = data.get(ours) or kept.get(theirs)
    for theirs in _KEPT_TEXTS:
        fields[theirs] = kept.get(theirs, "")
    for theirs in _KEPT_COUNTS:
        fields[theirs] = kept.get(theirs)
    for theirs in _KEPT_SWITCHES:
        fields[theirs] = kept.get(theirs, False if theirs == "auto_loadbalance" else None)
    return fields


def _origin(form: Form, keys: Data) -> Origin:
    """Where it is now; 443 is TLS and 80 is not, unless `use_ssl` says, as Fastly has it."""
    before = read_origin(_text(keys["url"])) if "url" in keys else None
    port = form.number("port")
    tls = form.switch("use_ssl")
    if tls is None and port in (80, 443):
        tls = port == 443
    if tls is None and before is None:
        tls = any(form.text(name) for name in _TLS_MATERIAL)
    if tls is None:
        assert before is not None
        tls = before.tls
    if port is None:
        port = before.port if before else (443 if tls else 80)
    address = form.text("address") or (before.host if before else "")
    if not address:
        raise ApiRefused(Refusal.INVALID, "address is missing: a host name or an IP address")
    host = address.removeprefix("[").removesuffix("]")
    try:
        checked = read_origin(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    except ValueError as error:
        raise ApiRefused(Refusal.INVALID, f"address and port: {error}") from None
    return Origin(tls, checked.host, port, before.prefix if before else "")


def _change_keys(form: Form, keys: dict[str, object]) -> None:
    take_times(form, keys, _TIMES)
    take_counts(form, keys, _COUNTS)
    take_texts(form, keys, _TEXTS)
    verify = form.switch("ssl_check_cert")
    if verify is not None:
        keys["verify"] = _switch(verify)
    prefer_ipv6 = form.switch("prefer_ipv6")
    if prefer_ipv6 is not None:
        keys["prefer_ipv4"] = _switch(not prefer_ipv6)


def _change_kept(form: Form, keys: dict[str, object], kept: dict[str, object]) -> None:
    for name in _KEPT_TEXTS:
        text = form.given(name)
        if text is not None:
            kept[name] = text
    if "healthcheck" in form:  # one that our own API gave it would be preferred
        keys.pop("health_check", None)
    for name in _KEPT_COUNTS:
        number = form.number(name)
        if number is not None:
            kept[name] = number
    for name in _KEPT_SWITCHES:
        switch = form.switch(name)
        if switch is not None:
            kept[name] = switch


def _change_names(form: Form, names: dict[str, str]) -> None:
    both = form.text("ssl_hostname")  # the older field: for certificate and SNI together
    for theirs in _TLS_NAMES:
        text = form.given(theirs)
        if text is not None:
            names[theirs] = text
        elif both:
            names[theirs] = both


def _change_client_certificate(form: Form, keys: dict[str, object]) -> None:
    given = {
        ours: form.text(theirs)
        for ours, theirs in (("certificate", "ssl_client_cert"), ("key", "ssl_client_key"))
        if theirs in form
    }
    if not given:
        return
    before = keys.pop("client_certificate", None)
    both = {**(before if isinstance(before, Mapping) else {}), **given}
    both = {key: value for key, value in both.items() if value}
    if both and len(both) != 2:
        raise ApiRefused(Refusal.INVALID, "ssl_client_cert and ssl_client_key are needed together")
    if both:
        keys["client_certificate"] = both


def _change_tcp_keepalive(form: Form, keys: dict[str, object], kept: Data) -> None:
    if "tcp_keepalive_enable" not in form and "tcp_keepalive_time" not in form:
        return
    seconds = kept.get("tcp_keepalive_time", _TCP_KEEPALIVE_SECONDS)
    if kept.get("tcp_keepalive_enable") is False:
        seconds = 0
    keys["tcp_keep_alive"] = f"{seconds}s"


def _switch(value: bool) -> str:
    return "true" if value else "false"


def _is_on(value: object) -> bool:
    return value is True or value == "true"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return True
    return False
