"""Stores and their entries: names, owners, links, Fastly's rules, all-or-nothing batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.catalogue import audit, entries, parts, services, stores, versions
from edge.catalogue.records import Page, PartKind, StoreKind
from edge.errors import Refusal
from tests.support.catalogue import FILE, desk, package

BLOCK, ALLOW = b'{"action":"BLOCK"}', b'{"action":"ALLOW"}'


def test_names_are_unique_within_a_kind(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        for kind in (StoreKind.CONFIG, StoreKind.KV, StoreKind.SECRET, StoreKind.ACL):
            made = at.write(stores.create, kind, "a")
            assert at.read(stores.find, kind, "a") == made
            again = at.refused(stores.create, kind, "a")
            assert again is Refusal.CONFLICT
        assert at.refused(lambda tx: stores.find(tx, StoreKind.KV, made.id)) is Refusal.NOT_FOUND


def test_names_of_dictionaries_are_unique_within_a_service(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        owners = [at.write(services.create, n).id for n in "ab"]
        kind = StoreKind.DICTIONARY
        made = [at.write(stores.create, kind, "d", owner=o) for o in owners]
        assert made[0].id != made[1].id
        found = at.read(lambda tx: stores.find(tx, kind, "d", owners[1]))
        assert found == made[1]
        mine = at.read(lambda tx: stores.listing(tx, kind, Page(), owner=owners[0]))
        assert mine == [made[0]]
        other = at.refused(lambda tx: stores.find(tx, kind, made[0].id, owners[1]))
        assert other is Refusal.NOT_FOUND
        assert at.refused(lambda tx: stores.create(tx, kind, "d")) is Refusal.INVALID


def test_stores_of_each_kind_are_bounded(tmp_path: Path) -> None:
    with desk(tmp_path, stores=1) as at:
        at.write(lambda tx: stores.create(tx, StoreKind.KV, "a"))
        at.write(lambda tx: stores.create(tx, StoreKind.ACL, "a"))
        assert at.refused(lambda tx: stores.create(tx, StoreKind.KV, "b")) is Refusal.LIMIT


def test_a_store_that_is_served_is_deleted_by_force_only(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "flags"))
        made = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: versions.create(tx, made.id))
        at.write(lambda tx: versions.set_package(tx, made.id, 1, package()))
        link = {"store": store.id}
        at.write(lambda tx: parts.add(tx, made.id, 1, PartKind.LINK, "f", link))
        assert at.read(lambda tx: stores.linked(tx, store.id, served=True)) == []
        at.write(lambda tx: services.set_active(tx, made.id, 1, reason="activate"))
        assert at.read(lambda tx: stores.linked(tx, store.id, served=True)) == [(made.id, 1)]
        assert at.refused(lambda tx: stores.delete(tx, store.id)) is Refusal.IN_USE
        at.write(lambda tx: stores.delete(tx, store.id, force=True))
        assert at.read(lambda tx: parts.get(tx, made.id, 1, PartKind.LINK, "f")).data == link
        assert at.read(lambda tx: stores.linked(tx, store.id)) == []


def test_renaming_keeps_the_entries(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "a"))
        at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "b"))
        at.write(lambda tx: entries.put(tx, store, "k", b"v"))
        assert at.refused(lambda tx: stores.rename(tx, store.id, "b")) is Refusal.CONFLICT
        renamed = at.write(lambda tx: stores.rename(tx, store.id, "c"))
        assert (renamed.name, renamed.entries) == ("c", 1)
        assert at.read(lambda tx: entries.contents(tx, store.id)) == {"k": b"v"}


def test_an_entry_is_put_got_and_deleted(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "a"))
        entry, created = at.write(lambda tx: entries.put(tx, store, "k", "grün".encode()))
        assert (created, entry.value.decode()) == (True, "grün")
        at.clock.advance(5)
        entry, created = at.write(lambda tx: entries.put(tx, store, "k", b"x"))
        assert (created, entry.updated_at - entry.created_at) == (False, 5)
        assert at.refused(lambda tx: entries.insert(tx, store, "k", b"")) is Refusal.CONFLICT
        assert at.read(lambda tx: stores.get(tx, store.id)).revision == store.revision + 2
        assert at.write(lambda tx: entries.delete(tx, store, "k")).value == b"x"
        assert at.refused(lambda tx: entries.get(tx, store, "k")) is Refusal.NOT_FOUND
        assert at.refused(lambda tx: entries.delete(tx, store, "k")) is Refusal.NOT_FOUND
        assert at.read(lambda tx: stores.get(tx, store.id)).entries == 0


def test_lists_of_entries_have_pages_and_prefixes(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "a"))
        for key in ("b", "ab", "a", "a%", "abc", "é"):
            at.write(entries.put, store, key, b"")

        def keys(page: Page, prefix: str = "") -> list[str]:
            found = at.read(lambda tx: entries.listing(tx, store, page, prefix=prefix))
            return [entry.key for entry in found]

        assert keys(Page()) == ["a", "a%", "ab", "abc", "b", "é"]
        assert keys(Page(2), "a") == ["a", "a%"]
        assert keys(Page(2, "a%"), "a") == ["ab", "abc"]
        assert keys(Page(2, "abc"), "a") == []
        assert keys(Page(), "a%") == ["a%"]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (StoreKind.CONFIG, "", b""),
        (StoreKind.CONFIG, "k" * 257, b""),
        (StoreKind.CONFIG, "a\0b", b""),
        (StoreKind.CONFIG, "\ud800", b""),
        (StoreKind.CONFIG, "k", b"x" * 8001),
        (StoreKind.CONFIG, "k", b"\xff"),
        (StoreKind.SECRET, "a b", b""),
        (StoreKind.SECRET, "k" * 256, b""),
        (StoreKind.SECRET, "k", b"x" * 65_537),
        (StoreKind.ACL, "192.0.2.7/24", BLOCK),
        (StoreKind.ACL, "host.example", BLOCK),
        (StoreKind.ACL, "192.0.2.0/24", b'{"action":"DROP"}'),
        (StoreKind.ACL, "192.0.2.0/24", b'{"action":"ALLOW","x":1}'),
        (StoreKind.ACL, "192.0.2.0/24", b"[" * 100_000),
        (StoreKind.SERVICE_ACL, "192.0.2.0/24", ALLOW),
        (StoreKind.SERVICE_ACL, "192.0.2.0/24", b'{"negated":1,"comment":""}'),
        (StoreKind.KV, "k", b""),
    ],
)
def test_what_a_store_does_not_take_is_refused(
    tmp_path: Path, kind: StoreKind, key: str, value: bytes
) -> None:
    with desk(tmp_path) as at:
        owner = at.write(lambda tx: services.create(tx, "a")).id
        store = at.write(lambda tx: stores.create(tx, kind, "s", owner=owner))
        assert at.refused(lambda tx: entries.put(tx, store, key, value)) is Refusal.INVALID


@pytest.mark.parametrize(
    ("kind", "key", "value", "normal"),
    [
        (StoreKind.CONFIG, "k" * 256, "ü".encode() * 8000, "k" * 256),
        (StoreKind.SECRET, "A.b_c-9", b"\xff" * 65_536, "A.b_c-9"),
        (StoreKind.ACL, "2001:DB8::/32", BLOCK, "2001:db8::/32"),
        (StoreKind.ACL, "192.0.2.7", ALLOW, "192.0.2.7/32"),
        (StoreKind.SERVICE_ACL, "192.0.2.7/24", b'{"comment":"","negated":true}', "192.0.2.0/24"),
    ],
)
def test_what_a_store_takes_it_gives_back(
    tmp_path: Path, kind: StoreKind, key: str, value: bytes, normal: str
) -> None:
    with desk(tmp_path) as at:
        owner = at.write(lambda tx: services.create(tx, "a")).id
        store = at.write(lambda tx: stores.create(tx, kind, "s", owner=owner))
        entry, _ = at.write(lambda tx: entries.put(tx, store, key, value))
        assert entry.key == normal
        read = entries.reveal if kind is StoreKind.SECRET else entries.contents
        assert at.read(lambda tx: read(tx, store)) == {normal: value}
        assert at.read(lambda tx: entries.get(tx, store, key)) == entry
        if kind in (StoreKind.ACL, StoreKind.SERVICE_ACL):
            assert len(entry.id) == 22
            assert at.read(lambda tx: entries.get(tx, store, entry.id)) == entry
        else:
            assert entry.id == ""


def test_entries_of_a_store_are_bounded(tmp_path: Path) -> None:
    with desk(tmp_path, store_entries=2) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "a"))
        three = {"a": b"", "b": b"", "c": b""}
        assert at.refused(lambda tx: entries.replace_all(tx, store, three)) is Refusal.LIMIT
        ops = [("create", key, b"") for key in three]
        assert at.refused(lambda tx: entries.batch(tx, store, ops)) is Refusal.LIMIT
        for key in "ab":
            at.write(entries.put, store, key, b"1")
        at.write(lambda tx: entries.put(tx, store, "a", b"2"))
        assert at.refused(lambda tx: entries.put(tx, store, "c", b"")) is Refusal.LIMIT
        ops = [("delete", "a", b""), ("create", "c", b"3")]
        at.write(lambda tx: entries.batch(tx, store, ops))
        assert at.read(lambda tx: entries.contents(tx, store)) == {"b": b"1", "c": b"3"}


@pytest.mark.parametrize(
    ("op", "key", "why"),
    [
        ("create", "a", Refusal.CONFLICT),
        ("update", "z", Refusal.NOT_FOUND),
        ("delete", "z", Refusal.NOT_FOUND),
        ("upsert", "", Refusal.INVALID),
        ("drop", "a", Refusal.INVALID),
    ],
)
def test_of_a_batch_with_a_mistake_nothing_is_done(
    tmp_path: Path, op: str, key: str, why: Refusal
) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "s"))
        at.write(lambda tx: entries.put(tx, store, "a", b"1"))
        before = at.read(lambda tx: stores.get(tx, store.id))
        ops = [("upsert", "a", b"2"), ("create", "b", b"3"), (op, key, b"4")]
        assert at.refused(lambda tx: entries.batch(tx, store, ops)) is why
        assert at.read(lambda tx: entries.contents(tx, store)) == {"a": b"1"}
        assert at.read(lambda tx: stores.get(tx, store.id)) == before


def test_entries_of_acls_are_changed_by_id_too(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.ACL, "s"))
        entry, _ = at.write(lambda tx: entries.put(tx, store, "10.0.0.0/8", BLOCK))
        ops = [("update", entry.id, ALLOW), ("create", "10.1.0.0/16", BLOCK)]
        at.write(lambda tx: entries.batch(tx, store, ops))
        found = at.read(lambda tx: entries.get(tx, store, "10.0.0.0/8"))
        assert (found.id, found.value) == (entry.id, ALLOW)
        at.write(lambda tx: entries.batch(tx, store, [("delete", entry.id, b"")]))
        assert list(at.read(lambda tx: entries.contents(tx, store))) == ["10.1.0.0/16"]


def test_replacing_all_leaves_nothing_else(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "s"))
        at.write(lambda tx: entries.replace_all(tx, store, {"a": b"1", "b": b"2"}))
        at.write(lambda tx: entries.replace_all(tx, store, {"b": b"3", "c": b"4"}))
        assert at.read(lambda tx: entries.contents(tx, store)) == {"b": b"3", "c": b"4"}
        assert at.read(lambda tx: stores.get(tx, store.id)).entries == 2


def test_a_stale_revision_changes_nothing(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "s"))
        at.write(lambda tx: entries.put(tx, store, "a", b"1", expect=store.revision))
        for work in (
            lambda tx: entries.put(tx, store, "a", b"2", expect=store.revision),
            lambda tx: entries.delete(tx, store, "a", expect=store.revision),
            lambda tx: entries.replace_all(tx, store, {}, expect=store.revision),
            lambda tx: entries.batch(tx, store, [], expect=store.revision),
            lambda tx: stores.rename(tx, store.id, "t", expect=store.revision),
            lambda tx: stores.delete(tx, store.id, expect=store.revision),
        ):
            assert at.refused(work) is Refusal.PRECONDITION_FAILED


def test_a_secret_is_in_no_file_and_no_record(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.SECRET, "s"))
        entry, _ = at.write(lambda tx: entries.put(tx, store, "k", b"hunter2hunter2"))
        at.write(lambda tx: entries.batch(tx, store, [("upsert", "l", b"hunter2hunter2")]))
        assert entry.value == b""
        listed = at.read(lambda tx: entries.listing(tx, store, Page()))
        assert [each.value for each in listed] == [b"", b""]
        assert listed[0].digest == listed[1].digest != b""
        assert at.refused(lambda tx: entries.contents(tx, store)) is Refusal.INVALID
        assert "hunter" not in repr(at.read(lambda tx: audit.listing(tx, Page())))
        assert at.read(lambda tx: entries.reveal(tx, store))["k"] == b"hunter2hunter2"
    found = list(tmp_path.glob(f"{FILE}*"))
    assert found
    for path in found:
        assert b"hunter" not in path.read_bytes()


def test_a_sealed_value_that_was_moved_does_not_open(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = at.write(lambda tx: stores.create(tx, StoreKind.SECRET, "s"))
        for key in "ab":
            at.write(entries.put, store, key, key.encode())
        swap = "UPDATE entry SET value = (SELECT value FROM entry WHERE key = 'a') WHERE key = 'b'"
        at.write(lambda tx: tx.run(swap))
        assert at.refused(lambda tx: entries.reveal(tx, store)) is Refusal.STORAGE
