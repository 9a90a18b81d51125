"""Watching a real server: lines as they are written, requests off the public port, numbers."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploys import HELLO, call, deploy, said
from tests.support.server import DEADLINE, Server, config_of, server, service

pytestmark = pytest.mark.process

CONFIG = config_of(service("filed", HELLO), workers=2)
HOST = "shop.localhost"
TRAPS = b"""(module (memory (export "memory") 1) (func (export "_start") unreachable))"""

# Prints 64 KiB of lines at a time until its CPU time is over.
FLOODS = rb"""(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\10\00\00\00\00\40\00\00")
  (func (export "_start") (local $at i32)
    (memory.fill (i32.const 16) (i32.const 120) (i32.const 16384))
    (loop $breaks
      (i32.store8 offset=16 (local.get $at) (i32.const 10))
      (local.set $at (i32.add (local.get $at) (i32.const 100)))
      (br_if $breaks (i32.lt_u (local.get $at) (i32.const 16384))))
    (loop $for_ever
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $for_ever))))"""


@contextmanager
def following(running: Server, path: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of a followed log, as they come."""
    token = (running.state_dir / "admin.token").read_text().strip()
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=DEADLINE)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield (json.loads(line) for line in iter(response.readline, b""))
    finally:
        connection.close()


def test_a_version_is_invoked_whether_it_serves_or_not(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        deploy(running, "shop", "two", "activate=false")
        for number, text in ((1, "one"), (2, "two")):
            answer = call(running, "POST", f"/v1/services/shop/versions/{number}/invoke").json
            assert (answer["status"], answer["body"].strip()) == (200, text)
            assert (answer["outcome"], answer["truncated"]) == ("ok", False)
            assert answer["cpu_ms"] > 0
        assert said(running, HOST) == "one"
        filed = call(running, "POST", "/v1/services/filed/versions/1/invoke", {"path": "/x?y"})
        assert filed.json["body"] == "hello from wasm\n"
        assert call(running, "POST", "/v1/services/shop/versions/9/invoke").status == 404


def test_versions_are_invoked_side_by_side_while_others_are_activated(tmp_path: Path) -> None:
    """Each activation unloads what was loaded for invocations of its service."""
    with server(tmp_path, CONFIG, workers=2) as running:
        for number in range(1, 5):
            deploy(running, "shop", f"v{number}", f"activate={str(number == 1).lower()}")
        stop = threading.Event()

        def invoke(number: int) -> list[tuple[int, str]]:
            found = []
            while not stop.is_set():
                answer = call(running, "POST", f"/v1/services/shop/versions/{number}/invoke")
                found.append((answer.status, answer.json.get("body", answer.json)))
            return found

        with ThreadPoolExecutor(6) as pool:
            asked = [2, 3, 3, 4, 4, 4]
            invoking = [pool.submit(invoke, number) for number in asked]
            try:
                for number in [2, 1] * 5:
                    path = f"/v1/services/shop/versions/{number}/activate"
                    assert call(running, "POST", path).status == 200
            finally:
                stop.set()
            for number, work in zip(asked, invoking, strict=True):
                answers = work.result(DEADLINE)
                assert answers
                assert {(status, body.strip()) for status, body in answers} == {(200, f"v{number}")}


def test_an_invocation_tells_how_its_sandbox_ended(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        call(running, "PUT", "/v1/services/bad", TRAPS)
        answer = call(running, "POST", "/v1/services/bad/versions/1/invoke").json
        assert (answer["status"], answer["outcome"]) == (500, "trap")
        assert answer["detail"]


def test_what_an_invocation_may_not_say_is_refused(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        path = "/v1/services/filed/versions/1/invoke"
        for body in (
            {"path": "no"},
            {"method": "get"},
            {"headers": {"a b": "c"}},
            {"headers": {"a": "b\r\nc: d"}},
            {"body": "a", "body_base64": base64.b64encode(b"a").decode()},
            {"body_base64": "*"},
        ):
            assert call(running, "POST", path, body).status == 422, body


def test_followers_see_requests_that_end_well_and_others_see_those_that_do_not(
    tmp_path: Path,
) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        call(running, "PUT", "/v1/services/bad?activate=true", TRAPS)
        assert running.get("/broken", host="bad.localhost")[0] == 500
        with following(running, "/v1/logs?follow=true&outcome=trap") as lines:
            found = next(line for line in lines if line)  # kept from before, or as it comes
            assert (found["service"], found["path"]) == ("bad", "/broken")
            assert (found["kind"], found["status"]) == ("access", 500)
        with following(running, "/v1/services/shop/logs?follow=1&recent=0") as lines:
            assert next(lines) == {}  # from here on nothing is missed
            running.get("/seen?secret=1", host=HOST)
            line = next(line for line in lines if line)
            assert (line["service"], line["version"]) == ("shop", 1)
            assert (line["path"], line["outcome"]) == ("/seen", "ok")


def test_a_worker_that_starts_anew_is_followed_as_well(tmp_path: Path) -> None:
    with (
        server(tmp_path, config_of(service("filed", HELLO))) as running,
        following(running, "/v1/services/filed/logs?follow=true&recent=0") as lines,
    ):
        assert next(lines) == {}
        running.get("/before")
        assert next(line for line in lines if line)["path"] == "/before"
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        running.wait_for("worker ready")
        running.get("/again")
        assert next(line for line in lines if line)["path"] == "/again"


def test_numbers_are_told_of_services_and_of_versions(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        deploy(running, "shop", "one")
        for _ in range(10):
            said(running, HOST)
        deploy(running, "shop", "two")
        for _ in range(5):
            said(running, HOST)
        whole = call(running, "GET", "/v1/services/shop/stats").json
        assert (whole["requests"], whole["by_code"]) == (15, {"2xx": 15})
        assert whole["by_outcome"] == {"ok": 15}
        assert 0 < whole["wall_ms"]["p50"] <= whole["wall_ms"]["p99"]
        new = call(running, "GET", "/v1/services/shop/versions/2/stats").json
        assert new["requests"] == 5
        assert call(running, "GET", "/v1/services/none/stats").status == 404
        assert call(running, "GET", "/v1/services/filed/stats").json["requests"] == 0


def test_nodes_and_settings_are_told(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        (node,) = call(running, "GET", "/v1/nodes").json["items"]
        assert [worker["phase"] for worker in node["workers"]] == ["ready", "ready"]
        settings = call(running, "GET", "/v1/config").json
        assert settings["server"]["workers"] == 2


def test_a_guest_that_floods_the_log_holds_up_no_deployment(tmp_path: Path) -> None:
    limits = "limits: {log_bytes: 64MiB}\n"
    with server(tmp_path, config_of(service("filed", HELLO), more=limits)) as running:
        deploy(running, "shop", "one")
        deploy(running, "shop", "two", "activate=false")
        assert call(running, "PUT", "/v1/services/loud?activate=true", FLOODS).status == 201

        def flood() -> None:
            for number in (2, 1, 2, 1, 2):
                running.get(host="loud.localhost")
                activated = call(running, "POST", f"/v1/services/shop/versions/{number}/activate")
                assert activated.status == 200, activated.body

        running.discard_log_while(flood)
        assert said(running, HOST) == "two"
        kept = call(running, "GET", "/v1/services/loud/logs?recent=1000").body
        assert kept.count(b"\n") == 1000  # records of its requests among them
        assert kept.count(b'xxx"') >= 900
        assert running.metric("edge_worker_restarts_total") == 0
