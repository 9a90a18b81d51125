"""Deploying over HTTP to a running server: what serves, what is refused, what is not lost."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.support.deploys import BANNER, HELLO, call, deploy, program, said
from tests.support.server import DEADLINE, Server, config_of, server, service

pytestmark = pytest.mark.process

CONFIG = config_of(service("filed", HELLO), workers=2)
TRAPS = b"""(module (memory (export "memory") 1) (func (export "_start") unreachable))"""
HOST = "shop.localhost"


def states(running: Server) -> dict[str, tuple[int, str]]:
    return {s["name"]: (s["version"], s["state"]) for s in running.status()["services"]}


def test_what_is_deployed_serves_at_once_and_after_a_restart_under_the_same_number(
    tmp_path: Path,
) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        assert deploy(running, "shop", "one")["version"] == 1
        assert said(running, HOST) == "one"
        assert deploy(running, "shop", "two")["version"] == 2
        assert said(running, HOST) == "two"
        again = deploy(running, "shop", "two")
        assert (again["version"], again["unchanged"]) == (2, True)
        assert running.get()[:2] == (200, b"hello from wasm\n")
        assert running.stop() == 0
    with server(tmp_path, CONFIG, workers=2) as running:
        assert states(running) == {"filed": (1, "loaded"), "shop": (2, "loaded")}
        assert said(running, HOST) == "two"
        rolled = call(running, "POST", "/v1/services/shop/rollback")
        assert (rolled.status, rolled.json["version"]) == (200, 1)
        assert said(running, HOST) == "one"
        assert running.metric("edge_activations_total", reason="rollback") == 1
        assert running.metric("edge_catalogue_writes_total") > 0


def test_activating_a_version_that_is_compiled_takes_less_than_100_ms_on_all_workers(
    tmp_path: Path,
) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        for text in ("one", "two"):
            deploy(running, "shop", text)
        for number in (1, 2, 1, 2, 1):
            call(running, "POST", f"/v1/services/shop/versions/{number}/activate")
        running.stop()
        seconds = [
            line["fields"]["seconds"]
            for line in running.lines
            if line.get("message") == "activated"
        ]
        assert len(seconds) == 7
        assert sorted(seconds)[3] < 0.1, seconds


def test_what_cannot_be_served_is_refused_and_the_old_version_serves_on(tmp_path: Path) -> None:
    foreign = b"""(module (import "env" "missing" (func)) (memory (export "memory") 1)
        (func (export "_start")))"""
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        for module, code in (
            (foreign, "module_refused"),
            (b"\0asm\1\0\0\0", "module_refused"),
            (b"nothing of the kind", "package_invalid"),
        ):
            refused = call(running, "PUT", "/v1/services/shop?activate=true", module)
            assert refused.status == 422
            assert refused.json["code"] == code
        assert said(running, HOST) == "one"
        assert states(running)["shop"] == (1, "loaded")


def test_names_and_routes_of_others_are_not_taken(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        taken = call(running, "PUT", "/v1/services/filed?activate=true", program("mine"))
        assert (taken.status, taken.json["code"]) == (409, "owned_by_file")
        taken = call(
            running, "PUT", "/v1/services/shop?activate=true&domain=edge.test", program("mine")
        )
        assert (taken.status, taken.json["code"]) == (409, "route_conflict")
        assert "filed" in str(taken.json)
        deploy(running, "shop", "one", "activate=true&domain=a.test")
        taken = call(
            running, "PUT", "/v1/services/other?activate=true&domain=a.test", program("mine")
        )
        assert (taken.status, taken.json["code"]) == (409, "route_conflict")
        assert said(running, "a.test") == "one"
        assert running.get()[:2] == (200, b"hello from wasm\n")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (service("shop", HELLO, host="other.test"), "services.shop"),
        (service("other", HELLO, host=HOST), "services.other.routes[0]"),
    ],
)
def test_a_document_that_claims_what_is_deployed_is_refused_at_a_reload_and_at_a_start(
    tmp_path: Path, more: str, named: str
) -> None:
    claiming = config_of(service("filed", HELLO) + more, workers=2)
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        running.reload(claiming)
        line = running.wait_for("not reloaded")
        assert named in line["message"]
        assert "shop" in line["message"]
        assert said(running, HOST) == "one"
        running.stop()
    refused = Server(tmp_path, claiming)
    try:
        assert refused.finish() == 2
        assert refused.process.stderr is not None
        said_why = refused.process.stderr.read().decode()
        assert named in said_why
        assert "control API" in said_why
    finally:
        refused.close()


def test_a_reload_leaves_what_is_deployed_as_it_is(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        running.reload(config_of(service("other", HELLO, host="other.test"), workers=2))
        running.wait_for("reloaded")
        assert states(running) == {"other": (1, "loaded"), "shop": (1, "loaded")}
        assert said(running, HOST) == "one"
        assert running.get(host="other.test")[0] == 200


def test_a_service_that_is_deleted_answers_no_more_and_its_name_is_free(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        refused = call(running, "DELETE", "/v1/services/shop")
        assert (refused.status, refused.json["code"]) == (409, "version_active")
        assert call(running, "DELETE", "/v1/services/shop?force=true").status == 204
        assert running.get(host=HOST)[0] == 421
        assert deploy(running, "shop", "two")["version"] == 1
        assert said(running, HOST) == "two"


def test_a_version_that_is_deactivated_is_loaded_no_more(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        assert call(running, "POST", "/v1/services/shop/versions/1/deactivate").status == 204
        assert running.get(host=HOST)[0] == 421
        assert "shop" not in states(running)


def test_a_canary_that_breaks_is_taken_back_and_the_audit_log_says_by_whom(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        made = call(running, "PUT", "/v1/services/shop?activate=true&percent=99.99&"
                    "max_error_rate=0.1&min_requests=5", TRAPS)  # fmt: skip
        assert made.status == 201, made
        number = made.json["version"]
        broken = 0
        while broken < 5:
            broken += running.get(host=HOST)[0] == 500
        line = running.wait_for("canary rolled back")
        assert line["fields"] == {"service": "shop", "version": number, "active": 1}
        assert "ended in an error" in line["message"]
        assert said(running, HOST) == "one"
        record = call(running, "GET", "/v1/services/shop").json
        assert (record["active"], record["canary"]) == (1, None)
        newest = call(running, "GET", "/v1/audit?limit=1").json["items"][0]
        assert (newest["actor"], newest["action"]) == ("canary", "service.canary")
        assert running.metric("edge_canary_rollbacks_total", service="shop") == 1


def test_a_canary_is_watched_again_after_the_server_was_killed(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        query = "activate=true&percent=99.99&max_error_rate=0.1&min_requests=5"
        made = call(running, "PUT", f"/v1/services/shop?{query}", TRAPS)
        assert made.status == 201, made
        running.process.kill()
        running.process.wait()
    with server(tmp_path, CONFIG, workers=2) as running:
        while running.get(host=HOST)[0] == 500:
            pass
        running.wait_for("canary rolled back")
        assert said(running, HOST) == "one"


def test_a_canary_that_does_well_stays_until_it_gets_all_clients(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        deploy(running, "shop", "two", "activate=true&percent=99.99&min_requests=1")
        assert said(running, HOST) == "two"
        done = call(running, "POST", "/v1/services/shop/versions/2/activate", {"percent": 100})
        assert done.status == 200, done
        assert states(running)["shop"] == (2, "loaded")
        record = call(running, "GET", "/v1/services/shop").json
        assert (record["active"], record["canary"]) == (2, None)
        assert said(running, HOST) == "two"


def test_a_worker_that_dies_while_it_prepares_is_replaced_and_the_deploy_goes_on(
    tmp_path: Path,
) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        stopped, _ = running.worker_pids()
        os.kill(stopped, signal.SIGSTOP)  # asked to prepare, it says nothing, and is killed for it
        assert deploy(running, "shop", "two")["version"] == 2
        assert said(running, HOST) == "two"
        running.wait_for("starting another")
        running.wait_for("worker ready")
        for _ in range(10):
            assert said(running, HOST) == "two"


def test_a_running_service_sees_what_changes_in_its_stores_without_a_deploy(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        store = "/v1/config-stores/banners"
        assert call(running, "PUT", store).status == 201
        assert call(running, "PUT", f"{store}/items/banner", b"blue").status == 201
        assert call(running, "PUT", "/v1/services/shop", BANNER).status == 201
        linked = call(
            running, "PUT", "/v1/services/shop/versions/1/definition",
            {"config_stores": {"flags": "banners"}},
        )  # fmt: skip
        assert linked.status == 200, linked
        assert call(running, "POST", "/v1/services/shop/versions/1/activate").status == 200
        assert said(running, HOST) == "blue"
        for colour in ("green", "red"):
            call(running, "PUT", f"{store}/items/banner", colour.encode())
            while (now := said(running, HOST)) != colour:
                assert now in ("blue", "green")
        assert states(running)["shop"] == (1, "loaded")
        assert running.stop() == 0
    with server(tmp_path, CONFIG, workers=2) as running:
        assert said(running, HOST) == "red"


def test_a_full_disk_refuses_a_deploy_and_the_old_version_serves_on(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        deploy(running, "shop", "two")
        process = running.process.pid
        before = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, before[1]))  # no file grows any more
        refused = call(running, "PUT", "/v1/services/shop?activate=true", program("three"))
        assert (refused.status, refused.json["code"]) == (507, "storage")
        refused = call(running, "POST", "/v1/services/shop/versions/1/activate")
        assert (refused.status, refused.json["code"]) == (507, "storage")
        assert said(running, HOST) == "two"
        assert call(running, "GET", "/v1/services/shop").json["active"] == 2
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)
        assert call(running, "POST", "/v1/services/shop/versions/1/activate").status == 200
        assert said(running, HOST) == "one"
        assert deploy(running, "shop", "three")["active"] is True
        assert said(running, HOST) == "three"


def test_old_versions_go_with_their_packages(tmp_path: Path) -> None:
    few = config_of(service("filed", HELLO), workers=2, more="deploy: {keep_versions: 2}\n")
    with server(tmp_path, few, workers=2) as running:
        for number in range(6):
            deploy(running, "shop", f"number {number}")
        items = call(running, "GET", "/v1/services/shop/versions").json["items"]
        assert [item["version"] for item in items] == [5, 6]
        running.stop()
    with server(tmp_path, few, workers=2) as running:
        assert said(running, HOST) == "number 5"
        assert len(list((tmp_path / "var" / "packages").glob("??/*"))) == 2


def test_a_program_that_finds_no_room_is_refused_and_leaves_none_taken(tmp_path: Path) -> None:
    small = config_of(service("filed", HELLO), workers=1, more="deploy: {service_bytes: 3KiB}\n")
    with server(tmp_path, small, workers=1) as running:
        deploy(running, "shop", "one")
        large = program("two").replace(b"(memory", b'(data "%b") (memory' % (b"x" * 2000), 1)
        refused = call(running, "PUT", "/v1/services/shop?activate=true", large)
        assert refused.json["code"] == "quota"
        assert "deploy.service_bytes" in refused.json["detail"]
        assert said(running, HOST) == "one"
        running.wait_for("removed modules that no version has: 1")
        (left,) = (tmp_path / "var" / "packages").glob("??/*")
        shown = call(running, "GET", "/v1/services/shop/versions").json["items"]
        assert [item["package"]["sha256"] for item in shown] == [left.name]


def test_a_body_above_every_bound_is_refused_in_words_before_it_is_sent(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        token = (running.state_dir / "admin.token").read_text().strip()
        for path, code in (
            ("/v1/services/shop", "too_large"),
            ("/service/x/version/1/package", ""),
        ):
            with socket.create_connection(("127.0.0.1", running.admin_port), DEADLINE) as client:
                client.sendall(
                    f"PUT {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {1 << 40}\r\n"
                    f"authorization: Bearer {token}\r\nexpect: 100-continue\r\n\r\n".encode()
                )
                response = http.client.HTTPResponse(client)
                response.begin()
                found = json.loads(response.read())
            assert (response.status, found.get("code", "")) == (413, code), found
            assert "larger than" in found["detail"]


def test_a_call_under_way_is_told_that_the_server_stops(tmp_path: Path) -> None:
    """An upload that has not come to its end, and one that waits to be asked for its body."""
    with server(tmp_path, CONFIG, workers=2) as running:
        token = (running.state_dir / "admin.token").read_text().strip()
        head = (
            "PUT /v1/services/shop HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n"
            f"authorization: Bearer {token}\r\nexpect: 100-continue\r\n\r\n"
        )
        clients = [
            socket.create_connection(("127.0.0.1", running.admin_port), timeout=DEADLINE)
            for _ in range(2)
        ]
        for client in clients:
            client.sendall(head.encode())
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        clients[0].sendall(b"x" * 1000)
        assert running.stop() == 0
        for client in clients:
            with client:
                response = http.client.HTTPResponse(client)
                response.begin()
                assert response.status == 503
                assert json.loads(response.read())["code"] == "stopping"
