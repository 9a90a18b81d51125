"""What somebody deploys, whatever form it came in: a module, its text, or a Fastly package.

The bytes decide, not a content type that curl made up.  Whether the program can be served is for
the compiler to say; nothing here looks into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edge.catalogue.archive import GZIP_MAGIC, Bounds, invalid, read_archive
from edge.catalogue.manifest import read_manifest
from edge.catalogue.records import Package
from edge.errors import ApiRefused, Refusal
from edge.model.units import write_bytes
from edge.settings import MIB

MANIFEST: Final = "fastly.toml"
MODULE: Final = ("bin", "main.wasm")
# Of the sources that `--include-source` packs beside the program.
MAX_OTHER_BYTES: Final = 32 * MIB

_WASM: Final = b"\0asm"
# What people send by mistake, by its first bytes.
_MISTAKES: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a zip archive; a package is a .tar.gz",
    b"BZh": "compressed with bzip2; a package is a .tar.gz",
    b"\xfd7zXZ\0": "compressed with xz; a package is a .tar.gz",
    b"(\xb5/\xfd": "compressed with zstd; a package is a .tar.gz",
    b"\x7fELF": "a program for this machine; build it for wasm32-wasip1",
    b"#!": "a script; build it into a WebAssembly module first",
    b"--": "a form; send the file itself: curl --data-binary @FILE",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A module and what came with it."""

    module: bytes = field(repr=False)  # binary or text, as it was sent
    package: Package
    setup: Mapping[str, object]  # `PackageManifest.setup`


def read_upload(data: bytes, *, max_module: int) -> Upload:
    """What `data` is.  Blocks for up to seconds: not on an event loop.

    ApiRefused PACKAGE_INVALID says what it is instead of a program; TOO_LARGE when the module has
    more than `max_module` bytes.  Memory: the module and `MAX_OTHER_BYTES` besides `data`.
    """
    if data.startswith(GZIP_MAGIC):
        return _read_package(data, max_module)
    _check_module(data)
    if len(data) > max_module:
        raise ApiRefused(
            Refusal.TOO_LARGE,
            f"the module has {len(data)} bytes; {write_bytes(max_module)} are the most "
            "(admin.package_bytes)",
        )
    digest = hashlib.sha512(data).hexdigest()
    return Upload(data, Package(_sha256(data), len(data), archive_sha512=digest), {})


def _read_package(data: bytes, max_module: int) -> Upload:
    files = read_archive(data, Bounds(max_module, MODULE, MAX_OTHER_BYTES))
    top = _top(files)
    manifest = read_manifest(files[f"{top}{MANIFEST}"])
    module = files[f"{top}{'/'.join(MODULE)}"]
    _check_module(module)
    package = Package(
        sha256=_sha256(module),
        size=len(module),
        name=manifest.name,
        description=manifest.description,
        authors=manifest.authors,
        language=manifest.language,
        archive_sha512=hashlib.sha512(data).hexdigest(),
        files_hash=_files_hash(files),
    )
    return Upload(module, package, manifest.setup)


def _top(files: Mapping[str, bytes]) -> str:
    """`NAME/`, the directory that everything is in."""
    expected = f"NAME/{MANIFEST} and NAME/{'/'.join(MODULE)}"
    for path in files:
        if path.endswith(f"/{'/'.join(MODULE)}"):
            top = path.removesuffix("/".join(MODULE))
            alone = top.removeprefix("./").count("/") == 1
            if alone and f"{top}{MANIFEST}" in files and all(it.startswith(top) for it in files):
                return top
    if not files:
        raise invalid(f"the package is empty; it needs {expected}")
    found = sorted(files)
    shown = ", ".join(repr(path[:100]) for path in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    raise invalid(f"the package needs {expected}, and nothing beside NAME; it has {shown}{more}")


def _check_module(data: bytes) -> None:
    if data.startswith(_WASM):
        return
    if not data:
        raise invalid("there are no bytes; send the file itself: curl --data-binary @FILE")
    # The text format begins with a parenthesis or a comment (core specification, chapter 6).
    if data[:4096].lstrip().startswith((b"(", b";;")):
        return
    for start, what in _MISTAKES.items():
        if data.startswith(start):
            raise invalid(f"this is {what}")
    raise invalid(
        "neither a WebAssembly module (00 61 73 6d) nor its text format nor a gzipped package; it "
        f"begins with {data[:8].hex(' ')}"
    )


def _files_hash(files: Mapping[str, bytes]) -> str:
    """SHA-512 over what the files hold, in order of their paths: the CLI's `compute hash-files`.

    https://github.com/fastly/cli/blob/main/pkg/commands/compute/hashfiles.go
    """
    digest = hashlib.sha512()
    for path in sorted(files, key=str.encode):
        digest.update(files[path])
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
