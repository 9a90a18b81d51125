"""Packages for tests: good ones as the Fastly CLI makes them, and archives nobody should make."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping

EMPTY_MODULE = b"\0asm\1\0\0\0"
MANIFEST = b'manifest_version = 3\nname = "demo"\nlanguage = "other"\n'
BLOCK = 512


def package(
    module: bytes = EMPTY_MODULE,
    manifest: bytes = MANIFEST,
    *,
    top: str = "demo",
    others: Mapping[str, bytes] | None = None,
) -> bytes:
    """A package, with files beside its program where `others` names some."""
    files = {f"{top}/bin/main.wasm": module, f"{top}/fastly.toml": manifest}
    return archive({**files, **(others or {})}.items())


def archive(
    files: Iterable[tuple[str, bytes]], *, form: int = tarfile.USTAR_FORMAT, level: int = 6
) -> bytes:
    """A `.tar.gz`; a name may come twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), compresslevel=level, mtime=0)


def header(
    name: bytes, size: int = 0, kind: bytes = b"0", *, size_field: bytes | None = None
) -> bytes:
    """One block of a tar, with a checksum that fits whatever is in it."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size_field or b"%011o\0" % size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, data: bytes = b"", kind: bytes = b"0") -> bytes:
    """A header, and what it announces."""
    return header(name, len(data), kind) + data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length += 1
    return b"%d" % length + rest


def gzipped(*blocks: bytes, end: bytes = bytes(2 * BLOCK)) -> bytes:
    """Blocks as a `.tar.gz`, with the end that a tar has."""
    return gzip.compress(b"".join(blocks) + end, mtime=0)
