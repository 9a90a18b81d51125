"""A gzipped tar of somebody else's, read in memory with bounds: nothing of it names a file of ours.

The standard library's reader is left out on purpose.  It recurses for each extended header, reads
one of any length, and knows links, devices and sparse files, none of which a package has.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.errors import ApiRefused, Refusal
from edge.model.units import write_bytes
from edge.settings import MIB

GZIP_MAGIC: Final = b"\x1f\x8b"
MAX_MEMBERS: Final = 10_000  # a package with its sources has hundreds; directories count as well
MAX_NAME_BYTES: Final = 1024
# Extended headers carry a long name and a few times; some archivers add attributes.
MAX_EXTENDED_BYTES: Final = 64 * 1024
# Deflate reaches 1032; programs 3 to 20, and a snapshot of a half empty heap perhaps 100.
MAX_RATIO: Final = 250
_RATIO_FROM: Final = 4 * MIB  # bytes that may come out before the ratio is looked at

_BLOCK: Final = 512
_PIECE: Final = 64 * 1024
_ZEROS: Final = bytes(_BLOCK)
_REGULAR: Final = (b"0", b"\0", b"7")  # 7 is a regular file to whoever does not know better
_DIRECTORY, _LONG_NAME, _EXTENDED, _GLOBAL = b"5", b"L", b"x", b"g"
_NOT_TAKEN: Final[Mapping[bytes, str]] = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
    b"M": "a part of a file that spans volumes",
    b"V": "a volume label",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes that files of an archive may have."""

    largest: int  # of the one file that is expected to be large
    bulk: tuple[str, ...]  # where that is, below a directory of any name
    others: int  # of all other files together


def read_archive(data: bytes, bounds: Bounds) -> dict[str, bytes]:
    """The regular files of a `.tar.gz` by path, in order of appearance.

    At most `data`, one bulky file and `bounds.others` are in memory.  ApiRefused PACKAGE_INVALID
    names what is wrong, TOO_LARGE what is larger than it may be.  Blocks: 100 MB take a second.
    """
    return _Archive(data, bounds).files()


def invalid(detail: str) -> ApiRefused:
    """The package cannot be used."""
    return ApiRefused(Refusal.PACKAGE_INVALID, detail)


def _too_large(detail: str) -> ApiRefused:
    return ApiRefused(Refusal.TOO_LARGE, detail)


class _Inflated:
    """What a gzip stream holds, inflated as it is taken and never ahead of that by much."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = memoryview(data)
        self._fed = 0
        self._most = most
        self._out = 0
        self._stream = zlib.decompressobj(wbits=31)
        self._ready = b""

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes; a stream that ends before is refused, and so is one too long."""
        if size <= len(self._ready):
            taken, self._ready = self._ready[:size], self._ready[size:]
            return taken
        pieces = io.BytesIO()  # grows in place; a list of pieces would be held twice when joined
        pieces.write(self._ready)
        self._ready = b""
        while (missing := size - pieces.tell()) > 0:
            piece = self._more()
            if not piece:
                raise invalid(f"the archive is cut short within {what}")
            pieces.write(piece[:missing])
            self._ready = piece[missing:]
        return pieces.getvalue()

    def rest_is_zero(self) -> bool:
        """Read to the end; archivers fill their last record with zeros."""
        zero = not self._ready.strip(b"\0")
        self._ready = b""
        while zero and (piece := self._more()):
            zero = not piece.strip(b"\0")
        return zero

    def check_end(self) -> None:
        """Refuses a stream whose checksum is missing, and bytes behind it."""
        if not self._stream.eof:
            raise invalid("the archive is cut short: its gzip stream has no end")
        behind = len(self._data) - self._fed + len(self._stream.unused_data)
        if behind:
            raise invalid(f"{behind} bytes follow the end of the archive's gzip stream")

    def _more(self) -> bytes:
        """Up to one piece more; empty at the end of what there is."""
        stream = self._stream
        try:
            while not stream.eof:
                fresh: bytes | memoryview = stream.unconsumed_tail
                if not fresh:
                    fresh = self._data[self._fed : self._fed + _PIECE]
                    self._fed += len(fresh)
                piece = stream.decompress(fresh, _PIECE)
                if piece:
                    self._count(len(piece))
                    return piece
                if not fresh:
                    return b""
        except zlib.error as error:
            raise invalid(f"the archive's gzip stream is damaged: {error}") from None
        return b""

    def _count(self, size: int) -> None:
        self._out += size
        if self._out > self._most:
            raise _too_large(f"the archive holds more than {write_bytes(self._most)}")
        if self._out > _RATIO_FROM and self._out > MAX_RATIO * self._fed:
            raise invalid(
                f"the archive is compressed more than {MAX_RATIO} times, as no program is"
            )


@dataclass(slots=True)
class _Told:
    """What extended headers say of the next member."""

    path: str | None = None
    size: int | None = None


class _Archive:
    """One pass over the members of an archive."""

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        self._bounds = bounds
        # Headers of as many members as there may be come on top of what files hold.
        overhead = MAX_MEMBERS * 2 * _BLOCK
        self._stream = _Inflated(data, bounds.largest + bounds.others + overhead)
        self._found: dict[str, bytes] = {}
        self._seen: set[tuple[str, ...]] = set()
        self._others = bounds.others  # bytes that are left for them
        self._bulk = ""

    def files(self) -> dict[str, bytes]:
        members, told = 0, _Told()
        while (header := self._stream.take(_BLOCK, "its list of files")) != _ZEROS:
            members += 1
            if members > MAX_MEMBERS:
                raise invalid(f"the archive has more than {MAX_MEMBERS} members")
            _check_header(header, members)
            kind = header[156:157]
            if kind in (_EXTENDED, _GLOBAL, _LONG_NAME):
                self._extended(kind, _number(header[124:136], "size"), told)
                continue
            path = _text(_name(header)) if told.path is None else told.path
            size = _number(header[124:136], "size") if told.size is None else told.size
            self._member(kind, path, size)
            told = _Told()
        if not self._stream.rest_is_zero():
            raise invalid("something follows the end of the archive")
        self._stream.check_end()
        return self._found

    def _member(self, kind: bytes, path: str, size: int) -> None:
        if kind in _NOT_TAKEN:
            raise invalid(
                f"{_shown(path)} is {_NOT_TAKEN[kind]}; a package has files and directories only"
            )
        parts = _parts(path)
        if kind == _DIRECTORY or (kind == b"\0" and path.endswith("/")):
            if size:
                raise invalid(f"the directory {_shown(path)} is said to have {size} bytes")
            return
        if kind not in _REGULAR:
            raise invalid(f"{_shown(path)} is of an unknown kind, {kind!r}")
        if not parts or path.endswith("/"):
            raise invalid(f"{_shown(path)} is no name of a file")
        if parts in self._seen:
            raise invalid(f"{_shown(path)} is in the archive twice")
        self._seen.add(parts)
        if parts[1:] == self._bounds.bulk:
            self._bulky(path, size)
        else:
            self._others -= size
            if self._others < 0:
                raise _too_large(
                    f"the other files of the archive have more than "
                    f"{write_bytes(self._bounds.others)} together"
                )
        self._found[path] = self._contents(size, path)

    def _bulky(self, path: str, size: int) -> None:
        if self._bulk:
            raise invalid(f"the archive has two programs, {_shown(self._bulk)} and {_shown(path)}")
        if size > self._bounds.largest:
            raise _too_large(
                f"{_shown(path)} has {size} bytes; at most {self._bounds.largest} are taken"
            )
        self._bulk = path

    def _extended(self, kind: bytes, size: int, told: _Told) -> None:
        if size > MAX_EXTENDED_BYTES:
            raise invalid(f"an extended header of {size} bytes; at most {MAX_EXTENDED_BYTES}")
        data = self._contents(size, "an extended header")
        if kind == _LONG_NAME:
            told.path = _text(data.rstrip(b"\0"))
            return
        for key, value in _records(data):
            if key.startswith(b"GNU.sparse"):
                raise invalid("the archive has a sparse file; pack it without --sparse")
            if key not in (b"path", b"size"):
                continue
            if kind == _GLOBAL:
                raise invalid(f"the archive sets {key.decode()} for all of its files")
            if key == b"path":
                told.path = _text(value)
            else:
                told.size = _decimal(value, "size")

    def _contents(self, size: int, path: str) -> bytes:
        what = path if path == "an extended header" else _shown(path)
        data = self._stream.take(size, what)
        self._stream.take(-size % _BLOCK, what)
        return data


def _check_header(header: bytes, position: int) -> None:
    written = _number(header[148:156], "checksum")
    # the field itself counts as spaces (POSIX, pax: ustar interchange format)
    if written != sum(header) - sum(header[148:156]) + 8 * 32:
        if position == 1:
            raise invalid("what is compressed is no tar archive; a package is a .tar.gz")
        raise invalid(f"the header of member {position} of the archive is damaged")


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU writes times where POSIX has a prefix, and two spaces where POSIX has a NUL
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes, what: str) -> int:
    """An octal number, or a binary one as GNU writes what octal digits have no room for."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise invalid(f"a header of the archive has a {what} below 0 or far too large")
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if any(digit not in b"01234567" for digit in digits):
        raise invalid(f"a header of the archive has a {what} that is no number; is it a .tar.gz?")
    return int(digits, 8) if digits else 0


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise invalid(f"an extended header of the archive has a {what} that is no number")
    return int(value)


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The `LENGTH KEY=VALUE\\n` records of an extended header."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise invalid("an extended header of the archive is malformed")
        found.append((key, value))
        at = end
    return found


def _text(name: bytes) -> str:
    if len(name) > MAX_NAME_BYTES:
        raise invalid(f"a name of {len(name)} bytes; at most {MAX_NAME_BYTES}")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise invalid(f"the name {name[:64]!r} is not UTF-8") from None


def _parts(path: str) -> tuple[str, ...]:
    """The path taken apart.  Nothing is written by it; but one that leads out means harm."""
    if path.startswith("/"):
        raise invalid(f"{_shown(path)} is an absolute path")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in path or "\\" in path:
        raise invalid(f"{_shown(path)} is a path that leads elsewhere")
    return parts


def _shown(path: str) -> str:
    """A path that a hostile archive chose, fit for a message."""
    return repr(path if len(path) <= 100 else path[:97] + "...")
