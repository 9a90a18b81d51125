"""The compile child as its parent meets it: real processes, small modules."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
import wasmtime

from edge.errors import ModuleRefused
from edge.runtime import engine
from edge.runtime.artifacts import Artifact, ArtifactCache, open_artifact
from edge.runtime.compile import Compiler
from edge.settings import Compile

T = TypeVar("T")
PROGRAM = b'(module (memory (export "memory") 1) (func (export "_start")))'


def run(state: Path, act: Callable[[Compiler], Awaitable[T]], **options: object) -> T:
    python = str(options.pop("python", sys.executable))
    settings = replace(Compile(), **options)  # type: ignore[arg-type]

    async def main() -> T:
        cache = ArtifactCache(state, fingerprint=engine.fingerprint())
        cache.start()
        return await act(Compiler(cache, settings, max_module_bytes=20_000_000, python=python))

    return uvloop.run(main())


def refusal(state: Path, data: bytes, **options: object) -> str:
    async def act(compiler: Compiler) -> str:
        with pytest.raises(ModuleRefused) as caught:
            await compiler.artifact_of(data)
        return str(caught.value)

    return run(state, act, **options)


def fake_python(tmp_path: Path, script: str) -> str:
    """Something in the interpreter's place, so that the parent meets a child gone wrong."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_text_and_binary_compile_to_artifacts_that_load_from_their_descriptor(
    tmp_path: Path,
) -> None:
    async def act(compiler: Compiler) -> list[Artifact]:
        binary = bytes(wasmtime.wat2wasm(PROGRAM.decode()))
        return [await compiler.artifact_of(data) for data in (PROGRAM, binary)]

    for artifact in run(tmp_path, act):
        assert artifact.info.family == "wasi"
        fd = open_artifact(artifact)
        wasmtime.Module.deserialize_file(engine.compiling_engine(), f"/proc/self/fd/{fd}")
        os.close(fd)


def test_a_warm_cache_starts_no_child(tmp_path: Path) -> None:
    async def act(compiler: Compiler) -> tuple[Artifact, int]:
        return await compiler.artifact_of(PROGRAM), compiler.compiled

    first, started = run(tmp_path, act)
    second, restarted = run(tmp_path, act)
    assert first == second
    assert (started, restarted) == (1, 0)


def test_a_refusal_crosses_the_pipe_in_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"(module)").startswith("exports no function _start")
    assert refusal(tmp_path, b"(module (memory i64 1))").startswith("needs memory64")
    assert not list((tmp_path / "artifacts").iterdir())


def test_an_oversized_module_is_refused_without_a_child(tmp_path: Path) -> None:
    async def act(compiler: Compiler) -> int:
        with pytest.raises(ModuleRefused, match="at most 20000000"):
            await compiler.artifact_of(b"(" * 20_000_001)
        return compiler.compiled

    assert run(tmp_path, act) == 0


def test_the_child_has_no_environment_no_network_and_hard_limits(tmp_path: Path) -> None:
    """The child's own confinement, seen from inside it by way of its arguments."""
    script = (
        "import sys, os, resource, json, socket; sys.path.insert(0, sys.argv[1]);"
        "from edge.compile_main import confine; from edge.runtime.compile_bounds import Bounds;"
        "notes = confine(Bounds(7, 3 << 30, 1));"
        "names = [n for _, n in socket.if_nameindex()];"
        "print(json.dumps([dict(os.environ), notes, names,"
        " resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU)[0],"
        " resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_CORE)]))"
    )
    root = str(Path(engine.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, root], env={}, capture_output=True, check=True
    )
    environment, notes, names, memory, cpu, files, core = json.loads(done.stdout)
    assert set(environment) <= {"LC_CTYPE"}  # the interpreter's own (PEP 538)
    assert memory == [3 << 30, 3 << 30]
    assert (cpu, files, core) == (7, [0, 0], [0, 0])
    if notes:  # a kernel that allows no namespaces: said, not silent
        assert "network" in notes[0]
    else:
        assert set(names) <= {"lo"}


def test_wall_time_ends_a_child_that_hangs(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "exec sleep 60")
    assert "compile.wall of 0.2s" in refusal(tmp_path / "v", PROGRAM, python=python, wall=0.2)


def test_cpu_time_ends_a_child_that_burns_it(tmp_path: Path) -> None:
    nested = b"(block " * 4000 + b")" * 4000
    body = b"(func " + nested + b")"
    data = b'(module (memory (export "memory") 1) (func (export "_start"))' + body * 200 + b")"
    message = refusal(tmp_path, data, cpu=1, wall=60)
    assert "CPU time" in message
    assert "compile.cpu of 1s" in message


def test_memory_ends_a_child_that_takes_too_much(tmp_path: Path) -> None:
    body = b"(func " + b"(drop (i64.const 1))" * 1000 + b")"
    data = b'(module (memory (export "memory") 1) (func (export "_start"))' + body * 900 + b")"
    message = refusal(tmp_path, data, memory=200 * 1024 * 1024)
    assert "memory" in message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -ABRT $$", "signal 6"),
        ("kill -KILL $$", "killed from outside"),
        ("echo first >&2; printf 'last\\033words\\n' >&2; exit 9", "exit status 9"),
        ("exit 0", "nonsense"),
        ("printf '\\0\\0\\0\\002{}'", "nonsense"),
        ("printf '\\0\\0\\0\\005null!'", "nonsense"),
        ("head -c 90000000 /dev/zero", "more than"),
    ],
)
def test_a_child_gone_wrong_is_a_refusal_of_its_module(
    tmp_path: Path, script: str, words: str
) -> None:
    message = refusal(tmp_path / "v", PROGRAM, python=fake_python(tmp_path, script))
    assert words in message
    assert "\x1b" not in message
    assert "\n" not in message
