"""What workers are given of a version: stores filled, secrets opened, a host where none is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edge.catalogue import definition, entries, parts, services, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import PartKind, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.acl import AclEntry
from edge.model.limits import DEFAULT_CEILINGS, DEFAULT_LIMITS, Limits
from edge.model.names import read_network
from edge.model.platform_reader import read_egress_rule
from edge.model.route import Route
from edge.rollout.definition import Loaded, load
from edge.settings import Deploy, Egress, Settings
from tests.support.catalogue import Desk, desk, package

Filled = Mapping[str, bytes]


def made(at: Desk, name: str = "shop", wanted: object = None) -> str:
    """The id of a service whose version 1 has a package and this definition."""

    def work(tx: Transaction) -> str:
        service = services.create(tx, name).id
        versions.create(tx, service)
        versions.set_package(tx, service, 1, package())
        definition.write(tx, service, 1, wanted or {})
        return service

    return at.write(work)


def filled(at: Desk, kind: StoreKind, name: str, contents: Filled, owner: str = "") -> str:
    """The id of a store with these entries."""

    def work(tx: Transaction) -> str:
        store = stores.create(tx, kind, name, owner=owner)
        for key, value in contents.items():
            entries.put(tx, store, key, value)
        return store.id

    return at.write(work)


def loaded(
    at: Desk,
    service: str,
    *,
    settings: Settings | None = None,
    ceilings: Limits = DEFAULT_CEILINGS,
    routed: bool = True,
) -> Loaded:
    return at.read(
        lambda tx: load(
            tx,
            service,
            1,
            packages=PackageStore(Path("/state")),
            settings=settings or Settings(),
            defaults=DEFAULT_LIMITS,
            ceilings=ceilings,
            routed=routed,
        )
    )


def refusal(at: Desk, service: str, settings: Settings | None = None) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        loaded(at, service, settings=settings)
    return caught.value


def test_a_service_without_domains_answers_on_its_name(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = made(at, "Shop")
        found = loaded(at, service).service
        assert found.routes == (Route("shop.localhost"),)
        assert found.module == Path("/state/packages/aa") / ("a" * 64)
        own = Settings(deploy=Deploy(domain="apps.example.com"))
        assert loaded(at, service, settings=own).service.routes == (Route("shop.apps.example.com"),)


def test_a_service_with_domains_answers_there_alone(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = made(at, wanted={"routes": [{"host": "a.example", "path": "/x"}]})
        assert loaded(at, service).service.routes == (Route("a.example", "/x"),)


def test_without_any_host_a_version_cannot_be_routed_to(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        nowhere = Settings(deploy=Deploy(domain=None))
        service = made(at)
        assert refusal(at, service, nowhere).refusal is Refusal.NO_ROUTE
        assert loaded(at, service, settings=nowhere, routed=False).service.routes == ()
        # a good name of a service, and no label of a host
        assert refusal(at, made(at, "shop-")).refusal is Refusal.NO_ROUTE


def test_a_version_without_a_package_is_refused(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = at.write(lambda tx: services.create(tx, "shop")).id
        at.write(lambda tx: versions.create(tx, service))
        assert refusal(at, service).refusal is Refusal.NO_PACKAGE


def test_stores_hold_what_was_put_into_them(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        filled(at, StoreKind.CONFIG, "all-flags", {"banner": "bläu".encode()})
        filled(at, StoreKind.SECRET, "keys", {"api": b"\x00very secret"})
        filled(
            at, StoreKind.ACL, "blocked",
            {"192.0.2.0/24": b'{"action": "BLOCK"}', "2001:db8::/32": b'{"action": "ALLOW"}'},
        )  # fmt: skip
        carts = filled(at, StoreKind.KV, "carts", {})
        wanted = {
            "config_stores": {"flags": "all-flags"}, "secret_stores": ["keys"],
            "acls": ["blocked"], "kv_stores": {"cart": "carts"},
        }  # fmt: skip
        found = loaded(at, made(at, wanted=wanted))
        assert found.service.config_stores == {"flags": {"banner": "bläu"}}
        assert found.service.secret_stores["keys"]["api"].reveal() == b"\x00very secret"
        assert found.service.kv_stores == {"cart": carts}
        assert set(found.service.acls["blocked"]) == {
            AclEntry(read_network("192.0.2.0/24"), "BLOCK"),
            AclEntry(read_network("2001:db8::/32"), "ALLOW"),
        }
        assert found.warnings == ()


def test_dictionaries_and_lists_of_a_service_are_found_like_linked_stores(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = made(at)
        words = filled(at, StoreKind.DICTIONARY, "words", {"a": b"1"}, service)
        bad = filled(
            at, StoreKind.SERVICE_ACL, "bad",
            {
                "192.0.2.0/24": b'{"negated": false, "comment": ""}',
                "192.0.2.9/32": b'{"negated": true, "comment": "ours"}',
            },
            service,
        )  # fmt: skip

        def declare(tx: Transaction) -> None:
            parts.add(tx, service, 1, PartKind.DICTIONARY, "words", {"store": words})
            parts.add(tx, service, 1, PartKind.ACL, "bad", {"store": bad})

        at.write(declare)
        found = loaded(at, service).service
        assert found.config_stores == {"words": {"a": "1"}}
        assert set(found.acls["bad"]) == {
            AclEntry(read_network("192.0.2.0/24"), "BLOCK"),
            AclEntry(read_network("192.0.2.9/32"), "ALLOW"),
        }


def test_a_link_wins_over_a_dictionary_of_its_name_and_says_so(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        filled(at, StoreKind.CONFIG, "words", {"a": b"linked"})
        service = made(at, wanted={"config_stores": ["words"]})
        words = filled(at, StoreKind.DICTIONARY, "words", {"a": b"declared"}, service)
        at.write(
            lambda tx: parts.add(tx, service, 1, PartKind.DICTIONARY, "words", {"store": words})
        )
        found = loaded(at, service)
        assert found.service.config_stores == {"words": {"a": "linked"}}
        assert ["words" in told for told in found.warnings] == [True]


def test_a_store_that_was_deleted_is_missed_and_the_rest_is_served(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        gone = filled(at, StoreKind.KV, "carts", {})
        filled(at, StoreKind.CONFIG, "flags", {"a": b"1"})
        service = made(at, wanted={"kv_stores": ["carts"], "config_stores": ["flags"]})
        at.write(lambda tx: stores.delete(tx, gone, force=True))
        found = loaded(at, service)
        assert found.service.kv_stores == {}
        assert found.service.config_stores == {"flags": {"a": "1"}}
        assert ["its store is gone" in told for told in found.warnings] == [True]


def test_a_store_of_another_service_is_never_opened(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        theirs = made(at, "theirs")
        keys = filled(at, StoreKind.SECRET, "keys", {"api": b"secret"}, theirs)
        ours = made(at, "ours")
        # the catalogue keeps what it is told; whoever wrote this did not ask whose it is
        at.write(lambda tx: parts.add(tx, ours, 1, PartKind.LINK, "keys", {"store": keys}))
        found = loaded(at, ours)
        assert found.service.secret_stores == {}
        assert len(found.warnings) == 1


def test_a_health_check_is_merged_into_the_backend_that_names_it(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = made(at)

        def declare(tx: Transaction) -> None:
            parts.add(
                tx, service, 1, PartKind.HEALTH_CHECK, "check",
                {"path": "/h", "window": 7, "fastly": {"comment": "x"}},
            )  # fmt: skip
            parts.add(
                tx, service, 1, PartKind.BACKEND, "origin",
                {"url": "https://example.com", "fastly": {"healthcheck": "check"}},
            )  # fmt: skip

        at.write(declare)
        check = loaded(at, service).service.backends["origin"].health_check
        assert check is not None
        assert (check.path, check.window) == ("/h", 7)


def test_backends_that_the_policy_refuses_are_warned_of(tmp_path: Path) -> None:
    backends = {
        "allowed": {"url": "https://api.example.com"}, "other": {"url": "http://example.org"},
    }  # fmt: skip
    with desk(tmp_path) as at:
        service = made(at, wanted={"backends": backends})
        allowed = Egress(allow=(read_egress_rule("*.example.com"),))
        found = loaded(at, service, settings=replace(Settings(), egress=allowed))
        assert all(backend.dynamic for backend in found.service.backends.values())
        (warning,) = found.warnings
        assert "backend other: example.org" in warning
        assert "egress.allow" in warning
        assert len(loaded(at, service).warnings) == 2


def test_a_ceiling_that_was_lowered_since_refuses_the_version(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = made(at, wanted={"limits": {"memory": "64MiB"}})
        assert loaded(at, service).service.limits.memory == 64 * 1024 * 1024
        lower = replace(DEFAULT_CEILINGS, memory=32 * 1024 * 1024)
        with pytest.raises(ApiRefused) as caught:
            loaded(at, service, ceilings=lower)
        assert caught.value.refusal is Refusal.INVALID
        assert [problem.path for problem in caught.value.problems] == ["limits.memory"]
