"""Which clients a canary takes: the same ones each time, about as many as it should."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from edge.dispatch.canary import Canary
from edge.dispatch.deployed import Deployed
from edge.model.service import Role, Service, Version

CLIENTS = [ip_address(f"10.{n >> 8 & 255}.{n & 255}.7").packed for n in range(4000)]


class _Deployed:
    def __init__(self, version: Version) -> None:
        self.version = version
        self.name = version.service.name


def canary(share: int, *, identity: str = "one", number: int = 2) -> Canary:
    service = Service("shop", Path("shop.wasm"), ())
    version = Version(service, number, id=identity, role=Role.CANARY, share=share)
    return Canary(cast("Deployed", _Deployed(version)))


def taken(by: Canary) -> set[bytes]:
    return {client for client in CLIENTS if by.takes(client)}


@pytest.mark.parametrize("share", [0, 100, 2500, 5000, 9900, 10_000])
def test_a_canary_takes_about_its_share_of_the_clients(share: int) -> None:
    expected = len(CLIENTS) * share / 10_000
    spread = 5 * (expected * (1 - share / 10_000)) ** 0.5  # five standard deviations
    assert abs(len(taken(canary(share))) - expected) <= spread


def test_a_larger_share_only_adds_clients_and_another_number_changes_none() -> None:
    smaller, larger = taken(canary(500)), taken(canary(2000, number=3))
    assert smaller < larger
    assert smaller == taken(canary(500, number=9))


def test_the_first_clients_of_one_service_are_not_those_of_another() -> None:
    both = taken(canary(1000)) & taken(canary(1000, identity="two"))
    assert len(both) < 0.02 * len(CLIENTS)


def test_one_client_stays_one_whatever_form_its_address_has() -> None:
    by = canary(5000)
    for number in range(200):
        plain = ip_address(f"198.51.100.{number}").packed
        mapped = ip_address(f"::ffff:198.51.100.{number}").packed
        assert by.takes(plain) is by.takes(mapped)
        first = ip_address(f"2001:db8:0:{number}::1").packed
        other = ip_address(f"2001:db8:0:{number}:a:b:c:d").packed
        assert by.takes(first) is by.takes(other), "within a /64 a host changes its address"
