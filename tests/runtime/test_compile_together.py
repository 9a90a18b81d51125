"""Several compilations at once: how many, never one module twice, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edge.errors import ModuleRefused
from edge.runtime.artifacts import Artifact, ArtifactCache
from edge.runtime.compile import Compiled, Compiler
from edge.runtime.inspect import ModuleInfo
from edge.settings import Compile
from tests.support.serving import run, until

Events = list[tuple[str, Mapping[str, object]]]


def module(name: str) -> bytes:
    return f"(module) ;; {name}".encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class HeldCompiler(Compiler):
    """Children are held until a test lets them end."""

    def __init__(self, state: Path, parallel: int) -> None:
        cache = ArtifactCache(state, fingerprint="0" * 16)
        cache.start()
        super().__init__(cache, Compile(parallel=parallel), max_module_bytes=1000)
        self.running: dict[bytes, asyncio.Event] = {}
        self.most = 0

    async def _compile(self, data: bytes, service: str) -> Compiled:
        self.compiled += 1
        assert data not in self.running, "twice at a time"
        over = self.running[data] = asyncio.Event()
        self.most = max(self.most, len(self.running))
        try:
            await over.wait()
        finally:
            del self.running[data]
        if b"bad" in data:
            raise ModuleRefused("bad")
        info = ModuleInfo(sha256(data), len(data), "wasi", (), 0, (), start_function=False)
        return Compiled(info, b"code of " + data)

    def let_all(self) -> None:
        for over in self.running.values():
            over.set()


async def settled(compiler: HeldCompiler, *work: asyncio.Future[Artifact]) -> None:
    """Let every child end as soon as it has begun, until this work is over."""

    def over() -> bool:
        compiler.let_all()
        return all(each.done() for each in work)

    await until(over)


@pytest.fixture
def held(tmp_path: Path) -> Callable[[int], HeldCompiler]:
    return lambda parallel: HeldCompiler(tmp_path, parallel)


def test_so_many_at_once_and_no_more(held: Callable[[int], HeldCompiler]) -> None:
    async def act() -> None:
        compiler = held(2)
        work = [asyncio.ensure_future(compiler.artifact_of(module(n))) for n in "abcde"]
        await until(lambda: len(compiler.running) == 2)
        await settled(compiler, *work)
        assert (compiler.most, compiler.compiled) == (2, 5)

    run(act())


def test_what_is_compiled_already_waits_for_nobody(held: Callable[[int], HeldCompiler]) -> None:
    async def act() -> None:
        compiler = held(1)
        first = asyncio.ensure_future(compiler.artifact_of(module("a")))
        await until(lambda: compiler.running)
        compiler.let_all()
        await first
        slow = asyncio.ensure_future(compiler.artifact_of(module("slow")))
        await until(lambda: compiler.running)
        assert await compiler.artifact_of(module("a")) == first.result()
        assert await compiler.artifact_named(sha256(module("a")), never) == first.result()
        assert not slow.done()
        compiler.let_all()
        await slow

    run(act())


def never() -> bytes:
    raise AssertionError("nobody needs the module")


def test_one_module_asked_for_twice_is_compiled_once(held: Callable[[int], HeldCompiler]) -> None:
    async def act() -> None:
        compiler = held(4)
        data = module("a")
        both = [
            asyncio.ensure_future(compiler.artifact_of(data)),
            asyncio.ensure_future(compiler.artifact_named(sha256(data), lambda: data)),
        ]
        await until(lambda: compiler.running)
        compiler.let_all()
        assert len(set(map(repr, await asyncio.gather(*both)))) == 1
        assert compiler.compiled == 1

    run(act())


def test_who_leaves_takes_the_compilation_along_and_the_next_begins_it_again(
    held: Callable[[int], HeldCompiler],
) -> None:
    async def act() -> None:
        compiler = held(1)
        first = asyncio.ensure_future(compiler.artifact_of(module("a")))
        await until(lambda: compiler.running)
        second = asyncio.ensure_future(compiler.artifact_of(module("a")))
        first.cancel()
        await until(first.done)
        await settled(compiler, second)
        assert second.result().info.sha256 == sha256(module("a"))
        assert compiler.compiled == 2
        del first, second  # an exception holds the frames that it went through
        gc.collect()
        assert not compiler._alone, "nothing is remembered of what is over"

    run(act())


def test_a_refusal_frees_the_place_it_held(held: Callable[[int], HeldCompiler]) -> None:
    async def act() -> None:
        compiler = held(1)
        bad = asyncio.ensure_future(compiler.artifact_of(module("bad")))
        good = asyncio.ensure_future(compiler.artifact_of(module("good")))
        await settled(compiler, bad, good)
        assert good.result().info.sha256 == sha256(module("good"))
        with pytest.raises(ModuleRefused):
            await bad

    run(act())


def test_progress_tells_queued_compiling_and_compiled(held: Callable[[int], HeldCompiler]) -> None:
    async def act() -> None:
        compiler = held(1)
        first, second, third = (list[tuple[str, Mapping[str, object]]]() for _ in range(3))

        def to(events: Events) -> Callable[[str, Mapping[str, object]], None]:
            return lambda event, facts: events.append((event, facts))

        both = [asyncio.ensure_future(compiler.artifact_of(module("a"), progress=to(first)))]
        await until(lambda: compiler.running)
        both.append(asyncio.ensure_future(compiler.artifact_of(module("b"), progress=to(second))))
        await until(lambda: second)
        await settled(compiler, *both)
        assert [event for event, _ in first] == ["compiling", "compiled"]
        assert [event for event, _ in second] == ["queued", "compiling", "compiled"]
        assert first[0][1] == {"module_bytes": len(module("a"))}
        assert first[1][1]["code_bytes"] == len(b"code of " + module("a"))
        await compiler.artifact_of(module("a"), progress=to(third))
        assert [(event, facts["seconds"]) for event, facts in third] == [("compiled", 0.0)]

    run(act())


def test_a_file_that_is_not_the_module_it_was_named_for_is_refused(
    held: Callable[[int], HeldCompiler],
) -> None:
    async def act() -> None:
        compiler = held(1)
        work = asyncio.ensure_future(
            compiler.artifact_named(sha256(module("a")), lambda: module("b"))
        )
        await until(lambda: compiler.running)
        compiler.let_all()
        with pytest.raises(ModuleRefused, match="another module"):
            await work

    run(act())
