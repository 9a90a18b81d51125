"""Modules of one service take no more than their share: what makes room, and what never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.catalogue import services, versions
from edge.catalogue.database import CatalogueLimits, Transaction
from edge.catalogue.records import Package, Page, VersionRecord
from edge.errors import ApiRefused, Refusal
from edge.settings import Deploy
from tests.support.catalogue import Desk, desk


def upload(tx: Transaction, service: str, letter: str, size: int) -> VersionRecord:
    """A version with that module."""
    made = versions.create(tx, service)
    return versions.set_package(tx, service, made.number, Package(letter * 64, size))


def numbers(at: Desk, service: str) -> list[int]:
    return [each.number for each in at.read(versions.listing, service, Page())]


def made(at: Desk, name: str = "a") -> str:
    return at.write(lambda tx: services.create(tx, name)).id


def test_the_setting_is_the_bound() -> None:
    assert CatalogueLimits.of(Deploy(service_bytes=12345)).service_bytes == 12345
    assert CatalogueLimits.of(Deploy()) == CatalogueLimits()


def test_the_oldest_versions_that_are_not_in_use_make_room(tmp_path: Path) -> None:
    with desk(tmp_path, service_bytes=100) as at:
        shop, other = made(at), made(at, "b")
        at.write(upload, other, "x", 100)
        for letter in "abcd":
            at.write(upload, shop, letter, 25)
        for number in (1, 2):  # a rollback from 2 returns to 1
            at.write(services.set_active, shop, number, reason="activate")
        at.catalogue.take_orphans()
        at.write(upload, shop, "e", 25)
        assert numbers(at, shop) == [1, 2, 4, 5]
        assert at.catalogue.take_orphans() == {"c" * 64}
        at.write(upload, shop, "f", 40)
        assert numbers(at, shop) == [1, 2, 6]
        assert numbers(at, other) == [1]


def test_what_does_not_fit_beside_what_is_in_use_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    with desk(tmp_path, service_bytes=100) as at:
        shop = made(at)
        for letter in "abc":
            at.write(upload, shop, letter, 30)
        at.write(services.set_active, shop, 1, reason="activate")
        with pytest.raises(ApiRefused, match=r"deploy\.service_bytes is 100") as caught:
            at.write(upload, shop, "d", 71)
        assert caught.value.refusal is Refusal.QUOTA
        assert numbers(at, shop) == [1, 2, 3]
        assert at.read(services.get, shop).active == 1
        at.write(upload, shop, "d", 70)
        assert numbers(at, shop) == [1, 4]


def test_a_module_counts_once_and_one_that_stays_anyway_makes_no_room(tmp_path: Path) -> None:
    with desk(tmp_path, service_bytes=100) as at:
        shop = made(at)
        at.write(upload, shop, "a", 40)
        at.write(upload, shop, "b", 40)
        for _ in range(3):
            at.write(upload, shop, "a", 40)
        at.write(services.set_active, shop, 5, reason="activate")
        at.write(upload, shop, "c", 40)
        assert numbers(at, shop) == [1, 3, 4, 5, 6]  # without 1, 3 and 4 there is no more room


def test_a_draft_that_gets_another_program_gives_back_its_first_and_takes_from_no_newer_one(
    tmp_path: Path,
) -> None:
    with desk(tmp_path, service_bytes=100) as at:
        shop = made(at)
        at.write(upload, shop, "a", 60)
        at.write(versions.set_package, shop, 1, Package("b" * 64, 90))
        at.write(upload, shop, "c", 10)
        assert at.refused(versions.set_package, shop, 1, Package("d" * 64, 91)) is Refusal.QUOTA
        assert numbers(at, shop) == [1, 2]


def test_a_bound_that_was_lowered_refuses_only_what_takes_more_room(tmp_path: Path) -> None:
    with desk(tmp_path, service_bytes=100) as at:
        shop = made(at)
        at.write(upload, shop, "a", 50)
        at.write(upload, shop, "b", 50)
        for number in (1, 2):
            at.write(services.set_active, shop, number, reason="activate")
    with desk(tmp_path, service_bytes=60) as at:
        at.write(upload, shop, "a", 50)
        assert at.refused(upload, shop, "c", 1) is Refusal.QUOTA
        assert numbers(at, shop) == [1, 2, 3]
