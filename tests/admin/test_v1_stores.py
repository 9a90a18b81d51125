"""`/v1` stores of every kind, and the items, secrets and ACL entries in them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.catalogue import entries, services, stores
from edge.catalogue.database import STARTUP
from edge.catalogue.records import Scope, StoreKind
from tests.support.api_server import ApiServer, api_server

KINDS = {
    "kv": StoreKind.KV,
    "config-stores": StoreKind.CONFIG,
    "secret-stores": StoreKind.SECRET,
    "acls": StoreKind.ACL,
}
every_kind = pytest.mark.parametrize("path", KINDS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        yield running


def make_service(server: ApiServer, name: str = "shop") -> str:
    return server.run(
        lambda: server.around.catalogue.write(STARTUP, lambda tx: services.create(tx, name))
    ).id


@every_kind
def test_a_store_is_made_described_renamed_and_deleted(server: ApiServer, path: str) -> None:
    made = server.ask("PUT", f"/v1/{path}/flags")
    assert made.status == 201, made
    again = server.ask("PUT", f"/v1/{path}/flags")
    assert (again.status, again.json["id"]) == (200, made.json["id"])
    assert made.json["kind"] == KINDS[path].value
    for wanted in ("flags", made.json["id"]):
        described = server.ask("GET", f"/v1/{path}/{wanted}")
        assert (described.status, described.json["name"]) == (200, "flags")
    listed = server.ask("GET", f"/v1/{path}").json
    assert [item["name"] for item in listed["items"]] == ["flags"]
    assert listed["next"] is None
    renamed = server.ask("PATCH", f"/v1/{path}/flags", {"name": "switches"})
    assert (renamed.status, renamed.json["id"]) == (200, made.json["id"])
    assert server.ask("GET", f"/v1/{path}/flags").code == "not_found"
    assert server.ask("DELETE", f"/v1/{path}/switches").status == 204
    assert server.ask("DELETE", f"/v1/{path}/switches").code == "not_found"
    gone = [made.json["id"]] if path == "kv" else []
    assert server.control.deleted_stores == gone


@every_kind
def test_a_name_that_is_taken_or_no_name_is_refused(server: ApiServer, path: str) -> None:
    server.ask("PUT", f"/v1/{path}/one")
    server.ask("PUT", f"/v1/{path}/two")
    assert server.ask("PATCH", f"/v1/{path}/one", {"name": "two"}).code == "conflict"
    assert server.ask("PATCH", f"/v1/{path}/one", {"name": ""}).code == "invalid"
    assert server.ask("PATCH", f"/v1/{path}/one", {"nom": "x"}).code == "invalid"
    assert server.ask("PUT", f"/v1/{path}/%0a").code == "invalid"


@every_kind
def test_stores_are_listed_page_by_page(server: ApiServer, path: str) -> None:
    for number in range(5):
        server.ask("PUT", f"/v1/{path}/s{number}")
    seen, after = [], ""
    while True:
        page = server.ask("GET", f"/v1/{path}?limit=2&after={after}").json
        seen += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["s0", "s1", "s2", "s3", "s4"]
    assert server.ask("GET", f"/v1/{path}?limit=0").code == "invalid"


@every_kind
def test_a_token_of_one_service_sees_only_its_stores(server: ApiServer, path: str) -> None:
    server.ask("PUT", f"/v1/{path}/of-all")
    shop, blog = make_service(server), make_service(server, "blog")
    ours = server.token(Scope.READ, Scope.DEPLOY, service_id=shop)
    theirs = server.token(Scope.READ, Scope.DEPLOY, service_id=blog)
    made = server.ask("PUT", f"/v1/{path}/mine", token=ours)
    assert (made.status, made.json["owner"]) == (201, shop)
    listed = server.ask("GET", f"/v1/{path}", token=ours).json["items"]
    assert [item["name"] for item in listed] == ["mine"]
    for token, name in ((theirs, "mine"), (theirs, made.json["id"]), (ours, "of-all")):
        assert server.ask("GET", f"/v1/{path}/{name}", token=token).code == "not_found"
        assert server.ask("DELETE", f"/v1/{path}/{name}", token=token).code == "not_found"
        rename = server.ask("PATCH", f"/v1/{path}/{name}", {"name": "x"}, token=token)
        assert rename.code == "not_found"
        assert server.ask("PUT", f"/v1/{path}/{name}", token=theirs).status in (201, 409)
    assert server.ask("DELETE", f"/v1/{path}/mine", token=ours).status == 204


@every_kind
def test_reading_is_not_changing(server: ApiServer, path: str) -> None:
    reader = server.token(Scope.READ)
    server.ask("PUT", f"/v1/{path}/one")
    assert server.ask("GET", f"/v1/{path}/one", token=reader).status == 200
    assert server.ask("PUT", f"/v1/{path}/two", token=reader).code == "forbidden"
    assert server.ask("DELETE", f"/v1/{path}/one", token=reader).code == "forbidden"


def test_items_come_and_go_and_services_are_told(server: ApiServer) -> None:
    store = server.ask("PUT", "/v1/config-stores/flags").json["id"]
    items = "/v1/config-stores/flags/items"
    assert server.ask("PUT", f"{items}/a%2Fb", b"blue \xc3\xa9").status == 201
    assert server.ask("PUT", f"{items}/a%2Fb", b"green").status == 200
    found = server.ask("GET", f"{items}/a%2Fb")
    assert (found.body, found.headers["content-type"]) == (b"green", "text/plain; charset=utf-8")
    listed = server.ask("GET", f"{items}?prefix=a").json["items"]
    assert [(item["key"], item["value"]) for item in listed] == [("a/b", "green")]
    assert server.ask("GET", f"{items}?prefix=b").json["items"] == []
    assert server.control.changed_stores == [store, store]
    assert server.ask("DELETE", f"{items}/a%2Fb").status == 204
    assert server.ask("DELETE", f"{items}/a%2Fb").code == "not_found"
    assert server.ask("GET", f"{items}/a%2Fb").code == "not_found"
    assert server.control.changed_stores == [store] * 3


def test_what_cannot_be_an_item_is_refused(server: ApiServer) -> None:
    server.ask("PUT", "/v1/config-stores/flags")
    items = "/v1/config-stores/flags/items"
    assert server.ask("PUT", f"{items}/k", b"\xff").code == "invalid"
    assert server.ask("PUT", f"{items}/k", b"x" * 8001).code == "invalid"
    assert server.ask("PUT", f"{items}/{'k' * 257}", b"x").code == "invalid"
    assert server.ask("PUT", "/v1/config-stores/none/items/k", b"x").code == "not_found"
    assert server.control.changed_stores == []


def test_a_batch_of_items_is_done_whole_or_not_at_all(server: ApiServer) -> None:
    server.ask("PUT", "/v1/config-stores/flags")
    items = "/v1/config-stores/flags/items"
    server.ask("PUT", f"{items}/old", b"1")
    changes = [
        {"op": "create", "key": "new", "value": "2"},
        {"op": "update", "key": "old", "value": "3"},
        {"op": "upsert", "key": "any", "value": "4"},
    ]
    assert server.ask("PATCH", items, {"items": changes}).json == {"changed": 3}
    bad = [{"op": "delete", "key": "any"}, {"op": "create", "key": "new", "value": "5"}]
    assert server.ask("PATCH", items, {"items": bad}).code == "conflict"
    assert server.ask("PATCH", items, {"items": [{"op": "eat", "key": "x"}]}).code == "invalid"
    listed = server.ask("GET", items).json["items"]
    assert {item["key"]: item["value"] for item in listed} == {"any": "4", "new": "2", "old": "3"}


def test_secrets_go_in_and_never_come_out(server: ApiServer) -> None:
    store = server.ask("PUT", "/v1/secret-stores/keys").json["id"]
    secrets = "/v1/secret-stores/keys/secrets"
    value = b"hunter2-\x00\xff"
    made = server.ask("PUT", f"{secrets}/api", value)
    assert (made.status, made.json["name"]) == (201, "api")
    changed = server.ask("PUT", f"{secrets}/api", value + b"!")
    assert (changed.status, changed.json["digest"] == made.json["digest"]) == (200, False)
    answers = [made, changed, server.ask("GET", secrets), server.ask("GET", f"{secrets}/api")]
    answers.append(server.ask("GET", "/v1/audit"))
    for answer in answers:
        assert answer.status in (200, 201)
        assert b"hunter2" not in answer.body
        assert base64.b64encode(value) not in answer.body
    assert revealed(server, store) == {"api": value + b"!"}
    assert server.control.changed_stores == [store, store]
    assert server.ask("DELETE", f"{secrets}/api").status == 204
    assert server.ask("GET", f"{secrets}/api").code == "not_found"
    assert server.ask("PUT", f"{secrets}/a%20b", b"x").code == "invalid"
    assert server.ask("PUT", f"{secrets}/big", b"x" * (64 * 1024 + 1)).code == "invalid"


def revealed(server: ApiServer, store: str) -> dict[str, bytes]:
    return server.run(
        lambda: server.around.catalogue.read(lambda tx: dict(entries.reveal(tx, store)))
    )


def test_secrets_are_the_same_under_a_new_key(server: ApiServer) -> None:
    store = server.ask("PUT", "/v1/secret-stores/keys").json["id"]
    server.ask("PUT", "/v1/secret-stores/keys/secrets/api", b"hunter2")
    before = server.around.keyring.newest
    rotated = server.ask("POST", "/v1/secrets/rotate")
    assert rotated.status == 200
    assert rotated.json["key"] == server.around.keyring.newest != before
    assert revealed(server, store) == {"api": b"hunter2"}
    deployer = server.token(Scope.DEPLOY)
    assert server.ask("POST", "/v1/secrets/rotate", token=deployer).code == "forbidden"


def test_acl_entries_are_changed_and_replaced(server: ApiServer) -> None:
    store = server.ask("PUT", "/v1/acls/blocked").json["id"]
    path = "/v1/acls/blocked/entries"
    changes = [
        {"op": "create", "prefix": "192.0.2.0/24", "action": "BLOCK"},
        {"op": "upsert", "prefix": "2001:db8::/32", "action": "ALLOW"},
    ]
    assert server.ask("PATCH", path, {"entries": changes}).json == {"changed": 2}
    assert entries_of(server) == {"192.0.2.0/24": "BLOCK", "2001:db8::/32": "ALLOW"}
    gone = [{"op": "delete", "prefix": "192.0.2.0/24"}]
    assert server.ask("PATCH", path, {"entries": gone}).status == 200
    whole = [{"prefix": "10.0.0.0/8", "action": "BLOCK"}]
    assert server.ask("PUT", path, {"entries": whole}).json == {"changed": 1}
    assert entries_of(server) == {"10.0.0.0/8": "BLOCK"}
    assert server.control.changed_stores == [store] * 3
    for wrong in ("10.0.0.1/8", "nonsense", "300.0.0.0/8"):
        whole = [{"prefix": wrong, "action": "BLOCK"}]
        assert server.ask("PUT", path, {"entries": whole}).code == "invalid", wrong
    action = [{"prefix": "10.0.0.0/8", "action": "EAT"}]
    assert server.ask("PUT", path, {"entries": action}).code == "invalid"
    assert entries_of(server) == {"10.0.0.0/8": "BLOCK"}


def entries_of(server: ApiServer) -> dict[str, str]:
    items = server.ask("GET", "/v1/acls/blocked/entries").json["items"]
    return {item["prefix"]: item["action"] for item in items}


def test_contents_of_another_services_store_are_out_of_reach(server: ApiServer) -> None:
    shop, blog = make_service(server), make_service(server, "blog")
    theirs = server.token(Scope.READ, Scope.DEPLOY, service_id=blog)
    for kind in KINDS.values():
        server.run(
            lambda kind=kind: server.around.catalogue.write(  # type: ignore[misc]
                STARTUP, lambda tx: stores.create(tx, kind, "s", owner=shop)
            )
        )
    batch = {"items": [{"op": "upsert", "key": "k", "value": "v"}]}
    for method, path, body in (
        ("GET", "/v1/config-stores/s/items", None),
        ("GET", "/v1/config-stores/s/items/k", None),
        ("PUT", "/v1/config-stores/s/items/k", b"v"),
        ("PATCH", "/v1/config-stores/s/items", batch),
        ("DELETE", "/v1/config-stores/s/items/k", None),
        ("GET", "/v1/secret-stores/s/secrets", None),
        ("GET", "/v1/secret-stores/s/secrets/k", None),
        ("PUT", "/v1/secret-stores/s/secrets/k", b"v"),
        ("DELETE", "/v1/secret-stores/s/secrets/k", None),
        ("GET", "/v1/acls/s/entries", None),
        ("PUT", "/v1/acls/s/entries", {"entries": []}),
        ("PATCH", "/v1/acls/s/entries", {"entries": []}),
        ("GET", "/v1/kv/s/keys", None),
        ("GET", "/v1/kv/s/keys/k", None),
        ("PUT", "/v1/kv/s/keys/k", b"v"),
        ("DELETE", "/v1/kv/s/keys/k", None),
    ):
        answer = server.ask(method, path, body, token=theirs)
        assert answer.code == "not_found", (method, path, answer)
    assert server.control.changed_stores == []


def test_a_purge_says_that_there_is_no_cache(server: ApiServer) -> None:
    make_service(server)
    for body in (None, {"all": True}, {"service": "shop", "keys": ["a", "b"]}):
        answer = server.ask("POST", "/v1/purge", body)
        assert (answer.status, answer.json["purged"], answer.json["cache"]) == (200, 0, "none")
    assert server.ask("POST", "/v1/purge", {"service": "none"}).code == "not_found"
    assert server.ask("POST", "/v1/purge", {"what": 1}).code == "invalid"
    assert server.ask("POST", "/v1/purge", token=server.token(Scope.READ)).code == "forbidden"
    assert server.ask("POST", "/v1/purge", token=server.token(Scope.PURGE)).status == 200


def test_a_purging_token_of_one_service_names_that(server: ApiServer) -> None:
    shop = make_service(server)
    make_service(server, "blog")
    token = server.token(Scope.PURGE, service_id=shop)
    assert server.ask("POST", "/v1/purge", {"service": "shop"}, token=token).status == 200
    assert server.ask("POST", "/v1/purge", {"service": "blog"}, token=token).code == "forbidden"
    assert server.ask("POST", "/v1/purge", {}, token=token).code == "forbidden"


def test_the_audit_log_is_for_admins_and_read_page_by_page(server: ApiServer) -> None:
    for name in ("a", "b", "c"):
        server.ask("PUT", f"/v1/config-stores/{name}", headers={"x-request-id": f"req-{name}"})
    path = "/v1/audit?subject=stores/config/&limit=2"
    first = server.ask("GET", path).json
    assert [item["subject"] for item in first["items"]] == ["stores/config/c", "stores/config/b"]
    rest = server.ask("GET", f"{path}&after={first['next']}").json
    assert [item["subject"] for item in rest["items"]] == ["stores/config/a"]
    assert rest["next"] is None
    record = rest["items"][0]
    assert (record["action"], record["actor"]) == ("store.create", "tests")
    assert record["remote"].startswith("127.0.0.1")
    assert server.ask("GET", "/v1/audit?actor=nobody").json["items"] == []
    deployer = server.token(Scope.DEPLOY)
    assert server.ask("GET", "/v1/audit", token=deployer).code == "forbidden"
