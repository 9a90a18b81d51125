"""Looks at a module that nobody serves yet: compiles it, and compares it with what we offer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping

from edge.admin.control import Inspection, Progress, no_progress
from edge.errors import ApiRefused, ModuleRefused, Refusal
from edge.model.limits import Limits
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler
from edge.runtime.inspect import check


class Inspector:
    """One per server."""

    def __init__(
        self,
        compiler: Compiler,
        known_imports: Mapping[tuple[str, str], str],
        limits: Callable[[], Limits],
    ) -> None:
        """`known_imports` maps (module, name) to a signature; `limits` are those by default."""
        self._compiler = compiler
        self._known = known_imports
        self._limits = limits

    async def inspect(
        self,
        module: bytes,
        *,
        limits: Limits | None = None,
        trap_unknown: bool = False,
        label: str = "",
        progress: Progress = no_progress,
    ) -> Inspection:
        """What it is and needs, and in `problems` why it could not be served."""
        seconds = 0.0

        def tell(event: str, facts: Mapping[str, object]) -> None:
            nonlocal seconds
            took = facts.get("seconds")
            if event == "compiled" and isinstance(took, float):
                seconds = took
            progress(event, facts)

        try:
            artifact = await self._compiler.artifact_of(module, label, progress=tell)
        except ModuleRefused as refused:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(module).hexdigest())
            return _unusable(digest, len(module), str(refused))
        except OSError as error:
            raise ApiRefused(
                Refusal.STORAGE, f"its compiled form cannot be kept: {error.strerror}"
            ) from error
        return self._facts(artifact, limits or self._limits(), seconds, trap_unknown)

    def _facts(
        self, artifact: Artifact, limits: Limits, seconds: float, trap_unknown: bool
    ) -> Inspection:
        info = artifact.info
        names = {(item.module, item.name) for item in info.imports}
        unknown = sorted(f"{module}.{name}" for module, name in names - self._known.keys())
        problems: tuple[str, ...] = ()
        try:
            check(
                info,
                memory=limits.memory,
                table_elements=limits.table_elements,
                known_imports=self._known,
                trap_unknown=trap_unknown,
            )
        except ModuleRefused as refused:
            problems = (str(refused),)
        warnings: list[str] = []
        if unknown and trap_unknown:
            warnings.append("a request that calls an import that this server lacks ends there")
        if info.start_function:
            warnings.append("its start section runs guest code for every sandbox")
        return Inspection(
            sha256=info.sha256,
            size=info.size,
            imports=tuple(sorted(f"{module}.{name}" for module, name in names)),
            unknown_imports=tuple(unknown),
            exports=info.exports,
            memory_bytes=info.memory_bytes,
            memory_max_bytes=info.memory_max_bytes,
            table_elements=max(info.tables, default=0),
            compile_seconds=seconds,
            code_bytes=artifact.size,
            problems=problems,
            warnings=tuple(warnings),
        )


def _unusable(sha256: str, size: int, why: str) -> Inspection:
    """Of what cannot even be compiled."""
    return Inspection(
        sha256=sha256,
        size=size,
        imports=(),
        unknown_imports=(),
        exports=(),
        memory_bytes=0,
        memory_max_bytes=None,
        table_elements=0,
        compile_seconds=0.0,
        code_bytes=0,
        problems=(why,),
    )
