"""What `edge deploy` is pointed at: a program, a package, or the directory of a Fastly project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.catalogue.manifest import MAX_MANIFEST_BYTES, PackageManifest, read_manifest
from edge.client.failures import Unusable
from edge.errors import ApiRefused
from edge.model.names import read_service_name

MANIFEST: Final = "fastly.toml"
PROGRAM: Final = Path("bin", "main.wasm")
_SUFFIXES: Final = (".wasm", ".wat", ".gz", ".tgz")


@dataclass(frozen=True, slots=True)
class Project:
    """A file to upload, and what its manifest says."""

    file: Path
    size: int  # bytes
    name: str  # of the service, where no option names one; empty: nothing says
    base: Path  # what paths in the manifest start from
    setup: Mapping[str, object] = field(default_factory=dict)


def find_project(path: Path) -> Project:
    """Raises Unusable when there is nothing to deploy, saying what was looked for."""
    if not path.is_dir():
        return _single(path)
    manifest = _manifest(path)
    file = _newest(path)
    if file is None:
        raise Unusable(
            f"{path} has neither {PROGRAM} nor pkg/*.tar.gz; build it first, or name a .wasm file"
        )
    name = manifest.name if manifest is not None else ""
    return Project(
        file,
        _size(file),
        service_name(name) or service_name(path.resolve().name),
        path,
        manifest.setup if manifest is not None else {},
    )


def service_name(text: str) -> str:
    """A service's name made of a project's; empty when nothing is left of it."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-"
        for letter in text.lower()
    ).strip("-._")
    try:
        return read_service_name(kept[:63].rstrip("-._"))
    except ValueError:
        return ""


def _single(path: Path) -> Project:
    if path.suffix not in _SUFFIXES:
        raise Unusable(f"{path} is neither a directory nor a .wasm, .wat or .tar.gz file")
    stem = path.name.removesuffix(".gz").removesuffix(".tar").rpartition(".")[0] or path.name
    if path.name.endswith(".tar.gz"):
        stem = path.name.removesuffix(".tar.gz")
    return Project(path, _size(path), service_name(stem), path.parent)


def _newest(path: Path) -> Path | None:
    """The package where it is not older than the program: it says more about itself."""
    program = path / PROGRAM
    # `package.tar.gz` is what the CLI's `pack` leaves behind: it holds no program
    packages = [one for one in path.glob("pkg/*.tar.gz") if one.name != "package.tar.gz"]
    candidates = [one for one in (program, *packages) if one.is_file()]
    return max(candidates, key=lambda one: (one.stat().st_mtime, one != program), default=None)


def _manifest(path: Path) -> PackageManifest | None:
    file = path / MANIFEST
    try:
        with file.open("rb") as opened:
            return read_manifest(opened.read(MAX_MANIFEST_BYTES + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"{file} cannot be read: {error.strerror}") from None
    except ApiRefused as error:
        raise Unusable(f"{path}: {error.detail}") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
