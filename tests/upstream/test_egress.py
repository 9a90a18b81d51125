"""The egress policy: who may be named, which addresses may be met, and never ourselves."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from edge.settings import Egress, EgressRule
from edge.upstream.egress import EgressPolicy, is_local
from edge.upstream.fetch import Cause, UpstreamFailed
from tests.support.backends import backend

ANY = Egress((EgressRule("*"),))
EVERYTHING = Egress((EgressRule("*"),), private_networks=True)
PUBLIC = ip_address("93.184.216.34")


def refusal(
    egress: Egress, url: str, *addresses: str, listeners: tuple[tuple[str, int], ...] = ()
) -> UpstreamFailed | None:
    """What a dynamic backend gets, whose host is at `addresses`."""
    policy = EgressPolicy(egress, listeners, is_ours=lambda address: address.is_loopback)
    guests = backend(url, dynamic=True)
    try:
        policy.check_name(guests)
        policy.permitted(guests, [ip_address(text) for text in addresses])
    except UpstreamFailed as error:
        return error
    return None


def test_nothing_is_allowed_unless_the_operator_says_so() -> None:
    refused = refusal(Egress(), "http://api.example.com:80")
    assert refused is not None
    assert refused.cause is Cause.DESTINATION_IP_UNROUTABLE
    assert refused.setting == "egress.allow"
    assert "egress.allow" in str(refused)


def test_a_backend_of_the_operator_is_not_asked_about() -> None:
    policy = EgressPolicy(Egress(), [("", 80)])
    written = backend("http://127.0.0.1:80")
    policy.check_name(written)
    assert policy.permitted(written, [ip_address("127.0.0.1")]) == [ip_address("127.0.0.1")]


@pytest.mark.parametrize(
    ("rule", "url", "is_allowed"),
    [
        (EgressRule("api.example.com"), "https://api.example.com:443", True),
        (EgressRule("api.example.com"), "https://api.example.com.:443", True),
        (EgressRule("api.example.com"), "https://xapi.example.com:443", False),
        (EgressRule("api.example.com"), "https://a.api.example.com:443", False),
        (EgressRule("*.example.com"), "https://a.example.com:443", True),
        (EgressRule("*.example.com"), "https://a.b.example.com:443", True),
        (EgressRule("*.example.com"), "https://example.com:443", False),
        (EgressRule("*.example.com"), "https://badexample.com:443", False),
        (EgressRule("*.34"), "https://93.184.216.34:443", False),
        (EgressRule("*"), "https://93.184.216.34:443", True),
        (EgressRule("api.example.com", port=443), "https://api.example.com:443", True),
        (EgressRule("api.example.com", port=443), "https://api.example.com:22", False),
        (EgressRule("*", port=443), "http://api.example.com:80", False),
        (EgressRule(network=ip_network("93.184.216.0/24")), "https://93.184.216.34:443", True),
        (EgressRule(network=ip_network("93.184.216.0/24")), "https://a.example:443", True),
        (EgressRule(network=ip_network("93.184.217.0/24")), "https://a.example:443", False),
        (EgressRule(network=ip_network("2606::/16")), "https://a.example:443", False),
        (
            EgressRule(network=ip_network("93.184.216.0/24"), port=80),
            "https://a.example:443",
            False,
        ),
    ],
)
def test_a_rule_allows_what_it_names(rule: EgressRule, url: str, is_allowed: bool) -> None:
    refused = refusal(Egress((rule,)), url, str(PUBLIC))
    assert (refused is None) == is_allowed
    assert refused is None or refused.setting == "egress.allow"


def test_a_name_without_a_rule_is_refused_before_dns() -> None:
    policy = EgressPolicy(Egress((EgressRule("a.example"),)))
    with pytest.raises(UpstreamFailed):
        policy.check_name(backend("http://secret-data.attacker.example:80", dynamic=True))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fd00::1", "64:ff9b::7f00:1"],
)
def test_a_public_name_at_a_special_address_is_refused(address: str) -> None:
    refused = refusal(ANY, "http://innocent.example:80", address)
    assert refused is not None
    assert refused.cause is Cause.DESTINATION_IP_UNROUTABLE
    assert refused.setting == "egress.private_networks"
    assert "egress.private_networks" in str(refused)
    assert refusal(EVERYTHING, "http://innocent.example:80", address) is None


def test_of_several_addresses_only_the_permitted_ones_are_kept() -> None:
    policy = EgressPolicy(ANY)
    found = [ip_address("10.0.0.1"), PUBLIC, ip_address("::1")]
    assert policy.permitted(backend("http://a.example:80", dynamic=True), found) == [PUBLIC]


def test_a_network_rule_does_not_open_private_networks() -> None:
    rule = EgressRule(network=ip_network("10.0.0.0/8"))
    refused = refusal(Egress((rule,)), "http://10.1.2.3:80", "10.1.2.3")
    assert refused is not None
    assert refused.setting == "egress.private_networks"


@pytest.mark.parametrize("listener", ["", "0.0.0.0", "::", "[::]", "127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_our_own_listeners_are_refused_whatever_is_allowed(listener: str, address: str) -> None:
    refused = refusal(
        EVERYTHING, "http://loop.example:7000", address, listeners=((listener, 7000),)
    )
    assert refused is not None
    assert "this server itself" in str(refused)
    assert not refused.setting
    other_port = refusal(
        EVERYTHING, "http://loop.example:7001", address, listeners=((listener, 7000),)
    )
    assert other_port is None


def test_another_address_of_this_machine_is_not_a_listener_that_has_one_address() -> None:
    assert (
        refusal(EVERYTHING, "http://a.example:70", "127.0.0.2", listeners=(("127.0.0.1", 70),))
        is None
    )


def test_the_kernel_knows_which_addresses_are_this_machines() -> None:
    assert is_local(ip_address("127.0.0.1"))
    assert is_local(ip_address("127.9.9.9"))
    assert not is_local(ip_address("192.0.2.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))  # somebody else's socket does not matter
        assert is_local(ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    "wrapped",
    ["64:ff9b::c000:201", "2002:c000:201::1", "::ffff:0:192.0.2.1", "64:ff9b:1::c000:201"],
)
def test_an_own_listener_is_not_reached_by_translation_either(wrapped: str) -> None:
    refused = refusal(EVERYTHING, "http://a.example:80", wrapped, listeners=(("192.0.2.1", 80),))
    assert refused is not None
    assert "this server itself" in str(refused)
    assert (
        refusal(EVERYTHING, "http://a.example:80", wrapped, listeners=(("192.0.2.2", 80),)) is None
    )
