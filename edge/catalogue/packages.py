"""Modules of packages, each a file named by its SHA-256: `state_dir/packages/ab/<sha256>`.

A file has its name only once all of it is on the disk, and is never written again.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from edge.catalogue.durable import sync_directory, write_new
from edge.catalogue.ids import new_id
from edge.errors import ApiRefused, ConfigError, Problem, Refusal

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TEMPORARY = "new-"
_PIECE = 1024 * 1024

# Modules that were held of late, and those nobody may have come to use; of more of these the
# next start takes care, and more of those are not held while one round of `tidy` looks at them.
_MOST_KNOWN = 10_000

# Bytes of the disk that modules leave free, or this share of a small one: whoever uploads must not
# keep guests from storing values, and the catalogue from remembering what is changed.
RESERVE = 256 * 1024 * 1024
_RESERVE_SHARE = 20  # one of so many


class PackageStore:
    """Usable from any thread; what touches the disk blocks.

    A module is stored before a version refers to it.  Whoever stores one holds it until then, and
    what is held is not removed.  What nobody refers to in the end goes at once: `take_left`.
    """

    def __init__(self, state_dir: Path) -> None:
        self.on_left: Callable[[], None] = _nobody  # `take_left` has news
        self._directory = state_dir / "packages"
        self._turn = threading.Lock()  # a removal and a put of one file never meet
        self._books = threading.Lock()  # of the rest; held for moments, so that a loop may take it
        self._held: Counter[str] = Counter()
        self._moment = 0  # counts holdings
        self._last_held: OrderedDict[str, int] = OrderedDict()  # -> the moment
        self._left: set[str] = set()

    def start(self) -> None:
        """Make the directory; remove what a process that was killed left behind.  ConfigError."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory.parent)
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

    @contextmanager
    def holding(self, sha256: str) -> Iterator[None]:
        """It is not removed meanwhile, and looked at afterwards: has it got a version?"""
        with self._books:
            self._held[sha256] += 1
            self._moment += 1
            self._last_held[sha256] = self._moment
            self._last_held.move_to_end(sha256)
            while len(self._last_held) > _MOST_KNOWN:
                self._last_held.popitem(last=False)
        try:
            yield
        finally:
            with self._books:
                self._held[sha256] -= 1
                if not self._held[sha256]:
                    del self._held[sha256]
                if len(self._left) < _MOST_KNOWN:
                    self._left.add(sha256)
            self.on_left()

    def take_left(self) -> tuple[set[str], int]:
        """SHA-256 of modules that may have no version, since the last call; and the moment now."""
        with self._books:
            taken, self._left = self._left, set()
            return taken, self._moment

    def put(self, data: bytes) -> str:
        """Its SHA-256; it is on the disk when this returns, and stays while it is held.

        ApiRefused STORAGE.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        with self._turn:
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

    def remove(self, sha256: str, since: int) -> bool:
        """Remove it, unless it is held or was after the moment `since`; True when it is gone.

        The caller knows that no version referred to it after that (`edge.catalogue.tidy`).
        """
        with self._turn:
            with self._books:
                if self._held[sha256] or self._last_held.get(sha256, 0) > since:
                    return False
            try:
                self.path(sha256).unlink(missing_ok=True)
            except OSError:  # it only takes room; the next start tries again
                return False
            return True

    def sweep(self, referenced: Set[str]) -> int:
        """Remove all that is not referenced; returns how many went.  At the start only."""
        gone = 0
        for path in list(self._files()):
            if path.name not in referenced and self.remove(path.name, self._moment):
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
            write_new(temporary, data)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            # Another thread may have made it, and not come to this yet.
            sync_directory(self._directory)
            temporary.rename(path)
            sync_directory(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _nobody() -> None:
    """Nobody wants to be told."""


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
