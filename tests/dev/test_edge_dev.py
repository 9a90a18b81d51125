"""The real `edge-dev`, from its first line to its last."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.edge_dev import EdgeDev, run_edge_dev
from tests.support.guests import build
from tests.support.runtime import program

pytestmark = pytest.mark.process

ANY_PORT = ("--addr", "127.0.0.1:0")
ANSWER = """
(module
  (import "fastly_http_resp" "new" (func $resp (param i32) (result i32)))
  (import "fastly_http_body" "new" (func $body (param i32) (result i32)))
  (import "fastly_http_body" "write"
    (func $write (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_resp" "send_downstream" (func $send (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "TEXT")
  (func (export "_start")
    (drop (call $resp (i32.const 0))) (drop (call $body (i32.const 4)))
    (drop (call $write (i32.load (i32.const 4))
      (i32.const 64) (i32.const 4) (i32.const 0) (i32.const 8)))
    (drop (call $send (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 0)))))
"""


def answering(path: Path, text: str) -> Path:
    """A program that answers four letters."""
    assert len(text) == 4
    path.write_text(ANSWER.replace("TEXT", text))
    return path


@contextmanager
def serving(folder: Path, *arguments: str | Path) -> Iterator[EdgeDev]:
    with EdgeDev(folder, [*arguments, *ANY_PORT]) as dev:
        dev.wait_until_listening()
        yield dev


@pytest.mark.parametrize("first", [(), ("serve",)])
def test_a_program_is_served_with_a_line_for_each_request(
    tmp_path: Path, first: tuple[str, ...]
) -> None:
    with serving(tmp_path, *first, build("wat/hello")) as dev:
        dev.wait_for("the egress policy is open")
        assert dev.get("/path?query") == (200, b"hello from wasm\n")
        line = dev.wait_for("GET /path?query 200 ok")
        for word in ("cpu", "wall", "memory 0.1MiB", "hostcalls 7", "subrequests 0"):
            assert word in line
        assert dev.end() == -signal.SIGTERM


def test_it_ends_by_the_signal_that_ended_it(tmp_path: Path) -> None:
    with serving(tmp_path, build("wat/hello")) as dev:
        assert dev.end(signal.SIGINT) == -signal.SIGINT


def test_options_come_in_any_order_as_the_official_cli_gives_them(tmp_path: Path) -> None:
    (tmp_path / "fastly.toml").write_text("manifest_version = 3\nname = 'demo'\n")
    arguments = ["-v", "-C", str(tmp_path / "fastly.toml"), *ANY_PORT, str(build("wat/hello"))]
    with EdgeDev(tmp_path, arguments) as dev:
        dev.wait_until_listening()
        assert dev.get("/")[0] == 200


def test_a_panic_is_readable(tmp_path: Path) -> None:
    line = """
      (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 9))
      (drop (call $wasi.fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 24)))
      (call $broken)
    """
    extra = '(data (i32.const 32) "panicked\\n") (func $broken unreachable)'
    (tmp_path / "app.wat").write_text(program(line, "wasi.fd_write", extra=extra))
    with serving(tmp_path, "app.wat") as dev:
        assert dev.get("/x")[0] == 500
        dev.wait_for("panicked")
        dev.wait_for("GET /x 500 trap")
        dev.wait_for("unreachable")
        dev.wait_for("broken")


def test_streams_get_their_names_when_asked(tmp_path: Path) -> None:
    line = """
      (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 7))
      (drop (call $wasi.fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
    """
    extra = '(data (i32.const 32) "a\\1b[2Jb\\n")'  # it tries to clear the screen
    # An import of Fastly's makes it no CGI program, whose stdout would be its response.
    imports = ("wasi.fd_write", "http_resp.new")
    (tmp_path / "app.wat").write_text(program(line, *imports, extra=extra))
    with serving(tmp_path, "app.wat", "--log-stdout") as dev:
        dev.get("/")
        assert dev.wait_for("stdout ::") == "stdout :: a\\x1b[2Jb"


def test_hostcalls_are_traced_with_two_v(tmp_path: Path) -> None:
    with serving(tmp_path, build("wat/hello"), "-vv") as dev:
        dev.get("/")
        dev.wait_for("fastly_http_resp.send_downstream -> 0")


def test_an_unreachable_backend_is_told_of_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "fastly.toml").write_text(
        '[local_server.backends.dead]\nurl = "http://127.0.0.1:1"'
    )
    with serving(tmp_path, build("wat/hello"), "-C", "fastly.toml") as dev:
        line = dev.wait_for("backend dead")
        assert "refused" in line.lower()
        assert "127.0.0.1" in line


def test_a_changed_program_is_served_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = answering(tmp_path / "app.wat", "old!")
    with serving(tmp_path, path) as dev:
        assert dev.get("/")[1] == b"old!"
        answering(path, "new!")
        dev.wait_for("Reloaded")
        assert dev.get("/")[1] == b"new!"
        path.write_text("(module (nonsense))")
        dev.wait_for("error: services.app: app.wat: not valid WebAssembly text")
        dev.wait_for("serving on as before")
        assert dev.get("/")[1] == b"new!"
        answering(path, "good")
        dev.wait_for("Reloaded")
        assert dev.get("/")[1] == b"good"


def test_an_unknown_import_is_told_with_the_option_that_loads_it(tmp_path: Path) -> None:
    program = tmp_path / "odd.wat"
    program.write_text(
        '(module (import "env" "odd" (func)) (memory (export "memory") 1) (func (export "_start")))'
    )
    done = run_edge_dev(tmp_path, program, *ANY_PORT)
    assert done.returncode == 1
    assert "odd.wat: imports functions that this server does not have: env.odd" in done.stdout
    assert "--unknown-import-behavior trap" in done.stdout


def test_a_changed_manifest_or_file_that_it_names_is_read_again(tmp_path: Path) -> None:
    manifest, data = tmp_path / "fastly.toml", tmp_path / "flags.json"
    data.write_text('{"banner": "one"}')
    manifest.write_text('[local_server.config_stores.flags]\nformat = "json"\nfile = "flags.json"')
    with serving(tmp_path, build("js/stores"), "-C", manifest) as dev:
        assert b"one" in dev.get("/config/banner")[1]
        data.write_text('{"banner": "another"}')
        dev.wait_for("Reloaded")
        assert b"another" in dev.get("/config/banner")[1]
        manifest.write_text("[local_server.config_stores.flags]\nformat = 1")
        line = dev.wait_for("error:")
        assert "local_server.config_stores.flags.format: must be text" in line
        dev.wait_for("serving on as before")
        assert b"another" in dev.get("/config/banner")[1]


def test_a_reload_forgets_nothing_that_guests_have_stored(tmp_path: Path) -> None:
    manifest = tmp_path / "fastly.toml"
    manifest.write_text('[local_server.kv_stores]\ncart = [{ key = "a", data = "seed" }]')
    with serving(tmp_path, build("js/stores"), "-C", manifest) as dev:
        dev.get("/many")
        manifest.write_text(manifest.read_text() + "\n# changed\n")
        dev.wait_for("Reloaded")
        assert dev.get("/kv/many-7") == (200, b"value of many-7")
        assert dev.get("/kv/a") == (200, b"seed")


def test_kv_stores_in_a_directory_outlive_the_server(tmp_path: Path) -> None:
    manifest = tmp_path / "fastly.toml"
    manifest.write_text('[local_server]\nkv_directory = "kv"\nkv_stores = { cart = [] }')
    with serving(tmp_path, build("js/stores"), "-C", manifest) as dev:
        dev.get("/many")
        dev.end()
    with serving(tmp_path, build("js/stores"), "-C", manifest) as dev:
        assert dev.get("/kv/many-7") == (200, b"value of many-7")


def test_several_services_are_told_apart_by_host(tmp_path: Path) -> None:
    answering(tmp_path / "main.wat", "main")
    answering(tmp_path / "api.wat", "api!")
    (tmp_path / "fastly.toml").write_text(
        'name = "shop"\n[local_server.services.api]\nfile = "api.wat"\nhosts = ["api.localhost"]'
    )
    with serving(tmp_path, "main.wat", "-C", "fastly.toml") as dev:
        assert dev.get("/", host="api.localhost")[1] == b"api!"
        dev.wait_for("[api] GET / 200 ok")
        assert dev.get("/", host="anything.else")[1] == b"main"
        dev.wait_for("[shop] GET / 200 ok")


def test_limits_can_be_those_of_production_and_name_what_raises_them(tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(program("(loop $l (br $l))"))
    (tmp_path / "fastly.toml").write_text('[local_server.limits]\ncpu = "50ms"')
    with serving(tmp_path, "app.wat", "-C", "fastly.toml") as dev:
        assert dev.get("/")[0] == 503
        dev.wait_for("503 cpu_limit")
        line = dev.wait_for("CPU time")
        assert "of 50ms" in line
        assert "local_server.limits.cpu raises it" in line


def test_unknown_imports_are_refused_or_trap(tmp_path: Path) -> None:
    text = """(module (import "nowhere" "nothing" (func $f)) (memory (export "memory") 1)
      (func (export "_start") (call $f)))"""
    (tmp_path / "app.wat").write_text(text)
    refused = run_edge_dev(tmp_path, "app.wat", *ANY_PORT)
    assert refused.returncode == 1
    assert "nowhere.nothing" in refused.stdout
    with serving(tmp_path, "app.wat", "--unknown-import-behavior", "trap") as dev:
        assert dev.get("/")[0] == 500
        dev.wait_for("500 trap")


def test_a_profile_of_each_request_is_written(tmp_path: Path) -> None:
    spin = """(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 20000000))))"""
    text = program("(call $spin)", "http_resp.new", extra=f"(func $spin {spin})")
    (tmp_path / "app.wat").write_text(text)
    with serving(tmp_path, "app.wat", "--profile=guest,profiles") as dev:
        dev.get("/")
        dev.wait_for("GET / 200 ok")
        dev.end()
    (path,) = (tmp_path / "profiles").glob("app-*.json")
    (thread,) = json.loads(path.read_text())["threads"]
    assert thread["samples"]["length"] >= 3
    assert "spin" in path.read_text()


def test_a_directory_for_profiles_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run_edge_dev(tmp_path, build("wat/hello"), *ANY_PORT, "--profile=guest,file/x")
    assert ended.returncode == 1
    assert "--profile: file/x: Not a directory" in ended.stdout


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with serving(tmp_path, build("wat/hello")) as dev:
        second = run_edge_dev(tmp_path, build("wat/hello"), "--addr", f"127.0.0.1:{dev.port}")
    assert second.returncode == 1
    assert "cannot listen: Address already in use" in second.stdout


def test_every_problem_of_a_manifest_is_printed_and_nothing_is_served(tmp_path: Path) -> None:
    (tmp_path / "fastly.toml").write_text(
        "[local_server.backends.a]\n[local_server.config_stores.b]\n"
    )
    ended = run_edge_dev(tmp_path, build("wat/hello"), "-C", "fastly.toml", *ANY_PORT)
    assert ended.returncode == 1
    assert "fastly.toml: local_server.backends.a.url: is missing" in ended.stdout
    assert "fastly.toml: local_server.config_stores.b.format: is missing" in ended.stdout
