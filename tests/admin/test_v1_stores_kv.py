"""`/v1/kv/STORE/keys`: values by their key, with generations, metadata and an end in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest

from edge.admin.api import Route
from edge.admin.around import Around
from edge.admin.kv_calls import Held
from edge.admin.v1 import routes as v1_routes
from edge.errors import LimitExceeded
from edge.settings import MIB
from edge.stores.kv import KvLimits, identity_of, insertion_of
from edge.stores.kv_memory import MemoryKvEngine
from tests.support.api_server import ApiServer, api_server

KEYS = "/v1/kv/cart/keys"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        assert running.ask("PUT", "/v1/kv/cart").status == 201
        yield running


@pytest.mark.parametrize("key", ["k", "a/b", "ä b", "%", "k" * 1024])
def test_a_value_is_found_under_its_key(server: ApiServer, key: str) -> None:
    path = f"{KEYS}/{quote(key, safe='')}"
    stored = server.ask("PUT", f"{path}?metadata={quote('é=1')}", b"\x00value")
    assert (stored.status, stored.json["key"]) == (200, key), stored
    found = server.ask("GET", path)
    assert (found.status, found.body) == (200, b"\x00value")
    assert found.headers["etag"] == stored.headers["etag"] == f'"{stored.json["generation"]}"'
    assert unquote_to_bytes(found.headers["edge-metadata"]).decode() == "é=1"
    assert found.headers["content-type"] == "application/octet-stream"
    head = server.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert server.ask("GET", KEYS).json == {"items": [key], "next": None}
    assert server.ask("DELETE", path).status == 204
    assert server.ask("GET", path).code == "not_found"
    assert server.ask("DELETE", path).code == "not_found"


def test_programs_see_the_same_values(server: ApiServer) -> None:
    identity = identity_of("", "", server.ask("GET", "/v1/kv/cart").json["id"])
    server.ask("PUT", f"{KEYS}/k", b"value")

    async def look() -> bytes:
        found = server.around.kv.open(identity).lookup("k").result()
        assert found is not None
        server.around.kv.open(identity).insert("from inside", insertion_of(b"x"))
        return b"".join(found.pieces)

    assert server.run(look) == b"value"
    assert server.ask("GET", f"{KEYS}/from%20inside").body == b"x"


def test_long_values_are_sent_piece_by_piece_and_counted(server: ApiServer) -> None:
    value = bytes(range(256)) * (3 * MIB // 256)
    assert server.ask("PUT", f"{KEYS}/long", value).status == 200
    for _ in range(40):  # what is held for one is given back: 40 of them are more than fit
        assert server.ask("GET", f"{KEYS}/long").body == value
    assert server.ask("GET", "/v1/kv/cart").json["bytes"] > 3 * MIB


def test_a_generation_is_asked_for(server: ApiServer) -> None:
    wrong = {"if-match": '"17"'}
    assert server.ask("PUT", f"{KEYS}/k", b"1", headers=wrong).code == "precondition_failed"
    etag = server.ask("PUT", f"{KEYS}/k", b"1").headers["etag"]
    assert server.ask("PUT", f"{KEYS}/k", b"2", headers=wrong).code == "precondition_failed"
    odd = {"if-match": "seventeen"}
    assert server.ask("PUT", f"{KEYS}/k", b"2", headers=odd).code == "precondition_failed"
    newer = server.ask("PUT", f"{KEYS}/k", b"2", headers={"if-match": etag})
    assert newer.status == 200
    assert server.ask("DELETE", f"{KEYS}/k", headers={"if-match": etag}).code == (
        "precondition_failed"
    )
    right = {"if-match": newer.headers["etag"]}
    assert server.ask("DELETE", f"{KEYS}/k", headers=right).status == 204


def test_a_value_is_added_or_joined(server: ApiServer) -> None:
    assert server.ask("PUT", f"{KEYS}/k?mode=add", b"b").status == 200
    assert server.ask("PUT", f"{KEYS}/k?mode=add", b"x").code == "precondition_failed"
    only_new = {"if-none-match": "*"}
    assert server.ask("PUT", f"{KEYS}/k", b"x", headers=only_new).code == "precondition_failed"
    server.ask("PUT", f"{KEYS}/k?mode=append", b"c")
    server.ask("PUT", f"{KEYS}/k?mode=prepend", b"a")
    assert server.ask("GET", f"{KEYS}/k").body == b"abc"
    assert server.ask("PUT", f"{KEYS}/k?mode=eat", b"c").code == "invalid"


def test_a_time_to_live_of_nothing_is_over_at_once(server: ApiServer) -> None:
    server.ask("PUT", f"{KEYS}/k?ttl=0", b"v")
    assert server.ask("GET", f"{KEYS}/k").code == "not_found"
    server.ask("PUT", f"{KEYS}/k?ttl=1000", b"v")
    assert server.ask("GET", f"{KEYS}/k").body == b"v"
    assert server.ask("PUT", f"{KEYS}/k?ttl=soon", b"v").code == "invalid"
    assert server.ask("PUT", f"{KEYS}/k?ttl=-1", b"v").code == "invalid"


def test_keys_are_listed_by_prefix_and_page(server: ApiServer) -> None:
    for key in ("a/1", "a/2", "a/3", "b"):
        server.ask("PUT", f"{KEYS}/{quote(key, safe='')}", b"")
    first = server.ask("GET", f"{KEYS}?prefix=a/&limit=2").json
    assert first == {"items": ["a/1", "a/2"], "next": "a/2"}
    rest = server.ask("GET", f"{KEYS}?prefix=a/&limit=2&after={quote(first['next'])}").json
    assert rest == {"items": ["a/3"], "next": None}


def test_what_no_store_takes_is_refused(server: ApiServer) -> None:
    assert server.ask("PUT", f"{KEYS}/a%23b", b"").code == "invalid"
    assert server.ask("GET", f"{KEYS}/a%23b").code == "invalid"
    assert server.ask("PUT", f"{KEYS}/k?metadata={'m' * 2001}", b"").code == "invalid"
    assert server.ask("PUT", f"{KEYS}/k?metadata={quote('é' * 1001)}", b"").code == "invalid"
    assert server.ask("PUT", "/v1/kv/none/keys/k", b"").code == "not_found"
    assert server.ask("GET", KEYS).json["items"] == []


def test_what_is_too_large_or_finds_no_room_is_refused(tmp_path: Path) -> None:
    def routes(around: Around) -> list[Route]:
        storage = replace(around.settings.storage, kv_value_bytes=1000)
        kv = MemoryKvEngine(KvLimits(1000, 2500, 4000), around.clock)
        return v1_routes(replace(around, kv=kv, settings=replace(around.settings, storage=storage)))

    with api_server(tmp_path, make_routes=routes) as server:
        server.ask("PUT", "/v1/kv/cart")
        server.ask("PUT", "/v1/kv/other")
        assert server.ask("PUT", f"{KEYS}/k", b"v" * 1001).code == "too_large"
        assert server.ask("PUT", f"{KEYS}/1", b"v" * 1000).status == 200
        assert server.ask("PUT", f"{KEYS}/1?mode=append", b"v").code == "too_large"
        assert server.ask("PUT", f"{KEYS}/2", b"v" * 1000).status == 200
        assert server.ask("PUT", f"{KEYS}/3", b"v" * 1000).code == "quota"
        assert server.ask("PUT", "/v1/kv/other/keys/1", b"v" * 1000).status == 200
        total = server.ask("PUT", "/v1/kv/other/keys/2", b"v" * 1000)
        assert (total.code, "kv_total_bytes" in total.json["detail"]) == ("quota", True)


def test_values_on_their_way_are_bounded() -> None:
    held = Held(10)
    held.charge(10)
    with pytest.raises(LimitExceeded):
        held.charge(1)
    held.release(10)
    held.charge(1)
