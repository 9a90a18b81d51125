"""`fastly log-tail` and `fastly stats`, unmodified, against a whole server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import HELLO, call, deploy, said
from tests.support.fastly_cli import FastlyCli
from tests.support.server import Server, config_of, server, service

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

TALKS = rb"""(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\09\00\00\00")
  (data (i32.const 16) "watch me\n")
  (func (export "_start")
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    with server(tmp_path, config_of(service("filed", HELLO))) as found:
        yield found


@pytest.fixture
def fastly(running: Server, tmp_path: Path) -> FastlyCli:
    work = tmp_path / "work"
    work.mkdir()
    token = (running.state_dir / "admin.token").read_text().strip()
    return FastlyCli(work, f"http://127.0.0.1:{running.admin_port}", token)


def test_log_tail_shows_what_a_guest_prints_once(running: Server, fastly: FastlyCli) -> None:
    assert call(running, "PUT", "/v1/services/talks?activate=true", TALKS).status == 201
    identity = call(running, "GET", "/v1/services/talks").json["id"]
    began = int(time.time())
    running.get(host="talks.localhost")
    shown = fastly(
        *("log-tail", f"--service-id={identity}", f"--from={began}", f"--to={began + 3}"),
        *("--search-padding=0s", "--sort-buffer=100ms"),
    )
    assert shown.count("watch me") == 1, shown
    assert "stderr | " in shown
    only = fastly(
        *("log-tail", f"--service-id={identity}", f"--from={began}", f"--to={began + 3}"),
        *("--search-padding=0s", "--sort-buffer=100ms", "--stream=stdout"),
    )
    assert "watch me" not in only


def test_stats_are_those_since_the_start(running: Server, fastly: FastlyCli) -> None:
    identity = deploy(running, "shop", "one")["id"]
    for _ in range(7):
        said(running, "shop.localhost")
    shown = fastly("stats", "historical", f"--service-id={identity}")
    assert "Requests:                                        7" in shown, shown
    block = json.loads(
        fastly("stats", "historical", f"--service-id={identity}", "--format=json", "--quiet")
    )
    assert (block["requests"], block["status_2xx"]) == (7, 7)
    assert "local" in fastly("stats", "regions")
    assert "Requests:                                        7" in fastly("stats", "aggregate")
    assert fastly("stats", "usage").split()[-4:] == ["local", "112", "7", "7"]
    assert identity in fastly("stats", "usage", "--by-service")
