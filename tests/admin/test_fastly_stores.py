"""Fastly's endpoints for stores, as no CLI would call them: strangers, nonsense, other pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from nacl.public import PublicKey, SealedBox
from nacl.signing import VerifyKey

from edge.admin.fastly import routes
from edge.admin.fastly.client_keys import PERIOD_SECONDS, ClientKeys
from edge.admin.fastly.kv_stores import MAX_LINE, MAX_LINES
from edge.catalogue import services, stores, versions
from edge.catalogue.database import STARTUP, Transaction
from edge.catalogue.records import Scope, StoreKind
from edge.errors import ApiRefused
from tests.support.api_server import Answer, ApiServer, api_server
from tests.support.clock import SteppedClock

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path, make_routes=routes) as running:
        yield running


def form(server: ApiServer, method: str, path: str, **fields: str) -> Answer:
    return server.ask(method, path, urlencode(fields).encode(), headers=FORM)


def make_service(server: ApiServer, name: str = "shop") -> str:
    """The id of a service with a version 1."""

    def work(tx: Transaction) -> str:
        service = services.create(tx, name).id
        versions.create(tx, service)
        return service

    return server.run(lambda: server.around.catalogue.write(STARTUP, work))


def make_store(server: ApiServer, kind: StoreKind, name: str, owner: str = "") -> str:
    return server.run(
        lambda: server.around.catalogue.write(
            STARTUP, lambda tx: stores.create(tx, kind, name, owner=owner)
        )
    ).id


def refusal(answer: Answer) -> tuple[int, str]:
    """In Fastly's shape, which its clients print."""
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    assert set(found) == {"msg", "detail"}
    return answer.status, found["detail"]


# What only one service may see ----------------------------------------------------------------


def test_stores_of_another_service_are_out_of_reach(server: ApiServer) -> None:
    shop, blog = make_service(server), make_service(server, "blog")
    theirs = server.token(Scope.READ, Scope.DEPLOY, service_id=blog)
    ids = {
        kind: make_store(server, kind, "s", shop)
        for kind in (StoreKind.CONFIG, StoreKind.KV, StoreKind.SECRET, StoreKind.ACL)
    }
    config, kv = f"/resources/stores/config/{ids[StoreKind.CONFIG]}", ids[StoreKind.KV]
    secret, acl = f"/resources/stores/secret/{ids[StoreKind.SECRET]}", ids[StoreKind.ACL]
    secret_body = {"name": "n", "secret": "eA=="}
    for method, path, body in (
        ("GET", config, None),
        ("PUT", config, {"name": "x"}),
        ("DELETE", config, None),
        ("GET", f"{config}/info", None),
        ("GET", f"{config}/services", None),
        ("GET", f"{config}/items", None),
        ("PATCH", f"{config}/items", {"items": []}),
        ("POST", f"{config}/item", {"item_key": "k", "item_value": "v"}),
        ("GET", f"{config}/item/k", None),
        ("PUT", f"{config}/item/k", {"item_value": "v"}),
        ("PATCH", f"{config}/item/k", {"item_value": "v"}),
        ("DELETE", f"{config}/item/k", None),
        ("GET", f"/resources/stores/kv/{kv}", None),
        ("PUT", f"/resources/stores/kv/{kv}", {"name": "x"}),
        ("DELETE", f"/resources/stores/kv/{kv}", None),
        ("GET", f"/resources/stores/kv/{kv}/keys", None),
        ("GET", f"/resources/stores/kv/{kv}/keys/k", None),
        ("PUT", f"/resources/stores/kv/{kv}/keys/k", b"v"),
        ("DELETE", f"/resources/stores/kv/{kv}/keys/k", None),
        ("PUT", f"/resources/stores/kv/{kv}/batch", b'{"key":"k","value":""}'),
        ("GET", secret, None),
        ("DELETE", secret, None),
        ("GET", f"{secret}/secrets", None),
        ("POST", f"{secret}/secrets", secret_body),
        ("PUT", f"{secret}/secrets", secret_body),
        ("PATCH", f"{secret}/secrets", secret_body),
        ("GET", f"{secret}/secrets/n", None),
        ("DELETE", f"{secret}/secrets/n", None),
        ("GET", f"/resources/acls/{acl}", None),
        ("DELETE", f"/resources/acls/{acl}", None),
        ("GET", f"/resources/acls/{acl}/entries", None),
        ("PATCH", f"/resources/acls/{acl}/entries", {"entries": []}),
        ("GET", f"/resources/acls/{acl}/entry/192.0.2.1", None),
        ("POST", f"/service/{blog}/version/1/resource", {"resource_id": kv}),
    ):
        answer = server.ask(method, path, body, token=theirs)
        assert refusal(answer)[0] == 404, (method, path, answer)
    for path in ("stores/config", "stores/kv", "stores/secret", "acls"):
        found = server.ask("GET", f"/resources/{path}", token=theirs).json
        assert (found if isinstance(found, list) else found["data"]) == []
    assert server.control.changed_stores == []


def test_dictionaries_of_another_service_are_out_of_reach(server: ApiServer) -> None:
    shop, blog = make_service(server), make_service(server, "blog")
    made = form(server, "POST", f"/service/{shop}/version/1/dictionary", name="d").json["id"]
    acl = form(server, "POST", f"/service/{shop}/version/1/acl", name="a").json["id"]
    theirs = server.token(Scope.READ, Scope.DEPLOY, service_id=blog)
    for path in (f"dictionary/{made}/items", f"acl/{acl}/entries"):
        assert server.ask("GET", f"/service/{shop}/{path}", token=theirs).status == 403
        assert server.ask("GET", f"/service/{blog}/{path}", token=theirs).status == 404
        assert server.ask("GET", f"/service/{shop}/{path}").status == 200


def test_a_token_of_a_service_links_its_own_stores_only(server: ApiServer) -> None:
    shop, blog = make_service(server), make_service(server, "blog")
    ours = server.token(Scope.READ, Scope.DEPLOY, service_id=shop)
    path = f"/service/{shop}/version/1/resource"
    for owner, status, status_of_all in (("", 404, 200), (shop, 200, 200), (blog, 404, 404)):
        store = make_store(server, StoreKind.SECRET, f"s-{owner}", owner)
        fields = {"resource_id": store, "name": f"l-{owner}"}
        assert server.ask("POST", path, fields, token=ours).status == status
        fields["name"] = f"m-{owner}"
        assert server.ask("POST", path, fields).status == status_of_all


def test_what_is_behind_a_dictionary_cannot_be_linked(server: ApiServer) -> None:
    shop = make_service(server)
    made = form(server, "POST", f"/service/{shop}/version/1/dictionary", name="d").json["id"]
    answer = form(server, "POST", f"/service/{shop}/version/1/resource", resource_id=made)
    assert refusal(answer)[0] == 404


# Nonsense -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items": {}}',
        b'{"items": [1]}',
        b'{"items": [{"op": "upsert"}]}',
        b'{"items": [{"op": 1, "item_key": "k"}]}',
        b'{"items": [{"op": "eat", "item_key": "k", "item_value": "v"}]}',
        b'{"items": [{"op": "upsert", "item_key": "k", "item_value": "\\ud800"}]}',
        b'{"items": [{"op": "upsert", "item_key": "\\ud800", "item_value": "v"}]}',
        b"\xff",
        b"[" * 100_000,
        json.dumps(
            {"items": [{"op": "upsert", "item_key": "k", "item_value": ""}] * 1001}
        ).encode(),
    ],
    ids=range(13),
)
def test_a_batch_that_is_none_changes_nothing(server: ApiServer, body: bytes) -> None:
    store = make_store(server, StoreKind.CONFIG, "c")
    shop = make_service(server)
    made = form(server, "POST", f"/service/{shop}/version/1/dictionary", name="d").json["id"]
    for path in (
        f"/resources/stores/config/{store}/items",
        f"/service/{shop}/dictionary/{made}/items",
    ):
        answer = server.ask("PATCH", path, body)
        assert 400 <= refusal(answer)[0] < 500
        assert server.ask("GET", path).json == []
    for path in (f"/resources/acls/{make_store(server, StoreKind.ACL, 'a')}/entries",):
        assert (
            400 <= refusal(server.ask("PATCH", path, body.replace(b"items", b"entries")))[0] < 500
        )
    assert server.control.changed_stores == []


def test_half_a_character_is_refused_as_the_value_of_an_item(server: ApiServer) -> None:
    store, shop = make_store(server, StoreKind.CONFIG, "c"), make_service(server)
    made = form(server, "POST", f"/service/{shop}/version/1/dictionary", name="d").json["id"]
    body, headers = (
        b'{"item_key": "k", "item_value": "\\ud800"}',
        {"content-type": "application/json"},
    )
    for path in (
        f"/resources/stores/config/{store}/item",
        f"/service/{shop}/dictionary/{made}/item",
    ):
        for method, below in (("POST", ""), ("PUT", "/k"), ("PATCH", "/k")):
            answer = server.ask(method, path + below, body, headers=headers)
            assert refusal(answer)[1] == "a text is not Unicode"
    assert server.control.changed_stores == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"key": 1, "value": ""}', "needs the texts"),
        (b'{"key": "k", "value": "?"}', "not base64"),
        (b'{"key": "\\ud800", "value": ""}', "Unicode"),
        (b'{"key": "a#b", "value": ""}', "none of"),
        (b'{"key": "k", "value": "", "time_to_live_sec": "soon"}', "whole number"),
        (b'{"key": "k", "value": "", "time_to_live_sec": 99999999999}', "whole number"),
        (b'{"key": "k", "value": "", "metadata": "' + b"m" * 2001 + b'"}', "metadata"),
        (b"[" * 100_000, "not JSON"),
        (b'{"key": "k", "value": "' + b"A" * MAX_LINE + b'"}', "alone"),
    ],
    ids=range(11),
)
def test_lines_that_cannot_be_stored_are_told_by_their_number(
    server: ApiServer, line: bytes, said: str
) -> None:
    store = make_store(server, StoreKind.KV, "kv")
    body = b'{"key":"a","value":"MQ=="}\n\n' + line + b'\n{"key":"b","value":"Mg=="}'
    status, detail = refusal(server.ask("PUT", f"/resources/stores/kv/{store}/batch", body))
    assert (status, "line 3" in detail, said in detail) == (422, True, True), detail
    keys = server.ask("GET", f"/resources/stores/kv/{store}/keys").json
    assert keys == {"data": ["a", "b"], "meta": {"limit": 100}}


def test_headers_that_make_no_sense_are_refused(server: ApiServer) -> None:
    store = make_store(server, StoreKind.KV, "kv")
    path = f"/resources/stores/kv/{store}/keys/k"
    for headers in (
        {"if-generation-match": "x"},
        {"if-generation-match": "9" * 30},
        {"time_to_live_sec": "-1"},
        {"time_to_live_sec": "9999999999"},
        {"metadata": "\xff"},
        {"metadata": "m" * 2001},
    ):
        assert refusal(server.ask("PUT", path, b"v", headers=headers))[0] == 422, headers
    both = server.ask("PUT", f"{path}?add=true&append=true", b"v")
    assert refusal(both)[0] == 422
    assert server.ask("GET", path).status == 404
    assert server.ask("PUT", path, b"v", headers={"time_to_live_sec": "0"}).status == 200
    assert server.ask("GET", path).status == 404


def test_metadata_that_no_field_can_hold_do_not_break_the_answer(server: ApiServer) -> None:
    store = make_store(server, StoreKind.KV, "kv")
    line = json.dumps({"key": "k", "value": "", "metadata": "a\r\nset-cookie: b\0"}).encode()
    server.ask("PUT", f"/resources/stores/kv/{store}/batch", line)
    found = server.ask("GET", f"/resources/stores/kv/{store}/keys/k")
    assert found.headers["metadata"] == "a??set-cookie: b?"
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "limit=-1"])
def test_a_limit_that_is_none_is_refused(server: ApiServer, query: str) -> None:
    store = make_store(server, StoreKind.KV, "kv")
    secret = make_store(server, StoreKind.SECRET, "s")
    for path in ("kv", f"kv/{store}/keys", "secret", f"secret/{secret}/secrets"):
        assert refusal(server.ask("GET", f"/resources/stores/{path}?{query}"))[0] == 422
    cursor = server.ask("GET", f"/resources/stores/kv/{store}/keys?cursor=%00%ff")
    assert cursor.status == 400
    assert refusal(server.ask("GET", f"/resources/stores/kv/{store}/keys?cursor=!"))[0] == 422


# Pages ----------------------------------------------------------------------------------------


def test_stores_and_secrets_are_listed_by_cursor(server: ApiServer) -> None:
    secret = make_store(server, StoreKind.SECRET, "s")
    for number in range(5):
        make_store(server, StoreKind.KV, f"s{number}")
        body = {"name": f"s{number}", "secret": "eA=="}
        server.ask("POST", f"/resources/stores/secret/{secret}/secrets", body)
    for path in ("kv", f"secret/{secret}/secrets"):
        seen, cursor = [], ""
        while True:
            page = server.ask("GET", f"/resources/stores/{path}?limit=2&cursor={cursor}").json
            seen += [one["name"] for one in page["data"]]
            cursor = page["meta"].get("next_cursor", "")
            if not cursor:
                break
        assert seen == [f"s{number}" for number in range(5)]
    found = server.ask("GET", "/resources/stores/kv?name=s3").json["data"]
    assert [one["name"] for one in found] == ["s3"]


def test_a_long_list_of_items_comes_whole(server: ApiServer) -> None:
    path = f"/resources/stores/config/{make_store(server, StoreKind.CONFIG, 'c')}/items"
    wanted = {f"k{number:03}": "é" * 8000 for number in range(200)}
    items = [{"op": "create", "item_key": key, "item_value": wanted[key]} for key in wanted]
    assert server.ask("PATCH", path, {"items": items}).json == {"status": "ok"}
    found = server.ask("GET", path).json
    assert {one["item_key"]: one["item_value"] for one in found} == wanted


def test_items_are_listed_by_page_with_links(server: ApiServer) -> None:
    shop = make_service(server)
    made = form(server, "POST", f"/service/{shop}/version/1/dictionary", name="d").json["id"]
    path = f"/service/{shop}/dictionary/{made}"
    for number in range(5):
        form(server, "POST", f"{path}/item", item_key=f"k{number}", item_value="v")
    page = server.ask("GET", f"{path}/items?page=2&per_page=2")
    assert [one["item_key"] for one in page.json] == ["k2", "k3"]
    assert 'rel="next"' in page.headers["link"]
    last = server.ask("GET", f"{path}/items?page=3&per_page=2")
    assert ([one["item_key"] for one in last.json], "link" in last.headers) == (["k4"], False)


# Dictionaries and versions --------------------------------------------------------------------


def clone(server: ApiServer, service: str) -> int:
    return server.run(
        lambda: server.around.catalogue.write(
            STARTUP, lambda tx: versions.create(tx, service, clone_of=1)
        )
    ).number


def owned(server: ApiServer, service: str) -> list[str]:
    return server.run(
        lambda: server.around.catalogue.read(
            lambda tx: [store.name for store in stores.owned(tx, service)]
        )
    )


@pytest.mark.parametrize("kind", ["dictionary", "acl"])
def test_versions_share_what_they_declare_until_the_last(server: ApiServer, kind: str) -> None:
    shop = make_service(server)
    path = f"/service/{shop}/version/{{}}/{kind}"
    made = form(server, "POST", path.format(1), name="d").json["id"]
    second = clone(server, shop)
    assert server.ask("GET", f"{path.format(second)}/d").json["id"] == made
    assert server.ask("DELETE", f"{path.format(second)}/d").json == {"status": "ok"}
    assert owned(server, shop) == ["d"]
    # The same name again is another thing, with contents of its own.
    other = form(server, "POST", path.format(second), name="d").json
    assert (other["name"], other["id"] == made, other["version"]) == ("d", False, second)
    assert server.ask("GET", f"{path.format(1)}/d").json["id"] == made
    for number in (1, second):
        server.ask("DELETE", f"{path.format(number)}/d")
    assert owned(server, shop) == []


def test_a_locked_version_declares_nothing_new_but_its_items_change(server: ApiServer) -> None:
    shop = make_service(server)
    path = f"/service/{shop}/version/1/dictionary"
    made = form(server, "POST", path, name="d").json["id"]
    server.run(
        lambda: server.around.catalogue.write(STARTUP, lambda tx: versions.lock(tx, shop, 1))
    )
    assert refusal(form(server, "POST", path, name="e"))[0] == 422
    assert refusal(form(server, "PUT", f"{path}/d", name="e"))[0] == 422
    assert refusal(server.ask("DELETE", f"{path}/d"))[0] == 422
    assert owned(server, shop) == ["d"]
    item = form(server, "POST", f"/service/{shop}/dictionary/{made}/item", item_key="k")
    assert (item.status, item.json["item_value"]) == (200, "")
    assert server.control.changed_stores == [made]


def test_what_a_dictionary_says_of_itself_changes_with_its_items(server: ApiServer) -> None:
    shop = make_service(server)
    path = f"/service/{shop}/version/1/dictionary"
    made = form(server, "POST", path, name="d").json["id"]
    empty = server.ask("GET", f"{path}/{made}/info").json
    form(server, "POST", f"/service/{shop}/dictionary/{made}/item", item_key="k", item_value="v")
    one = server.ask("GET", f"{path}/{made}/info").json
    assert (empty["item_count"], one["item_count"]) == (0, 1)
    assert one["digest"] != empty["digest"]


# Entries of a service's ACL -------------------------------------------------------------------


def test_an_entry_keeps_what_a_change_does_not_name(server: ApiServer) -> None:
    shop = make_service(server)
    acl = form(server, "POST", f"/service/{shop}/version/1/acl", name="a").json["id"]
    path = f"/service/{shop}/acl/{acl}"
    made = form(server, "POST", f"{path}/entry", ip="10.1.2.3", subnet="8", comment="lab").json
    assert (made["ip"], made["subnet"], made["negated"]) == ("10.0.0.0", 8, "0")
    one = f"{path}/entry/{made['id']}"
    changed = form(server, "PATCH", one, negated="1").json
    assert (changed["comment"], changed["negated"], changed["id"]) == ("lab", "1", made["id"])
    moved = form(server, "PATCH", one, ip="172.16.0.0").json
    assert (moved["ip"], moved["subnet"], moved["comment"]) == ("172.0.0.0", 8, "lab")
    assert len(server.ask("GET", f"{path}/entries").json) == 1
    for wrong in ({}, {"ip": "nonsense"}, {"ip": "10.0.0.0", "subnet": "33"}):
        answer = form(server, "POST", f"{path}/entry", **wrong)
        assert refusal(answer)[0] == 422, wrong


# Client keys ----------------------------------------------------------------------------------


def sealed(key: dict[str, Any], value: bytes) -> str:
    box = SealedBox(PublicKey(base64.b64decode(key["public_key"])))
    return base64.b64encode(box.encrypt(value)).decode()


def test_a_client_key_is_signed_and_opens_what_was_sealed_to_it(server: ApiServer) -> None:
    secret = make_store(server, StoreKind.SECRET, "s")
    key = server.ask("POST", "/resources/stores/secret/client-key").json
    signing = server.ask("GET", "/resources/stores/secret/signing-key").json["signing_key"]
    public = base64.b64decode(key["public_key"])
    VerifyKey(base64.b64decode(signing)).verify(public, base64.b64decode(key["signature"]))
    path = f"/resources/stores/secret/{secret}/secrets"
    body = {"name": "n", "secret": sealed(key, b"x"), "client_key": key["public_key"]}
    assert server.ask("POST", path, body).status == 200
    plain = base64.b64encode(b"not sealed, and secret").decode()
    status, detail = refusal(server.ask("PUT", path, {**body, "secret": plain}))
    assert (status, "not sealed, and" in detail, plain in detail) == (422, False, False)
    stranger = base64.b64encode(bytes(32)).decode()
    assert refusal(server.ask("PUT", path, {**body, "client_key": stranger}))[0] == 422
    assert refusal(server.ask("PUT", path, {**body, "secret": "?"}))[0] == 422


def test_client_keys_change_and_open_for_as_long_again() -> None:
    clock = SteppedClock()
    keys = ClientKeys(clock)
    first = keys.current()
    box = SealedBox(PublicKey(first.public)).encrypt(b"x")
    assert keys.current() is first
    clock.advance(PERIOD_SECONDS)
    second = keys.current()
    assert second is not first
    assert keys.open(first.public, box) == b"x"
    clock.advance(PERIOD_SECONDS)
    with pytest.raises(ApiRefused):
        keys.open(first.public, box)
    keys.current()
    assert keys.open(second.public, SealedBox(PublicKey(second.public)).encrypt(b"y")) == b"y"


def test_no_key_is_shown_where_keys_are_printed() -> None:
    key = ClientKeys(SteppedClock()).current()
    assert "private" not in repr(key)


def test_a_batch_of_endless_empty_lines_is_refused_before_they_are_read(server: ApiServer) -> None:
    store = make_store(server, StoreKind.KV, "sessions")
    body = b"\n" * (MAX_LINES + 1)
    status, detail = refusal(server.ask("PUT", f"/resources/stores/kv/{store}/batch", body))
    assert status == 422
    assert str(MAX_LINES) in detail
