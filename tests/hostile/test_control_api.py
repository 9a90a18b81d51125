"""Clients of the control API who mean harm: what their tokens reach, and whom they starve."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.admin import calls, fastly, v1
from edge.admin.api import Route
from edge.admin.around import Around
from edge.admin.control import FileService
from edge.admin.incoming import Held
from edge.catalogue import parts, services, stores, versions
from edge.catalogue.database import STARTUP, Transaction
from edge.catalogue.records import Package, PartKind, Scope, StoreKind
from edge.catalogue.tidy import Tidier
from edge.errors import ApiRefused, Refusal
from tests.support.api_server import ApiServer, api_server

# What tells nobody anything of others: lists of what is its own, the token itself, constants.
HARMLESS = {
    "/v1/services", "/v1/whoami", "/v1/openapi.json", "/v1/acls", "/v1/config-stores", "/v1/kv",
    "/v1/secret-stores", "/service", "/verify", "/tokens/self", "/resources/acls",
    "/resources/stores/config", "/resources/stores/kv", "/resources/stores/secret",
    "/resources/stores/secret/client-key", "/resources/stores/secret/signing-key",
    "/stats/regions", "/purge/{url...}", "/.well-known/openid-configuration",
    "/realms/fastly/.well-known/openid-configuration",
}  # fmt: skip
REFUSED = (403, 404, 409, 422)
MARK = "victims-own-words"


def every_route(around: Around) -> list[Route]:
    return [*v1.routes(around), *fastly.routes(around)]


@contextmanager
def both_apis(folder: Path) -> Iterator[ApiServer]:
    with api_server(folder, make_routes=every_route) as api:
        yield api


def make_service(api: ApiServer, name: str) -> str:
    """The id of a service whose every text is `MARK`, with a store of each kind of its own."""

    def work(tx: Transaction) -> str:
        made = services.create(tx, name, MARK)
        versions.create(tx, made.id, comment=MARK)
        parts.add(tx, made.id, 1, PartKind.BACKEND, MARK, {"url": f"https://{MARK}.test"})
        for kind in (StoreKind.CONFIG, StoreKind.SECRET, StoreKind.KV, StoreKind.ACL):
            stores.create(tx, kind, f"{MARK}-{kind.value}", owner=made.id)
        return made.id

    return api.run(lambda: api.around.catalogue.write(STARTUP, work))


def filled(route: Route, service: str) -> str:
    """The path with things of the victim's wherever it has names."""
    kind = re.search(r"config|secret|kv|acl", route.pattern)
    path = route.pattern.replace("{service}", service).replace("{number}", "1")
    path = path.replace("{store}", f"{MARK}-{kind[0] if kind else 'kv'}")
    return re.sub(r"\{[^}]*\}", MARK, path)


def test_a_token_of_one_service_gets_and_changes_nothing_of_another(tmp_path: Path) -> None:
    with both_apis(tmp_path) as api:
        victim = make_service(api, "victim")
        intruder = api.run(
            lambda: api.around.catalogue.write(STARTUP, lambda tx: services.create(tx, "intruder"))
        )
        tokens = [api.token(scope, service_id=intruder.id) for scope in Scope]
        before = api.ask("GET", "/v1/audit?limit=1").json["items"][0]["id"]
        for route in api.calls.routes:
            own = route.pattern == "/tokens/self"
            for token in () if own and route.method == "DELETE" else tokens:
                for name in ("victim", victim) if route.service else (victim,):
                    body: object = None if route.method == "GET" else {}
                    found = api.ask(route.method, filled(route, name), body, token=token)
                    told = f"{route.method} {route.pattern}: {found}"
                    assert found.status in REFUSED or route.pattern in HARMLESS, told
                    if found.status < 300:
                        assert MARK.encode() not in found.body, told
        items = api.ask("GET", "/v1/audit?limit=1000").json["items"]
        changes = [item for item in items if item["id"] > before]
        assert all(MARK not in json.dumps(item) for item in changes if "victim" in item["subject"])
        assert api.ask("GET", f"/service/{victim}").json["name"] == "victim"


def test_a_token_of_a_service_is_not_one_of_a_service_of_the_file_that_took_its_name(
    tmp_path: Path,
) -> None:
    with both_apis(tmp_path) as api:
        mine = make_service(api, "shop")
        token = api.token(*Scope, service_id=mine)
        assert api.ask("GET", "/v1/services/shop", token=token).status == 200
        api.control.files = (FileService("shop", 1, "00", "ok", "", ("shop.test/",)),)
        for path in ("/v1/services/shop", "/v1/services/shop/stats", "/v1/services/shop/logs"):
            assert api.ask("GET", path, token=token).status == 403, path
        assert api.ask("POST", "/v1/services/shop/versions/1/invoke", {}, token=token).status == 403


def activate(tx: Transaction, service: str) -> None:
    versions.set_package(tx, service, 1, Package("0" * 64, 1))
    services.set_active(tx, service, 1, reason="activate")


def test_a_rename_that_workers_refuse_is_no_rename_in_either_api(tmp_path: Path) -> None:
    """A name is a route as well: it would be taken from its owner at the next start."""
    with both_apis(tmp_path) as api:
        served = make_service(api, "served")
        api.run(lambda: api.around.catalogue.write(STARTUP, lambda tx: activate(tx, served)))
        api.control.failing = "another service has a route of bank"
        for method, path in (("PUT", f"/service/{served}"), ("PATCH", f"/v1/services/{served}")):
            assert api.ask(method, path, {"name": "bank"}).status == 422
            assert api.ask("GET", f"/service/{served}").json["name"] == "served"


def test_a_token_of_a_service_that_was_deleted_is_refused_at_once(tmp_path: Path) -> None:
    with both_apis(tmp_path) as api:
        for path in ("/service/{}", "/v1/services/{}"):
            gone = make_service(api, "gone")
            token = api.token(Scope.READ, service_id=gone)
            assert api.ask("GET", "/v1/whoami", token=token).status == 200
            assert api.ask("DELETE", path.format(gone)).status in (200, 204)
            assert api.ask("GET", "/v1/whoami", token=token).status == 401


def test_one_service_does_not_take_all_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS_OF_ONE", 3)
    with both_apis(tmp_path) as api, ExitStack() as opened:
        hog = make_service(api, "hog")
        token = api.token(Scope.DEPLOY, service_id=hog)
        for _ in range(3):  # uploads that say much and send nothing
            stalled = opened.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            stalled.sendall(
                b"PUT /v1/services/hog HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9999\r\n"
                b"expect: 100-continue\r\nauthorization: Bearer %b\r\n\r\n" % token.encode()
            )
            assert stalled.recv(4096).startswith(b"HTTP/1.1 100")  # it is under way
        found = api.ask("GET", "/v1/services/hog", token=token)
        assert (found.status, found.code) == (503, "busy")
        assert api.ask("GET", "/v1/services/hog").status == 200
        other = api.token(Scope.READ, service_id=make_other(api))
        assert api.ask("GET", "/v1/services/other", token=other).status == 200


def make_other(api: ApiServer) -> str:
    return api.run(
        lambda: api.around.catalogue.write(STARTUP, lambda tx: services.create(tx, "other"))
    ).id


def test_a_large_read_of_one_keeps_nobody_from_signing_in(tmp_path: Path) -> None:
    go, begun = threading.Event(), threading.Event()

    def large(tx: Transaction) -> None:
        begun.set()
        assert go.wait(60)

    with both_apis(tmp_path) as api:
        token = api.token(Scope.READ)
        reading = asyncio.run_coroutine_threadsafe(api.around.catalogue.read(large), api.loop)
        try:
            assert begun.wait(30)
            assert api.ask("GET", "/v1/whoami", token=token).status == 200
            assert api.ask("GET", "/v1/whoami", token="edge_" + "0" * 40).status == 401
            assert not reading.done()
        finally:
            go.set()
            reading.result(30)


def test_programs_that_find_no_room_are_refused_and_leave_nothing_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[bool] = []
    set_package = versions.set_package

    def impatient(tx: Transaction, service: str, number: int, package: Package, **more: Any) -> Any:
        removed.append(api.around.packages.remove(package.sha256, since=1 << 62))
        return set_package(tx, service, number, package, **more)

    with both_apis(tmp_path) as api:
        first = api.ask("PUT", "/v1/services/hog?activate=true", b"(module)").json
        monkeypatch.setattr(versions, "set_package", impatient)
        catalogue = api.around.catalogue
        catalogue.limits = replace(catalogue.limits, service_bytes=first["size"])
        api.ask("POST", "/v1/services/hog/versions", {})
        form = {"content-type": "multipart/form-data; boundary=x"}
        head = b'--x\r\ncontent-disposition: form-data; name="package"\r\n\r\n'
        for n, (method, path, fields) in enumerate(
            [
                ("PUT", "/v1/services/hog", {}),
                ("POST", "/v1/services/hog/versions", {}),
                ("PUT", "/v1/services/hog/versions/2/package", {}),
                ("PUT", f"/service/{first['id']}/version/2/package", form),
            ]
        ):
            body = b"(module (memory %d))" % n
            answer = api.ask(
                method, path, head + body + b"\r\n--x--\r\n" if fields else body, headers=fields
            )
            assert answer.status == 422, answer
            assert b"deploy.service_bytes" in answer.body
        assert removed == [False] * 4  # while it was to get a version
        assert len(list((tmp_path / "packages").glob("*/*"))) == 5
        api.run(Tidier(catalogue, api.around.packages).tidy)
        (left,) = (tmp_path / "packages").glob("*/*")
        assert left.name == first["sha256"]


def test_one_service_holds_half_of_all_bodies_at_most() -> None:
    held = Held(100)
    held.take(30, "hog")
    held.take(20, "hog")
    with pytest.raises(ApiRefused) as caught:
        held.take(1, "hog")
    assert caught.value.refusal is Refusal.BUSY
    held.take(50, "other")
    held.give(50, "other")
    held.give(30, "hog")
    held.take(30, "hog")
    held.give(50, "hog")
    assert held.now == 0


def test_what_was_sent_in_place_of_a_text_is_not_quoted(tmp_path: Path) -> None:
    with both_apis(tmp_path) as api:
        path = f"/service/{make_service(api, 'shop')}/version/1/backend"
        fields = {"name": "o", "address": "o.test", "ssl_client_key": ["-----BEGIN hush"]}
        found = api.ask("POST", path, fields)
        assert found.status == 422
        assert b"ssl_client_key" in found.body
        assert b"hush" not in found.body


def test_a_token_that_never_ends_in_any_calendar_is_refused(tmp_path: Path) -> None:
    with both_apis(tmp_path) as api:
        late = {"name": "late", "scope": "global", "expires_at": "9999-12-31T23:59:59-23:00"}
        assert api.ask("POST", "/tokens", late).status == 422
        assert api.ask("GET", "/tokens").status == 200
        assert api.ask("GET", "/v1/tokens").status == 200
