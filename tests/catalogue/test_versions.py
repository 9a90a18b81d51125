"""Versions and their parts: drafts change, locked versions never do, clones are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.catalogue import audit, part_rows, parts, services, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.records import Page, PartKind, StoreKind
from edge.errors import Refusal
from tests.support.catalogue import FILE, desk, package

HOST: dict[str, object] = {"host": "a.example", "path": "/", "exact": False, "comment": ""}
KEY = "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----"
MUTUAL: dict[str, object] = {
    "url": "https://b.example",
    "client_certificate": {"certificate": "PEM", "key": KEY},
}


def test_numbers_are_given_out_once(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        for number in (1, 2, 3):
            assert at.write(lambda tx: versions.create(tx, made.id)).number == number
        at.write(lambda tx: versions.delete(tx, made.id, 3))
        assert at.read(lambda tx: services.get(tx, made.id)).latest == 2
        assert at.write(lambda tx: versions.create(tx, made.id)).number == 4
        latest = at.read(lambda tx: versions.latest(tx, made.id))
        assert latest is not None
        assert latest.number == 4


def test_a_clone_has_all_of_its_original(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "flags"))

        def fill(tx: Transaction) -> None:
            versions.create(tx, made.id)
            versions.set_package(tx, made.id, 1, package())
            versions.set_settings(tx, made.id, 1, {"env": {"A": "b"}})
            parts.add(tx, made.id, 1, PartKind.DOMAIN, "a.example", HOST)
            parts.add(tx, made.id, 1, PartKind.LINK, "flags", {"store": store.id})
            parts.add(tx, made.id, 1, PartKind.BACKEND, "b", MUTUAL)
            versions.lock(tx, made.id, 1)

        at.write(fill)
        clone = at.write(lambda tx: versions.create(tx, made.id, clone_of=1, comment="next"))
        assert (clone.number, clone.locked, clone.comment) == (2, False, "next")
        assert clone.package == package()
        assert clone.settings == {"env": {"A": "b"}}
        for kind in PartKind:
            pair = [at.read(parts.listing, made.id, n, kind) for n in (1, 2)]
            assert pair[0] == pair[1]
        assert at.read(lambda tx: stores.linked(tx, store.id)) == [(made.id, 1), (made.id, 2)]
        at.write(lambda tx: parts.remove(tx, made.id, 2, PartKind.LINK, "flags"))
        assert at.read(lambda tx: parts.get(tx, made.id, 1, PartKind.LINK, "flags")).data


def deep() -> object:
    found: object = 1
    for _ in range(5000):
        found = [found]
    return found


CHANGES: dict[str, Callable[[Transaction, str], object]] = {
    "comment": lambda tx, s: versions.set_comment(tx, s, 1, "x"),
    "package": lambda tx, s: versions.set_package(tx, s, 1, package("b")),
    "settings": lambda tx, s: versions.set_settings(tx, s, 1, {"env": {}}),
    "parts": lambda tx, s: versions.replace_parts(tx, s, 1, PartKind.DOMAIN, []),
    "add": lambda tx, s: parts.add(tx, s, 1, PartKind.DOMAIN, "b.example", HOST),
    "update": lambda tx, s: parts.update(tx, s, 1, PartKind.DOMAIN, "a.example", name="c.example"),
    "remove": lambda tx, s: parts.remove(tx, s, 1, PartKind.DOMAIN, "a.example"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_draft_changes_and_a_locked_version_does_not(tmp_path: Path, change: str) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.DOMAIN, "a.example", HOST))
        before = at.read(lambda tx: versions.get(tx, made.id, 1))
        at.clock.advance(1)
        at.write(lambda tx: CHANGES[change](tx, made.id))
        after = at.read(lambda tx: versions.get(tx, made.id, 1))
        assert after.revision > before.revision
        assert after.updated_at == before.updated_at + 1
        at.write(lambda tx: versions.lock(tx, made.id, 1))
        refused = at.refused(lambda tx: CHANGES[change](tx, made.id))
        assert refused is Refusal.VERSION_LOCKED


def test_a_change_of_an_old_revision_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        first = at.write(lambda tx: versions.create(tx, made.id))
        at.write(lambda tx: versions.set_comment(tx, made.id, 1, "x", expect=first.revision))
        for work in (
            lambda tx: versions.set_settings(tx, made.id, 1, {}, expect=first.revision),
            lambda tx: versions.delete(tx, made.id, 1, expect=first.revision),
            lambda tx: parts.add(tx, made.id, 1, PartKind.DOMAIN, "a", HOST, expect=first.revision),
        ):
            assert at.refused(work) is Refusal.PRECONDITION_FAILED
        assert at.read(lambda tx: versions.get(tx, made.id, 1)).comment == "x"


def test_a_served_version_is_not_deleted(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        at.write(lambda tx: versions.set_package(tx, made.id, 1, package()))
        at.write(lambda tx: services.set_staged(tx, made.id, 1))
        assert at.refused(lambda tx: versions.delete(tx, made.id, 1)) is Refusal.VERSION_ACTIVE
        at.write(lambda tx: services.set_staged(tx, made.id, None))
        at.write(lambda tx: versions.delete(tx, made.id, 1))
        assert at.catalogue.take_orphans() == {package().sha256}


def test_drafts_do_not_pile_up(tmp_path: Path) -> None:
    with desk(tmp_path, keep_versions=3) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        for _ in range(6):
            at.write(lambda tx: versions.create(tx, made.id))
        left = at.read(lambda tx: versions.listing(tx, made.id, Page()))
        assert [each.number for each in left] == [4, 5, 6]


def test_replacing_parts_keeps_the_ids_of_those_that_stay(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        first = at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.DOMAIN, "a.example", HOST))
        wanted = [("b.example", HOST), ("a.example", {**HOST, "comment": "x"})]
        at.write(lambda tx: versions.replace_parts(tx, made.id, 1, PartKind.DOMAIN, wanted))
        found = at.read(lambda tx: parts.listing(tx, made.id, 1, PartKind.DOMAIN))
        assert [(each.name, each.data["comment"]) for each in found] == [
            ("a.example", "x"),
            ("b.example", ""),
        ]
        assert found[0].id == first.id
        twice = [("b.example", HOST), ("b.example", HOST)]
        work = lambda tx: versions.replace_parts(tx, made.id, 1, PartKind.DOMAIN, twice)  # noqa: E731
        assert at.refused(work) is Refusal.CONFLICT
        assert len(at.read(lambda tx: parts.listing(tx, made.id, 1, PartKind.DOMAIN))) == 2


def test_a_part_is_found_by_name_or_id_and_renamed_once(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        part = at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.BACKEND, "o", {"url": "x"}))
        at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.BACKEND, "p", {"url": "x"}))
        kind = PartKind.BACKEND
        renamed = at.write(lambda tx: parts.update(tx, made.id, 1, kind, part.id, name="q"))
        assert (renamed.id, renamed.name, renamed.data) == (part.id, "q", {"url": "x"})
        taken = at.refused(lambda tx: parts.update(tx, made.id, 1, kind, "q", name="p"))
        assert taken is Refusal.CONFLICT
        gone = at.refused(lambda tx: parts.get(tx, made.id, 1, kind, "o"))
        assert gone is Refusal.NOT_FOUND
        other = at.refused(lambda tx: parts.get(tx, made.id, 1, PartKind.DOMAIN, part.id))
        assert other is Refusal.NOT_FOUND
        assert at.refused(lambda tx: parts.add(tx, made.id, 1, kind, "q", {})) is Refusal.CONFLICT


@pytest.mark.parametrize("kind", PartKind)
def test_parts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: PartKind) -> None:
    monkeypatch.setitem(part_rows.MOST, kind, 2)
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "s"))
        data = {"store": store.id}
        for name in "ab":
            at.write(parts.add, made.id, 1, kind, name, data)
        assert at.refused(lambda tx: parts.add(tx, made.id, 1, kind, "c", data)) is Refusal.LIMIT
        many = [(name, data) for name in "abc"]
        refused = at.refused(lambda tx: versions.replace_parts(tx, made.id, 1, kind, many))
        assert refused is Refusal.LIMIT


@pytest.mark.parametrize(
    "data",
    [
        {"a": float("nan")},
        {"a": object()},
        {"a": "x" * 200_000},
        {"a": deep()},
    ],
)
def test_data_that_is_no_plain_bounded_json_is_refused(
    tmp_path: Path, data: dict[str, object]
) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        refused = at.refused(lambda tx: parts.add(tx, made.id, 1, PartKind.BACKEND, "b", data))
        assert refused is Refusal.INVALID


def test_a_link_leads_to_a_store_that_exists(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        for data in ({}, {"store": "x" * 22}, {"store": 7}):
            work = lambda tx, d=data: parts.add(tx, made.id, 1, PartKind.LINK, "l", d)  # noqa: E731
            assert at.refused(work) is Refusal.INVALID


def test_the_key_of_a_client_certificate_is_sealed_and_never_told(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.BACKEND, "b", MUTUAL))
        at.write(lambda tx: parts.update(tx, made.id, 1, PartKind.BACKEND, "b", name="c"))
        kind = PartKind.BACKEND
        at.write(lambda tx: versions.replace_parts(tx, made.id, 1, kind, [("c", MUTUAL)]))
        assert at.read(lambda tx: parts.get(tx, made.id, 1, kind, "c")).data == MUTUAL
        told = at.read(lambda tx: audit.listing(tx, Page()))
        assert "(hidden)" in repr(told)
        assert "PRIVATE" not in repr(told)
    for path in tmp_path.glob(f"{FILE}*"):
        assert b"PRIVATE" not in path.read_bytes()
