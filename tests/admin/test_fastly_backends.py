"""Backends and health checks between Fastly's words and ours."""

from __future__ import annotations

import pytest

from edge.admin.fastly import backend_fields, health_check_fields
from edge.admin.fastly.checking import check_backend, check_health_check
from edge.admin.fastly.shape import Form
from edge.errors import ApiRefused

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"


def made(**fields: object) -> dict[str, object]:
    """The data of a new backend, which must be one that can be used."""
    data = backend_fields.changed({}, Form({"address": "a.example", **fields}))
    check_backend("x", data)
    return data


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://a.example"),
        ({"port": 80}, "http://a.example"),
        ({"port": "443"}, "https://a.example"),
        ({"use_ssl": "1"}, "https://a.example"),
        ({"use_ssl": True, "port": 8443}, "https://a.example:8443"),
        ({"use_ssl": "0", "port": 443}, "http://a.example:443"),
        ({"port": 8443, "ssl_ca_cert": PEM}, "https://a.example:8443"),
        ({"ssl_ciphers": "X"}, "https://a.example"),
        ({"address": "192.0.2.1", "port": 81}, "http://192.0.2.1:81"),
        ({"address": "2001:db8::1", "port": 81}, "http://[2001:db8::1]:81"),
        ({"address": "A.Example"}, "http://a.example"),
    ],
)
def test_address_port_and_tls_make_a_url(fields: dict[str, object], url: str) -> None:
    assert made(**fields)["url"] == url


def test_what_is_changed_leaves_the_rest_as_it_was() -> None:
    before = made(port=443, ssl_sni_hostname="sni.example", connect_timeout=50, weight=3)
    after = backend_fields.changed(before, Form({"address": "b.example", "weight": None}))
    assert after == {**before, "url": "https://b.example"}
    moved = backend_fields.changed(before, Form({"port": 8443}))
    assert moved["url"] == "https://a.example:8443"


def test_what_only_our_own_api_can_say_survives_a_change() -> None:
    before = {"url": "https://a.example/api", "http2": "true", "use_sni": "true"}
    after = backend_fields.changed(before, Form({"max_conn": "7"}))
    assert after == {**before, "max_connections": "7"}


def test_names_for_tls_wait_until_there_is_tls() -> None:
    names = {"ssl_cert_hostname": "c.example", "ssl_sni_hostname": "s.example"}
    plain = made(**names)
    assert plain == {"url": "http://a.example", "fastly": names}
    assert backend_fields.shown("x", plain)["ssl_cert_hostname"] == "c.example"
    secure = backend_fields.changed(plain, Form({"port": 443}))
    assert secure == {
        "url": "https://a.example", "cert_host": "c.example", "sni_host": "s.example",
    }  # fmt: skip
    assert backend_fields.changed(secure, Form({"port": 80})) == plain


def test_the_older_field_for_both_names() -> None:
    found = made(port=443, ssl_hostname="h.example")
    assert (found["cert_host"], found["sni_host"]) == ("h.example", "h.example")


def test_a_client_certificate_needs_its_key_and_the_key_is_not_shown() -> None:
    found = made(port=443, ssl_client_cert=PEM, ssl_client_key=KEY)
    assert found["client_certificate"] == {"certificate": PEM, "key": KEY}
    shown = backend_fields.shown("x", found)
    assert (shown["ssl_client_cert"], shown["ssl_client_key"]) == (PEM, None)
    newer = backend_fields.changed(found, Form({"ssl_client_cert": PEM + "\n"}))
    assert newer["client_certificate"] == {"certificate": PEM + "\n", "key": KEY}
    without = backend_fields.changed(found, Form({"ssl_client_cert": "", "ssl_client_key": ""}))
    assert "client_certificate" not in without
    with pytest.raises(ApiRefused, match="needed together"):
        made(port=443, ssl_client_key=KEY)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"tcp_keepalive_time": 9}, "9s"),
        ({"tcp_keepalive_enable": "true"}, "300s"),
        ({"tcp_keepalive_enable": "1", "tcp_keepalive_time": 20}, "20s"),
        ({"tcp_keepalive_enable": False, "tcp_keepalive_time": 20}, "0s"),
    ],
)
def test_tcp_keep_alive(fields: dict[str, object], kept: str) -> None:
    assert made(**fields)["tcp_keep_alive"] == kept


def test_times_are_shown_in_the_units_that_they_came_in() -> None:
    found = made(connect_timeout=1, first_byte_timeout=1500, keepalive_time=7, max_lifetime=60000)
    assert found["connect_timeout"] == "1ms"
    assert found["keep_alive"] == "7s"
    shown = backend_fields.shown("x", found)
    wanted = {"connect_timeout": 1, "first_byte_timeout": 1500, "keepalive_time": 7,
              "max_lifetime": 60000, "between_bytes_timeout": 10000, "max_conn": 0}  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted


def test_a_backend_with_numbers_and_switches_of_a_definition_is_shown_as_well() -> None:
    data = {"url": "https://a.example", "connect_timeout": 2, "verify": False, "max_use": 3}
    shown = backend_fields.shown("x", data)
    assert (shown["connect_timeout"], shown["ssl_check_cert"], shown["max_use"]) == (2000, False, 3)


def test_a_named_health_check_takes_the_place_of_one_of_its_own() -> None:
    data = {"url": "http://a.example", "health_check": {"path": "/x"}}
    after = backend_fields.changed(data, Form({"healthcheck": "well"}))
    assert after == {"url": "http://a.example", "fastly": {"healthcheck": "well"}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"address": ""}, "address is missing"),
        ({"address": "a b"}, "not a host name"),
        ({"port": 70000}, "not a port"),
        ({"port": "x"}, "whole number"),
        ({"port": -1}, "whole number"),
        ({"use_ssl": "maybe"}, "true or false"),
        ({"comment": ["x"]}, "must be a text"),
        ({"request_condition": "x"}, "VCL"),
        ({"connect_timeout": 10**14}, "cannot be used"),
        ({"min_tls_version": "1.1"}, "1.1"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    if "min_tls_version" in fields:
        fields = {**fields, "max_tls_version": "1.0"}
    with pytest.raises(ApiRefused) as refused:
        made(**fields)
    told = refused.value.detail + " ".join(map(str, refused.value.problems))
    assert said in told


def test_health_checks_both_ways() -> None:
    form = {
        "check_interval": 2500, "comment": "text", "expected_response": 204, "host": "h.example",
        "http_version": "1.1", "initial": 1, "method": "GET", "path": "/well", "threshold": 2,
        "timeout": 300, "window": 4,
    }  # fmt: skip
    data = health_check_fields.changed({}, Form(form))
    assert data == {
        "interval": "2500ms", "expected_status": "204", "host": "h.example", "initial": "1",
        "method": "GET", "path": "/well", "threshold": "2", "timeout": "300ms", "window": "4",
        "fastly": {"comment": "text", "http_version": "1.1"},
    }  # fmt: skip
    check_health_check("well", data)
    shown = health_check_fields.shown("well", data)
    assert shown == {"name": "well", "headers": [], **form}
    cleared = health_check_fields.changed(data, Form({"host": "", "window": "8"}))
    assert ("host" in cleared, cleared["window"]) == (False, "8")


def test_a_health_check_that_cannot_be_is_refused_with_its_key() -> None:
    data = health_check_fields.changed({}, Form({"window": 2}))
    with pytest.raises(ApiRefused) as refused:
        check_health_check("well", data)
    assert "above window" in str(refused.value.problems[0])
