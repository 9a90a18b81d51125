"""Starts compile children and reads what they say.  Compiles nothing itself and loads no engine.

The child gets no environment, no path to our directories and one pipe each way.  What it sends is
read under a bound and a deadline, and its facts are parsed as untrusted input.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import edge
from edge.errors import ModuleRefused
from edge.runtime.artifacts import Artifact, ArtifactCache
from edge.runtime.compile_bounds import EXIT_OK, EXIT_REFUSED, Bounds
from edge.runtime.inspect import ModuleInfo, one_line, recognise
from edge.runtime.turns import Turns
from edge.settings import Compile

log = logging.getLogger("edge.compile")

MAX_HEADER_BYTES: Final = 8 * 1024**2
# Machine code grows to 4 times its Wasm in the worst programs we met; small ones have a fixed part.
MAX_ARTIFACT_GROWTH: Final = 16
MIN_ARTIFACT_BYTES: Final = 64 * 1024**2
MAX_STDERR_BYTES: Final = 64 * 1024
_PIECE: Final = 256 * 1024
CORES_PER_COMPILATION: Final = 4  # a large module keeps about as many busy

# An event's name and its facts: `queued`, `compiling` (module_bytes), `compiled` (seconds,
# code_bytes; 0 seconds for what the cache had).
Progress = Callable[[str, Mapping[str, object]], None]


def no_progress(event: str, facts: Mapping[str, object]) -> None:
    """For compilations that nobody watches."""


# -I keeps the current directory, user packages and PYTHON* out; the one path it needs is named.
_BOOTSTRAP: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from edge.compile_main import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a child made of one module."""

    info: ModuleInfo
    code: bytes
    notes: tuple[str, ...] = ()  # for the operator, such as what the kernel would not confine


class Compiler:
    """Compiles modules through the cache: a few at once, and never one module twice at a time.

    What the cache has waits for no compilation.
    """

    def __init__(
        self,
        cache: ArtifactCache,
        settings: Compile,
        *,
        max_module_bytes: int,
        exceptions: bool = False,
        python: str = sys.executable,
    ) -> None:
        """`cache` must have been started.  `max_module_bytes` bounds files, not artifacts."""
        self._cache = cache
        self._settings = settings
        self._max_module_bytes = max_module_bytes
        self._exceptions = exceptions
        self._python = python
        self._turns = Turns(settings.parallel or automatic_parallel())  # fair to each service
        # By module hash; one lives as long as somebody holds or awaits it.
        self._alone: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.compiled = 0  # children that were started
        self.notes: set[str] = set()

    async def stored(self, sha256: str) -> Artifact | None:
        """The artifact of a module hash if the cache has it, whole."""
        return await asyncio.to_thread(self._cache.lookup, sha256)

    def pin(self, sha256s: frozenset[str]) -> None:
        """Keep these in the cache whatever its size: they are being served."""
        self._cache.pinned = sha256s

    async def artifact_of(
        self, data: bytes, service: str = "", progress: Progress = no_progress
    ) -> Artifact:
        """The artifact of a module, from the cache or fresh; `service` is for the log.

        Raises ModuleRefused with one line for its author, OSError when it cannot be stored.
        """
        recognise(data, max_bytes=self._max_module_bytes)
        digest = await asyncio.to_thread(_sha256, data)
        return await self._artifact(digest, lambda: data, service, progress)

    async def artifact_named(
        self,
        sha256: str,
        read: Callable[[], bytes],
        service: str = "",
        progress: Progress = no_progress,
    ) -> Artifact:
        """The same by module hash; `read` gives the module, in a thread, if it is needed at all.

        Raises what `read` raises, too, and ModuleRefused when that is not the module.
        """
        return await self._artifact(sha256, read, service, progress)

    async def _artifact(
        self, digest: str, read: Callable[[], bytes], service: str, progress: Progress
    ) -> Artifact:
        alone = self._alone.setdefault(digest, asyncio.Lock())
        if alone.locked():
            progress("queued", {"for": "the same module"})
        async with alone:  # two services may share one module: the second finds it
            found = await self.stored(digest)
            if found is not None:
                progress("compiled", {"seconds": 0.0, "code_bytes": found.size})
                return found
            if self._turns.locked():
                progress("queued", {"for": "other modules"})
            async with self._turns.of(service):
                data = await asyncio.to_thread(read)  # in turn: what waits should not hold modules
                recognise(data, max_bytes=self._max_module_bytes)
                return await self._fresh(digest, data, service, progress)

    async def _fresh(self, digest: str, data: bytes, service: str, progress: Progress) -> Artifact:
        begin = time.monotonic()
        progress("compiling", {"module_bytes": len(data)})
        compiled = await self._compile(data, service)
        if compiled.info.sha256 != digest:
            raise ModuleRefused("its compiled form is that of another module: its file has changed")
        self.notes.update(compiled.notes)
        artifact = await asyncio.to_thread(self._cache.insert, compiled.info, compiled.code)
        progress(
            "compiled", {"seconds": time.monotonic() - begin, "code_bytes": len(compiled.code)}
        )
        return artifact

    async def _compile(self, data: bytes, service: str) -> Compiled:
        self.compiled += 1
        # An 11.5 MB service takes seconds: whoever watches a start should know what it waits for.
        log.info("compiling", extra={"service": service, "module_bytes": len(data)})
        bounds = Bounds(
            cpu_seconds=max(1, round(self._settings.cpu)),
            address_bytes=self._settings.memory,
            module_bytes=self._max_module_bytes,
            exceptions=self._exceptions,
        )
        command = [self._python, "-I", "-c", _BOOTSTRAP, str(Path(edge.__file__).parent.parent)]
        child = subprocess.Popen(  # noqa: ASYNC220 - a few ms, and its pipes are a thread's
            command + bounds.arguments(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
        )
        bound = MAX_HEADER_BYTES + max(MIN_ARTIFACT_BYTES, MAX_ARTIFACT_GROWTH * len(data))
        try:
            output, errors = await asyncio.to_thread(
                _converse, child, data, bound, time.monotonic() + self._settings.wall
            )
        except TimeoutError:
            raise ModuleRefused(
                f"compiling took longer than compile.wall of {self._settings.wall:g}s"
            ) from None
        finally:
            _kill(child)  # when we are cancelled, this also ends the thread
        return self._result(child.returncode, output, errors)

    def _result(self, status: int, output: bytes, errors: bytes) -> Compiled:
        if status not in (EXIT_OK, EXIT_REFUSED):
            raise ModuleRefused(self._death(status, errors))
        size = int.from_bytes(output[:4], "big")
        try:
            header = json.loads(output[4 : 4 + size])
            match header:
                case {"refused": str(reason)}:
                    raise ModuleRefused(one_line(reason))
                case {"info": info, "bytes": int(expected), "notes": list(notes)}:
                    code = output[4 + size :]
                    if len(code) != expected or not code:
                        raise ValueError(f"{len(code)} bytes of code instead of {expected}")
                    texts = tuple(one_line(str(note)) for note in notes[:8])
                    return Compiled(ModuleInfo.from_plain(info), code, texts)
            raise ValueError("a header of another shape")
        except (ValueError, RecursionError) as error:
            raise ModuleRefused(
                f"the compile process answered nonsense: {one_line(str(error))}"
            ) from error

    def _death(self, status: int, errors: bytes) -> str:
        limits = self._settings
        if status == -signal.SIGXCPU:
            return f"compiling took more CPU time than compile.cpu of {limits.cpu:g}s"
        if status == -signal.SIGKILL:
            return "compiling was killed from outside; the machine may be out of memory"
        last = errors.decode(errors="replace").strip().splitlines()
        detail = one_line(last[-1])[:300] if last else "it said nothing"
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return (
            f"the compile process failed ({how}; compile.memory is {limits.memory} bytes): {detail}"
        )


def automatic_parallel() -> int:
    """How many modules are compiled at once where nobody has said so."""
    return max(1, len(os.sched_getaffinity(0)) // CORES_PER_COMPILATION)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _converse(
    child: subprocess.Popen[bytes], data: bytes, bound: int, deadline: float
) -> tuple[bytes, bytes]:
    """Feed the child, read it out and reap it.  Blocks: for a thread.

    Raises TimeoutError at `deadline` (monotonic seconds), ModuleRefused when it says too much.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    output, errors, left = bytearray(), bytearray(), memoryview(data)
    pipes = (child.stdin, child.stdout, child.stderr)
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                os.set_blocking(pipe.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
            selector.register(child.stdout, selectors.EVENT_READ)
            selector.register(child.stderr, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_time_left(deadline))
                for key, _ in ready:
                    if key.fileobj is child.stdin:
                        left = _write(key.fd, left)
                        if not left:
                            selector.unregister(child.stdin)
                            child.stdin.close()
                        continue
                    piece = os.read(key.fd, _PIECE)
                    if not piece:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is child.stdout:
                        output += piece
                    else:
                        errors = (errors + piece)[-MAX_STDERR_BYTES:]
                if len(output) > bound:
                    raise ModuleRefused(f"its compiled form has more than {bound} bytes")
        child.wait(_time_left(deadline))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        _kill(child)
        child.wait()
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.close()
    return bytes(output), bytes(errors)


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _write(fd: int, data: memoryview) -> memoryview:
    """What is left to write.  A child that refuses early closes its end; its header says why."""
    try:
        return data[os.write(fd, data[:_PIECE]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return memoryview(b"")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its session; harmless when it has ended (`poll` under its own lock)."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
