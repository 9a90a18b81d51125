"""Builds Rust guests on the official crate with Debian's Rust. It builds no other language.

Rust is the one toolchain that no Python package carries with a standard library for wasm. Debian's
`rust-web-src` has that library's source, which cargo builds together with the guest (a minute, the
first time). What crates are built is in `tests/toolchain/rust/Cargo.lock`; zig links.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from tests.support import toolchain

PACKAGE = toolchain.ROOT / "tests" / "toolchain" / "rust"
TARGET = "wasm32-wasip1"
DEBIAN_PACKAGES = ("rustc-web", "cargo-web", "rust-web-src")


def _programs() -> Path:
    """Where rustc and cargo are: Debian's, or those of `EDGE_RUST_BIN` (not rustup's proxies)."""
    return Path(os.environ.get("EDGE_RUST_BIN") or "/usr/bin")


def version() -> str:
    """Everything besides the source that decides the result of `build`.

    Raises `MissingTool` with the command that installs what is not there.
    """
    folder = _programs()
    for name in ("cargo", "rustc"):
        if not (folder / name).is_file():
            raise _missing(f"{folder / name} does not exist")
    described = toolchain.run([folder / "rustc", "--version"], cwd=PACKAGE).strip()
    sysroot = toolchain.run([folder / "rustc", "--print", "sysroot"], cwd=PACKAGE).strip()
    library = Path(sysroot, "lib", "rustlib", "src", "rust", "library", "Cargo.lock")
    if not library.is_file():
        raise _missing(f"{library} does not exist")
    digest = hashlib.sha256()
    for path in (library, *sorted(PACKAGE.iterdir())):
        digest.update(path.read_bytes())
    return f"{described} {digest.hexdigest()[:16]}"


def _missing(why: str) -> toolchain.MissingTool:
    return toolchain.MissingTool(
        f"Rust for guests is not installed ({why}): run, as root, "
        f"`apt-get install --no-install-recommends {' '.join(DEBIAN_PACKAGES)}`, or let "
        "EDGE_RUST_BIN name a directory with a rustc and cargo that have the library's source"
    )


def build(source: Path, out: Path, work: Path) -> None:
    """Make `out` of the one file `source`, in the empty directory `work`."""
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(PACKAGE / name, work)
    (work / "src").mkdir()
    folder, cache = _programs(), toolchain.cache_directory()
    # Shared by all guests, since the library and the crates are the greater part of a build.
    crates = cache / f"rust-{hashlib.sha256(version().encode()).hexdigest()[:16]}"
    # No path of this machine in the result: the same source gives the same bytes everywhere.
    flags = ("-Clinker-flavor=gcc", "-Clink-self-contained=no", f"--remap-path-prefix={cache}=.")
    settings = {
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        "CARGO_HOME": str(cache / "cargo"),
        "CARGO_TARGET_DIR": str(crates),
        "CARGO_TARGET_WASM32_WASIP1_LINKER": str(PACKAGE / "link.sh"),
        "EDGE_GUEST_PYTHON": sys.executable,
        "RUSTC": str(folder / "rustc"),
        "RUSTC_BOOTSTRAP": "1",  # building the library is not yet a stable feature of cargo
    }
    options = ["--release", "--locked", "--quiet", "--target", TARGET, "--artifact-dir", "out"]
    unstable = ["-Zunstable-options", "-Zbuild-std=std,panic_abort"]
    with toolchain.locked(crates.name):
        # To cargo all guests are one crate that changes: a source that is no younger than the last
        # build is taken for the one it has built, so it is written after that has ended.
        shutil.copy(source, work / "src" / "main.rs")
        toolchain.run([folder / "cargo", "build", *options, *unstable], cwd=work, env=settings)
    shutil.copyfile(work / "out" / "guest.wasm", out)
