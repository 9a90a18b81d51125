"""A definition that was written is read back; what only Fastly's API knows of a part stays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edge.catalogue import audit, definition, parts, services, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.records import Page, PartKind, StoreKind
from edge.errors import ApiRefused, Refusal
from tests.support.catalogue import Desk, desk

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
WHOLE: dict[str, object] = {
    # in the order of their names, which is how they are kept: no request depends on it
    "routes": [{"host": "*", "path": {"exact": "/x"}}, {"host": "shop.example.com", "path": "/"}],
    "backends": {
        "origin": {"url": "https://example.com", "health_check": {"path": "/healthz"}},
        "other": {"url": "http://other.example.com:8080"},
    },
    "limits": {"memory": "64MiB"},
    "env": {"A": "1"},
    "server_timing": True,
    "config_stores": {"flags": "all-flags"},
    "kv_stores": {"cart": "carts"},
    "secret_stores": {"keys": "keys"},
    "acls": {"blocked": "blocked"},
}


def draft(at: Desk) -> str:
    """The id of a service with a draft, and every store of `WHOLE`."""

    def work(tx: Transaction) -> str:
        service = services.create(tx, "shop").id
        versions.create(tx, service)
        for kind, name in (
            (StoreKind.CONFIG, "all-flags"), (StoreKind.KV, "carts"),
            (StoreKind.SECRET, "keys"), (StoreKind.ACL, "blocked"),
        ):  # fmt: skip
            stores.create(tx, kind, name)
        return service

    return at.write(work)


def written(at: Desk, service: str, wanted: object) -> dict[str, object]:
    at.write(lambda tx: definition.write(tx, service, 1, wanted))
    return at.read(lambda tx: definition.read(tx, service, 1))


def _write(tx: Transaction, service: str, wanted: object) -> None:
    definition.write(tx, service, 1, wanted)


def refusal(at: Desk, work: Callable[[Transaction], object]) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        at.write(work)
    return caught.value


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        assert written(at, service, WHOLE) == WHOLE
        assert written(at, service, WHOLE) == WHOLE


def test_a_list_of_stores_is_read_back_as_a_mapping(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        assert written(at, draft(at), {"kv_stores": ["carts"]}) == {"kv_stores": {"carts": "carts"}}


def test_what_a_definition_does_not_name_goes(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        written(at, service, WHOLE)
        assert written(at, service, {"env": {"B": "2"}}) == {"env": {"B": "2"}}
        assert written(at, service, {}) == {}


def test_a_clone_has_the_definition(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        written(at, service, WHOLE)
        at.write(lambda tx: versions.create(tx, service, clone_of=1))
        assert at.read(lambda tx: definition.read(tx, service, 2)) == WHOLE


def test_a_prefix_and_an_exact_path_are_two_domains(tmp_path: Path) -> None:
    routes = [{"host": "a.example", "path": "/x"}, {"host": "a.example", "path": {"exact": "/x"}}]
    with desk(tmp_path) as at:
        found = written(at, draft(at), {"routes": routes})["routes"]
        assert isinstance(found, list)
        assert sorted(found, key=str) == sorted(routes, key=str)


def test_a_locked_version_and_a_stale_revision_are_refused(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        stale = refusal(at, lambda tx: definition.write(tx, service, 1, {}, expect=99))
        assert stale.refusal is Refusal.PRECONDITION_FAILED
        at.write(lambda tx: versions.lock(tx, service, 1))
        assert at.refused(lambda tx: definition.write(tx, service, 1, {})) is Refusal.VERSION_LOCKED


def test_every_store_that_is_missing_is_named(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        wanted = {"kv_stores": ["nowhere"], "acls": {"a": "carts"}, "config_stores": ["all-flags"]}
        error = refusal(at, lambda tx: definition.write(tx, service, 1, wanted))
        assert {problem.path for problem in error.problems} == {"kv_stores.nowhere", "acls.a"}
        assert at.read(lambda tx: definition.read(tx, service, 1)) == {}


def test_a_store_of_another_service_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)

        def theirs(tx: Transaction) -> str:
            other = services.create(tx, "other").id
            return stores.create(tx, StoreKind.KV, "theirs", owner=other).id

        identity = at.write(theirs)
        told = []
        for name in ("theirs", identity, "nowhere"):
            wanted = {"kv_stores": {"a": name}}
            error = refusal(at, partial(_write, service=service, wanted=wanted))
            told.append(error.detail.replace(name, "NAME"))
        assert len(set(told)) == 1


def test_a_link_to_a_store_that_was_deleted_is_left_out(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        written(at, service, {"kv_stores": ["carts"], "acls": ["blocked"]})
        carts = at.read(lambda tx: stores.find(tx, StoreKind.KV, "carts")).id
        at.write(lambda tx: stores.delete(tx, carts, force=True))
        found = at.read(lambda tx: definition.read(tx, service, 1))
        assert found == {"acls": {"blocked": "blocked"}}


def test_private_keys_are_hidden_and_kept(tmp_path: Path) -> None:
    certificate = {"certificate": PEM, "key": KEY}
    backend = {"url": "https://example.com", "client_certificate": certificate}
    with desk(tmp_path) as at:
        service = draft(at)
        shown = written(at, service, {"backends": {"a": backend}})
        assert "secret" not in str(shown)
        assert "c2VjcmV0" not in str(shown)
        changed = {**backend, "client_certificate": {**certificate, "key": definition.HIDDEN}}
        changed["url"] = "https://other.example.com"
        assert written(at, service, {"backends": {"a": changed}}) == {"backends": {"a": changed}}
        kept = at.read(lambda tx: definition.fields(tx, service, 1))["backends"]
        assert isinstance(kept, dict)
        assert kept["a"]["client_certificate"]["key"] == KEY


def test_a_hidden_key_of_a_backend_that_has_none_is_refused(tmp_path: Path) -> None:
    backend = {
        "url": "https://example.com",
        "client_certificate": {"certificate": PEM, "key": definition.HIDDEN},
    }
    with desk(tmp_path) as at:
        service = draft(at)
        error = refusal(
            at, lambda tx: definition.write(tx, service, 1, {"backends": {"a": backend}})
        )
        assert [p.path for p in error.problems] == ["backends.a.client_certificate.key"]


def fastly_parts(at: Desk, service: str) -> None:
    """What a client of Fastly's API leaves in a version."""

    def work(tx: Transaction) -> None:
        parts.add(
            tx, service, 1, PartKind.HEALTH_CHECK, "check",
            {"path": "/h", "window": "7", "fastly": {"comment": "c"}},
        )  # fmt: skip
        parts.add(
            tx, service, 1, PartKind.BACKEND, "origin",
            {"url": "https://example.com", "fastly": {"healthcheck": "check", "weight": 50}},
        )  # fmt: skip
        parts.add(
            tx, service, 1, PartKind.DOMAIN, "a.example",
            {"host": "a.example", "path": "/", "exact": False, "comment": "the first"},
        )  # fmt: skip
        flags = stores.create(tx, StoreKind.DICTIONARY, "words", owner=service).id
        parts.add(tx, service, 1, PartKind.DICTIONARY, "words", {"store": flags})

    at.write(work)


def test_parts_of_fastlys_api_are_shown_as_a_definition(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        fastly_parts(at, service)
        assert at.read(lambda tx: definition.read(tx, service, 1)) == {
            "routes": [{"host": "a.example", "path": "/"}],
            "backends": {
                "origin": {
                    "url": "https://example.com",
                    "health_check": {"path": "/h", "window": "7"},
                }
            },
        }


def test_writing_back_what_was_read_changes_no_part(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        fastly_parts(at, service)

        def everything(tx: Transaction) -> list[tuple[str, str, object]]:
            return [
                (part.id, part.name, part.data)
                for kind in PartKind
                for part in parts.listing(tx, service, 1, kind)
            ]

        before = at.read(everything)
        written(at, service, at.read(lambda tx: definition.read(tx, service, 1)))
        assert at.read(everything) == before


def test_a_backend_that_changes_has_its_own_health_check(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = draft(at)
        fastly_parts(at, service)
        wanted = {"backends": {"origin": {"url": "https://example.org"}}}
        assert written(at, service, wanted) == wanted


def test_no_secret_reaches_the_audit_log(tmp_path: Path) -> None:
    backend = {
        "url": "https://example.com",
        "client_certificate": {"certificate": PEM, "key": KEY},
    }
    with desk(tmp_path) as at:
        service = draft(at)
        written(at, service, {"backends": {"a": backend}})
        written(at, service, {})
        records = at.read(lambda tx: audit.listing(tx, Page(100)))
        assert any(record.action.startswith("backend") for record in records)
        assert "c2VjcmV0" not in str(records)
