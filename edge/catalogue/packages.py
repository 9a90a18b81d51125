"""Modules of packages, each a file named by its SHA-256: `state_dir/packages/ab/<sha256>`.

A file has its name only once all of it is on the disk, and is never written again.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Set
from pathlib import Path

from edge.catalogue.ids import new_id
from edge.errors import ApiRefused, ConfigError, Problem, Refusal

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TEMPORARY = "new-"
_PIECE = 1024 * 1024

# A module is stored before a version refers to it.  What was stored so lately is not removed,
# though nothing refers to it yet: compiling in between takes minutes at most.
FRESH_SECONDS = 15 * 60.0
_MOST_FRESH = 10_000

# Bytes of the disk that modules leave free, or this share of a small one: whoever uploads must not
# keep guests from storing values, and the catalogue from remembering what is changed.
RESERVE = 256 * 1024 * 1024
_RESERVE_SHARE = 20  # one of so many


class PackageStore:
    """Blocking, and usable from any thread."""

    def __init__(self, state_dir: Path, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._directory = state_dir / "packages"
        self._fresh_seconds = fresh_seconds
        self._fresh: OrderedDict[str, float] = OrderedDict()  # -> when it was last put
        self._turn = threading.Lock()  # a removal and a put of one file never meet

    def start(self) -> None:
        """Make the directory; remove what a process that was killed left behind.  ConfigError."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            _sync(self._directory.parent)
            status = self._directory.lstat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise ConfigError(
                    Problem(
                        "state_dir",
                        f"others can write to {self._directory}; it holds programs that are "
                        "served: make it yours, and chmod 700",
                    )
                )
            for path in self._directory.glob(f"{_TEMPORARY}*"):
                path.unlink()
        except OSError as error:
            raise ConfigError(
                Problem("state_dir", f"{self._directory}: {error.strerror}")
            ) from error

    def path(self, sha256: str) -> Path:
        """Where it lies, if it does."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError("not a SHA-256 in hex")
        return self._directory / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Its SHA-256; it is on the disk when this returns.  ApiRefused STORAGE."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        with self._turn:
            self._fresh[sha256] = time.monotonic()
            self._fresh.move_to_end(sha256)
            while len(self._fresh) > _MOST_FRESH:
                self._fresh.popitem(last=False)
            if _holds(path, data):
                return sha256
        try:
            self._refuse_last_room(len(data))
            self._write(path, data)
        except OSError as error:
            raise ApiRefused(
                Refusal.STORAGE, f"the package cannot be stored: {error.strerror}"
            ) from error
        return sha256

    def read(self, sha256: str) -> bytes:
        """ApiRefused STORAGE when it is gone, or is not what its name says."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError as error:
            raise ApiRefused(
                Refusal.STORAGE, f"the module {sha256} cannot be read: {error.strerror}"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ApiRefused(
                Refusal.STORAGE, f"the module {sha256} is damaged on the disk; deploy it again"
            )
        return data

    def remove(self, sha256: str) -> bool:
        """Remove it, unless it was put lately; True when it is gone.

        The caller knows that no version refers to it (`edge.catalogue.tidy`).
        """
        with self._turn:
            put = self._fresh.get(sha256)
            if put is not None and time.monotonic() - put < self._fresh_seconds:
                return False
            self._fresh.pop(sha256, None)
            try:
                self.path(sha256).unlink(missing_ok=True)
            except OSError:  # it only takes room; the next start tries again
                return False
            return True

    def sweep(self, referenced: Set[str]) -> int:
        """Remove all that is not referenced and was not put lately; returns how many went."""
        gone = 0
        for path in list(self._files()):
            if path.name not in referenced and self.remove(path.name):
                gone += 1
        return gone

    def _refuse_last_room(self, size: int) -> None:
        found = os.statvfs(self._directory)
        reserve = min(RESERVE, found.f_blocks * found.f_frsize // _RESERVE_SHARE)
        if found.f_bavail * found.f_frsize < size + reserve:
            raise ApiRefused(
                Refusal.STORAGE,
                f"the disk of state_dir has no room for a module of {size} bytes beside the "
                f"{reserve} that are kept for other data; delete versions, or make room",
            )

    def _files(self) -> Iterator[Path]:
        for path in self._directory.glob("[0-9a-f][0-9a-f]/*"):
            if _SHA256.fullmatch(path.name):
                yield path

    def _write(self, path: Path, data: bytes) -> None:
        temporary = self._directory / f"{_TEMPORARY}{new_id()}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(self._directory)  # another thread may have made it, and not come to this yet
            temporary.rename(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file has exactly these bytes; one that was damaged is written again."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != len(data):
                return False
            with memoryview(data) as view:
                return all(
                    file.read(_PIECE) == view[start : start + _PIECE]
                    for start in range(0, len(data), _PIECE)
                )
    except OSError:
        return False


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
