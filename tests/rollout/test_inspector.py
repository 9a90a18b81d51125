"""What a developer is told of a module before anybody serves it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from edge.errors import ModuleRefused
from edge.model.limits import DEFAULT_LIMITS
from edge.rollout.inspector import Inspector
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler, Progress
from edge.runtime.inspect import ModuleInfo
from edge.runtime.sections import Import, Kind
from tests.support.loop import in_loop

KNOWN = {("env", "here"): "i->i"}


@dataclass
class FakeCompiler:
    info: ModuleInfo
    refused: str = ""
    labels: list[str] = field(default_factory=list)

    async def artifact_of(self, data: bytes, service: str, progress: Progress) -> Artifact:
        self.labels.append(service)
        if self.refused:
            raise ModuleRefused(self.refused)
        progress("compiling", {"module_bytes": len(data)})
        progress("compiled", {"seconds": 1.5, "code_bytes": 99})
        return Artifact(Path("/code"), "digest", 99, self.info)


def info(*imports: Import, memory: int = 65536, start: bool = False) -> ModuleInfo:
    return ModuleInfo(
        "a" * 64, 7, "wasi", imports, memory, (3,), start_function=start,
        memory_max_bytes=131072, exports=("_start", "memory"),
    )  # fmt: skip


def imported(name: str) -> Import:
    return Import("env", name, Kind.FUNCTION, "i->i")


def inspector(compiler: FakeCompiler) -> Inspector:
    return Inspector(cast("Compiler", compiler), KNOWN, lambda: DEFAULT_LIMITS)


@in_loop
async def test_its_needs_and_what_it_took_to_compile_are_told() -> None:
    events: list[str] = []

    def progress(event: str, facts: Mapping[str, object]) -> None:
        events.append(event)

    compiler = FakeCompiler(info(imported("here")))
    found = await inspector(compiler).inspect(b"program", label="shop", progress=progress)
    assert events == ["compiling", "compiled"]
    assert compiler.labels == ["shop"]
    assert (found.sha256, found.size, found.code_bytes) == ("a" * 64, 7, 99)
    assert (found.compile_seconds, found.memory_bytes, found.memory_max_bytes) == (
        1.5,
        65536,
        131072,
    )
    assert (found.imports, found.unknown_imports) == (("env.here",), ())
    assert (found.exports, found.table_elements) == (("_start", "memory"), 3)
    assert (found.problems, found.warnings) == ((), ())


@in_loop
async def test_an_import_that_we_lack_is_a_problem_or_a_warning_when_it_may_trap() -> None:
    look = inspector(FakeCompiler(info(imported("here"), imported("gone"))))
    found = await look.inspect(b"program")
    assert found.unknown_imports == ("env.gone",)
    assert "env.gone" in found.problems[0]
    found = await look.inspect(b"program", trap_unknown=True)
    assert found.problems == ()
    assert len(found.warnings) == 1


@in_loop
async def test_memory_above_the_limit_is_a_problem() -> None:
    look = inspector(FakeCompiler(info(memory=DEFAULT_LIMITS.memory + 65536)))
    (problem,) = (await look.inspect(b"program")).problems
    assert "limits.memory" in problem


@in_loop
async def test_what_does_not_compile_is_named_by_its_content_with_the_reason() -> None:
    found = await inspector(FakeCompiler(info(), refused="no such type")).inspect(b"broken")
    assert found.problems == ("no such type",)
    assert found.sha256 == hashlib.sha256(b"broken").hexdigest()
    assert found.size == 6
