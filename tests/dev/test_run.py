"""`edge-dev run`: a program run once, as a test runner does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.edge_dev import run_edge_dev
from tests.support.runtime import program

pytestmark = pytest.mark.process


def write(folder: Path, text: str) -> Path:
    path = folder / "app.wat"
    path.write_text(text)
    return path


@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_exit_code_is_forwarded(tmp_path: Path, code: int) -> None:
    path = write(tmp_path, program(f"(call $wasi.proc_exit (i32.const {code}))", "wasi.proc_exit"))
    assert run_edge_dev(tmp_path, "run", path).returncode == code


def test_a_trap_is_134_and_tells_where(tmp_path: Path) -> None:
    path = write(tmp_path, program("(call $deep)", extra="(func $deep unreachable)"))
    ended = run_edge_dev(tmp_path, "run", path)
    assert ended.returncode == 134
    assert "deep" in ended.stderr
    assert "unreachable" in ended.stderr


def test_arguments_and_output_are_the_programs_own(tmp_path: Path) -> None:
    # It writes its arguments, as they lie in memory, to stdout.
    body = """
      (drop (call $wasi.args_sizes_get (i32.const 0) (i32.const 4)))
      (drop (call $wasi.args_get (i32.const 64) (i32.const 1024)))
      (i32.store (i32.const 16) (i32.const 1024))
      (i32.store (i32.const 20) (i32.load (i32.const 4)))
      (drop (call $wasi.fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
    """
    imports = ("wasi.args_sizes_get", "wasi.args_get", "wasi.fd_write")
    path = write(tmp_path, program(body, *imports))
    ended = run_edge_dev(tmp_path, "run", path, "--", "-v", "--exact", "a b")
    assert ended.stdout == f"{path}\0-v\0--exact\0a b\0"
    assert ended.stderr == ""


def test_a_program_that_needs_a_second_is_given_it(tmp_path: Path) -> None:
    # 1 s of waiting and far more CPU than one request may have on a server.
    spin = """(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 300000000))))"""
    path = write(tmp_path, program(spin))
    assert run_edge_dev(tmp_path, "run", path).returncode == 0


def test_hostcalls_work_without_a_client(tmp_path: Path) -> None:
    body = """
      (call $must (call $http_req.body_downstream_get (i32.const 0) (i32.const 4)))
      (call $must (call $http_resp.new (i32.const 8)))
      (call $must (call $http_body.new (i32.const 12)))
      (call $must (call $http_resp.send_downstream
        (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0)))
    """
    imports = (
        "http_req.body_downstream_get", "http_resp.new", "http_body.new",
        "http_resp.send_downstream",
    )  # fmt: skip
    assert run_edge_dev(tmp_path, "run", write(tmp_path, program(body, *imports))).returncode == 0


def test_a_program_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    ended = run_edge_dev(tmp_path, "run", write(tmp_path, "(module (nonsense))"))
    assert ended.returncode == 1
    assert "not valid WebAssembly text" in ended.stderr
