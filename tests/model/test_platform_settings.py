"""Settings of what guests can reach: egress rules, records, shield sites."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.model.backend import Backend
from edge.model.parse import parse_config
from edge.model.plain import from_plain, to_plain
from edge.model.platform_reader import read_egress_rule
from edge.settings import EgressRule, Settings, ShieldSite


def settings(text: str) -> Settings:
    return parse_config(text, source="test", base=Path("/etc/edge"), env={}).settings


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("*", EgressRule("*")),
        ("API.example.com", EgressRule("api.example.com")),
        ("*.example.com:443", EgressRule("*.example.com", port=443)),
        ("10.0.0.0/8", EgressRule(network=ip_network("10.0.0.0/8"))),
        ("127.0.0.1:9000", EgressRule(network=ip_network("127.0.0.1/32"), port=9000)),
        ("[2001:db8::1]:443", EgressRule(network=ip_network("2001:db8::1/128"), port=443)),
        ("2001:db8::/32", EgressRule(network=ip_network("2001:db8::/32"))),
    ],
)
def test_an_egress_rule_is_a_host_or_a_network_perhaps_with_a_port(
    text: str, rule: EgressRule
) -> None:
    assert read_egress_rule(text) == rule
    assert from_plain(EgressRule, to_plain(rule)) == rule


@pytest.mark.parametrize("text", ["", "http://a", "a b", "10.0.0.1/8", "a:0", "a:99999", "a.*.b"])
def test_what_is_no_egress_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_egress_rule(text)


def test_nothing_is_allowed_by_default() -> None:
    assert settings("").egress.allow == ()
    assert not settings("").egress.private_networks


def test_records_become_json_whose_types_go_by_the_names_of_their_fields() -> None:
    found = settings("""
        geolocation:
          addresses:
            "2001:DB8:0::1": {city: Paris, as_number: 64496, latitude: 48.5, postal_code: 75001}
        device_detection:
          user_agents:
            my phone: {device: {name: Phone, is_mobile: true}}
    """)
    geo = json.loads(found.geolocation.addresses["2001:db8::1"])
    assert geo == {"city": "Paris", "as_number": 64496, "latitude": 48.5, "postal_code": "75001"}
    phone = json.loads(found.device_detection.user_agents["my phone"])
    assert phone == {"device": {"name": "Phone", "is_mobile": True}}


def test_shield_sites_are_this_one_or_two_urls() -> None:
    found = settings(
        "shielding_sites: {here: local, far: {encrypted: 'https://s.example', "
        "unencrypted: 'http://s.example:8080'}}"
    )
    assert found.shielding_sites == {
        "here": ShieldSite(local=True),
        "far": ShieldSite(False, "https://s.example", "http://s.example:8080"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("geolocation: {addresses: {nowhere: {city: X}}}", "nowhere"),
        ("geolocation: {addresses: {192.0.2.1: Paris}}", "must be a mapping"),
        ("geolocation: {addresses: {192.0.2.1: {as_number: many}}}", "'many' is not a number"),
        ("geolocation: {addresses: {192.0.2.1: {latitude: nan}}}", "'nan' is not a number"),
        ("shielding_sites: {a: remote}", "must be `local`"),
        ("shielding_sites: {a: {encrypted: 'http://x', unencrypted: 'http://x'}}", "https://"),
        ("egress: {allow: ['a b']}", "is not a host"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(text)
    assert said in str(caught.value)


def test_all_settings_survive_the_pipe_to_the_workers() -> None:
    found = settings(
        "egress: {allow: ['*', 10.0.0.0/8], private_networks: true}\n"
        "shielding_sites: {here: local}\n"
        "geolocation: {file: geo.mmdb, addresses: {192.0.2.1: {city: X}}}"
    )
    assert from_plain(Settings, to_plain(found)) == found
    assert Backend.__dataclass_fields__["dynamic"].default is False


def test_every_bad_entry_of_a_list_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        settings("egress: {allow: ['https://x.example', ok.example, 10.0.0.1/8, 'a:0']}")
    said = {problem.path: problem.message for problem in caught.value.problems}
    assert set(said) == {"egress.allow[0]", "egress.allow[2]", "egress.allow[3]"}
    assert "without scheme" in said["egress.allow[0]"]
    assert "did you mean 10.0.0.0/8?" in said["egress.allow[2]"]


def test_a_path_with_control_characters_cannot_forge_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        settings('geolocation: {addresses: {"a\\nline 1: all is well": {}}}')
    (problem,) = caught.value.problems
    assert len(str(problem).splitlines()) == 1
