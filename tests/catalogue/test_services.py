"""Services in the catalogue: names, what is served, what served before, and pruning."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.catalogue import audit, services, stores, tokens, versions
from edge.catalogue.database import Transaction
from edge.catalogue.records import Canary, Page, Scope, StoreKind
from edge.errors import Refusal
from tests.support.catalogue import desk, package, served


def canary(number: int, share: int = 500) -> Canary:
    return Canary(number, share, 1.0, 0.05, 0.01, 100)


def test_a_service_is_found_by_name_and_by_id(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "shop", "for sale"))
        assert len(made.id) == 22
        assert (made.active, made.staged, made.canary, made.latest) == (None, None, None, 0)
        for text in ("shop", made.id):
            assert at.read(services.find, text) == made
        assert at.refused(lambda tx: services.find(tx, "Shop")) is Refusal.NOT_FOUND
        assert at.refused(lambda tx: services.get(tx, "shop")) is Refusal.NOT_FOUND


def test_a_service_named_like_the_id_of_another_does_not_take_its_place(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        first = at.write(lambda tx: services.create(tx, "shop"))
        at.write(lambda tx: services.create(tx, first.id))
        assert at.read(lambda tx: services.find(tx, first.id)) == first


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 64, "a/b", "é", "a\0"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with desk(tmp_path) as at:
        assert at.refused(lambda tx: services.create(tx, name)) is Refusal.INVALID


def test_names_are_unique_and_services_are_bounded(tmp_path: Path) -> None:
    with desk(tmp_path, services=2) as at:
        first = at.write(lambda tx: services.create(tx, "a"))
        at.write(lambda tx: services.create(tx, "b"))
        assert at.refused(lambda tx: services.create(tx, "b")) is Refusal.CONFLICT
        assert at.refused(lambda tx: services.create(tx, "c")) is Refusal.LIMIT
        rename = at.refused(lambda tx: services.update(tx, first.id, name="b"))
        assert rename is Refusal.CONFLICT


def test_lists_go_on_after_the_last_name(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        for name in ("c", "a", "d", "b"):
            at.write(services.create, name)
        pages = [Page(2), Page(2, "b"), Page(2, "d")]
        found = [at.read(services.listing, page) for page in pages]
        assert [[each.name for each in page] for page in found] == [["a", "b"], ["c", "d"], []]


def test_an_update_of_an_old_revision_is_refused(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        changed = at.write(
            lambda tx: services.update(tx, made.id, comment="b", expect=made.revision)
        )
        assert changed.revision == made.revision + 1
        late = at.refused(lambda tx: services.update(tx, made.id, name="x", expect=made.revision))
        assert late is Refusal.PRECONDITION_FAILED
        same = at.write(lambda tx: services.update(tx, made.id, comment="b"))
        assert same == changed


def test_activating_locks_the_version_and_is_remembered(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 3))
        assert found.active == 1
        at.clock.advance(10)
        at.write(lambda tx: services.set_active(tx, found.id, 3, reason="activate"))
        assert at.read(lambda tx: versions.get(tx, found.id, 3)).locked
        assert not at.read(lambda tx: versions.get(tx, found.id, 2)).locked
        told = at.read(lambda tx: services.activations(tx, found.id))
        assert [(each.number, each.actor) for each in told] == [(3, "alice"), (1, "alice")]
        assert told[0].at == told[1].at + 10
        assert at.read(lambda tx: services.previous_active(tx, found.id)) == 1


def test_a_version_without_a_package_or_without_existence_is_not_served(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a"))
        at.write(lambda tx: versions.create(tx, found.id))
        for number, why in ((2, Refusal.NO_PACKAGE), (9, Refusal.NOT_FOUND)):
            for work in (
                lambda tx, n=number: services.set_active(tx, found.id, n, reason="activate"),
                lambda tx, n=number: services.set_staged(tx, found.id, n),
                lambda tx, n=number: services.set_canary(tx, found.id, canary(n)),
            ):
                assert at.refused(work) is why
        assert at.read(lambda tx: services.get(tx, found.id)).active == 1


def test_the_file_itself_refuses_to_serve_what_is_not_whole(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a"))
        at.write(lambda tx: versions.create(tx, found.id))
        for sql in (
            "UPDATE service SET active = 2",
            "UPDATE service SET active = 7",
            "UPDATE version SET locked = 0 WHERE number = 1",
            "UPDATE version SET settings = '{\"a\":1}' WHERE number = 1",
            "UPDATE version SET package = NULL WHERE number = 1",
            "DELETE FROM version WHERE number = 1",
            "DELETE FROM package",
            "INSERT INTO part SELECT id, 1, 'link', 'x', 'aaaaaaaaaaaaaaaaaaaaaa', '{}', "
            "NULL, NULL, '', 0, 0 FROM service",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                at.write(Transaction.run, sql)


def test_a_canary_stands_beside_the_active_version_and_ends_with_it(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 3))
        assert at.write(lambda tx: services.set_canary(tx, found.id, canary(2))).canary == canary(2)
        assert at.read(lambda tx: versions.get(tx, found.id, 2)).locked
        for wrong in (canary(1), canary(2, 0), canary(2, 10_000)):
            work = lambda tx, wrong=wrong: services.set_canary(tx, found.id, wrong)  # noqa: E731
            assert at.refused(work) is Refusal.INVALID
        at.write(lambda tx: services.set_canary(tx, found.id, None, reason="canary_rollback"))
        assert at.read(lambda tx: services.get(tx, found.id)).canary is None
        at.write(lambda tx: services.set_canary(tx, found.id, canary(3)))
        done = at.write(lambda tx: services.set_active(tx, found.id, 3, reason="activate"))
        assert (done.active, done.canary) == (3, None)
        reasons = [each.reason for each in at.read(lambda tx: services.activations(tx, found.id))]
        assert reasons == ["activate", "canary", "canary_rollback", "canary", "activate"]
        # Two was never all there was.
        assert at.read(lambda tx: services.previous_active(tx, found.id)) == 1


def test_there_is_no_canary_of_what_is_not_served(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 2))
        at.write(lambda tx: services.set_canary(tx, found.id, canary(2)))
        gone = at.write(lambda tx: services.set_active(tx, found.id, None, reason="deactivate"))
        assert (gone.active, gone.canary) == (None, None)
        refused = at.refused(lambda tx: services.set_canary(tx, found.id, canary(2)))
        assert refused is Refusal.INVALID
        assert at.read(lambda tx: services.previous_active(tx, found.id)) == 1


def test_what_is_served_is_listed(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "idle"))
        one = at.write(lambda tx: served(tx, "one", 2))
        two = at.write(lambda tx: served(tx, "two", 2))
        at.write(lambda tx: services.set_active(tx, two.id, None, reason="deactivate"))
        at.write(lambda tx: services.set_staged(tx, two.id, 2))
        assert [each.id for each in at.read(services.served)] == [one.id, two.id]
        at.write(lambda tx: services.set_staged(tx, two.id, None))
        assert [each.id for each in at.read(services.served)] == [one.id]


def test_rolling_back_goes_to_the_last_that_served_and_still_exists(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 3))
        for number in (2, 3):
            at.write(services.set_active, found.id, number, reason="activate")
        assert at.read(lambda tx: services.previous_active(tx, found.id)) == 2
        at.write(lambda tx: versions.delete(tx, found.id, 2))
        assert at.read(lambda tx: services.previous_active(tx, found.id)) == 1
        at.write(lambda tx: versions.delete(tx, found.id, 1))
        assert at.read(lambda tx: services.previous_active(tx, found.id)) is None


def test_a_served_service_is_not_deleted(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 2))
        at.write(lambda tx: services.set_staged(tx, found.id, 2))
        assert at.refused(lambda tx: services.delete(tx, found.id)) is Refusal.VERSION_ACTIVE
        at.write(lambda tx: services.set_active(tx, found.id, None, reason="deactivate"))
        assert at.refused(lambda tx: services.delete(tx, found.id)) is Refusal.VERSION_ACTIVE


def test_with_a_service_goes_all_that_was_only_its(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 2))
        kept = at.write(lambda tx: stores.create(tx, StoreKind.CONFIG, "shared"))
        kv = at.write(lambda tx: stores.create(tx, StoreKind.KV, "cart", owner=found.id))
        at.write(lambda tx: tokens.create(tx, "ci", [Scope.DEPLOY], service_id=found.id))
        at.write(lambda tx: services.set_active(tx, found.id, None, reason="deactivate"))
        assert at.read(lambda tx: stores.owned(tx, found.id, StoreKind.KV)) == [kv]
        at.write(lambda tx: services.delete(tx, found.id))
        assert at.catalogue.take_orphans() == {package().sha256}
        for table, left in (("version", 0), ("package", 0), ("activation", 0), ("token", 0)):
            count = at.read(Transaction.count, f"SELECT count(*) FROM {table}")  # noqa: S608
            assert (table, count) == (table, left)
        assert at.read(lambda tx: stores.get(tx, kept.id)) == kept
        assert at.refused(lambda tx: stores.get(tx, kv.id)) is Refusal.NOT_FOUND
        again = at.write(lambda tx: services.create(tx, "a"))
        assert again.id != found.id


def test_pruning_keeps_what_serves_and_what_a_rollback_needs(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: services.create(tx, "a"))
        for letter in "abcdef":
            number = at.write(lambda tx: versions.create(tx, found.id)).number
            at.write(versions.set_package, found.id, number, package(letter))
        for number in (2, 1):
            at.write(services.set_active, found.id, number, reason="activate")
        gone = at.write(lambda tx: services.prune(tx, found.id, 2))
        assert gone == ["c" * 64, "d" * 64]
        assert at.catalogue.take_orphans() == set(gone)
        left = at.read(lambda tx: versions.listing(tx, found.id, Page()))
        assert [each.number for each in left] == [1, 2, 5, 6]
        assert at.read(services.referenced_packages) == {letter * 64 for letter in "abef"}
        assert at.write(lambda tx: services.prune(tx, found.id, 2)) == []


def test_a_module_that_another_service_has_is_no_orphan(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        first = at.write(lambda tx: served(tx, "a", 1))
        at.write(lambda tx: served(tx, "b", 1))
        at.write(lambda tx: services.set_active(tx, first.id, None, reason="deactivate"))
        at.write(lambda tx: services.delete(tx, first.id))
        assert at.catalogue.take_orphans() == set()


def test_only_so_many_activations_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "ACTIVATIONS", 3)
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 2))
        for number in (2, 1, 2, 1):
            at.write(services.set_active, found.id, number, reason="activate")
        told = at.read(lambda tx: services.activations(tx, found.id))
        assert [each.number for each in told] == [1, 2, 1]


def test_every_change_is_in_the_audit_log_with_what_was_before(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        found = at.write(lambda tx: served(tx, "a", 2))
        at.write(lambda tx: services.set_active(tx, found.id, 2, reason="rollback"))
        newest = at.read(lambda tx: audit.listing(tx, Page(1)))[0]
        assert (newest.action, newest.subject) == ("version.activate", "services/a/versions/2")
        assert newest.before == {"active": 1, "canary": None}
        assert newest.after == {"active": 2, "reason": "rollback"}
        assert (newest.actor, newest.token_id, newest.remote) == ("alice", "t1", "192.0.2.7")
