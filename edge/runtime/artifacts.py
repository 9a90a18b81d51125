"""The cache of compiled modules: files that only we may write, checked before they are trusted.

Loading an artifact is running its code, so a forged one is a break-in.  The chain of trust: a key
that never leaves the supervisor authenticates a *record* (facts and digest of one artifact); the
digest authenticates the artifact's bytes, on the same open descriptor that the engine then maps.
Workers get the digest through their pipe and never see the key: they run guests.

Each artifact is two files under `state_dir/artifacts`: `NAME.code` and `NAME.json`, with a name of
module hash and engine fingerprint.  Not the catalogue: everything here can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import ConfigError, Problem
from edge.runtime.inspect import ModuleInfo

KEY_BYTES: Final = 32
MAX_CACHE_BYTES: Final = 4 * 1024**3  # an 11.5 MB JavaScript service makes an artifact of 40 MB
MAX_RECORD_BYTES: Final = 16 * 1024**2
_PIECE: Final = 1024 * 1024
_NAME: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{8,64}")
_CODE, _RECORD = ".code", ".json"

_Shape = tuple[int, int, int, int]


class ArtifactRefused(Exception):
    """The file is not the artifact it should be.  Says which and how; the cure is to recompile."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled module on disk: what a worker needs to map it, and its facts."""

    path: Path
    digest: str  # of its bytes, keyless, in hex
    size: int  # bytes
    info: ModuleInfo

    def to_plain(self) -> dict[str, object]:
        """Plain types for the pipe."""
        return {
            "path": str(self.path),
            "digest": self.digest,
            "size": self.size,
            "info": self.info.to_plain(),
        }

    @classmethod
    def from_plain(cls, data: object) -> Artifact:
        """Read what `to_plain` made; ValueError for anything else."""
        match data:
            case {"path": str(path), "digest": str(digest), "size": int(size), "info": info}:
                return cls(Path(path), digest, size, ModuleInfo.from_plain(info))
        raise ValueError("not the plain form of an artifact")


def open_artifact(artifact: Artifact) -> int:
    """A descriptor of the artifact, its bytes checked.  Map it as `/proc/self/fd/N`, then close it.

    Raises ArtifactRefused when the file is missing, not ours, or not the bytes it should be.
    """
    name = artifact.path.name
    fd = _open_regular(artifact.path)
    try:
        size, digest = _digest(fd)
        if size != artifact.size or not hmac.compare_digest(digest, artifact.digest):
            raise ArtifactRefused(f"artifact {name}: its bytes have changed since it was compiled")
    except BaseException:
        os.close(fd)
        raise
    return fd


class ArtifactCache:
    """The supervisor's side: looks up, inserts and evicts."""

    def __init__(
        self, state_dir: Path, *, fingerprint: str, max_bytes: int = MAX_CACHE_BYTES
    ) -> None:
        """`fingerprint` is that of the engine.  Nothing is read or made before `start`."""
        self._state_dir = state_dir
        self._directory = state_dir / "artifacts"
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._key = b""
        self._read: dict[str, _Shape] = {}  # artifacts that were whole when we last looked
        self.pinned: frozenset[str] = frozenset()  # module hashes that eviction leaves alone

    def start(self) -> None:
        """Make directories and key where they are missing.  ConfigError when others could write."""
        for directory in (self._state_dir, self._directory):
            _private_directory(directory)
        self._key = _load_key(self._state_dir / "artifacts.key")
        for left in self._directory.glob(".tmp-*"):  # from a process that was killed while writing
            left.unlink(missing_ok=True)

    def lookup(self, sha256: str) -> Artifact | None:
        """The artifact of a module, or None: not compiled yet, or not as we left it (then removed).

        Reads the whole artifact (about 1 GB/s) unless it is the file that was whole before; what a
        worker maps it has read itself, always.  Not on a serving loop.
        """
        name = self._name(sha256)
        try:
            artifact = self._read_record(name)
            if self._read.get(name) != _shape(artifact.path):
                os.close(open_artifact(artifact))
            os.utime(artifact.path)  # eviction takes the least recently used
            self._read[name] = _shape(artifact.path)
        except FileNotFoundError:  # or evicted meanwhile, for one that has just been compiled
            return None
        except (ArtifactRefused, ValueError):
            self._remove(name)
            return None
        return artifact

    def insert(self, info: ModuleInfo, code: bytes) -> Artifact:
        """Store a compiled module durably, then evict down to the bound.  OSError when it cannot.

        An older file under the same name stays valid for whoever has it mapped: it is replaced,
        never rewritten (a mapped file that shrinks ends its readers with SIGBUS).
        """
        name = self._name(info.sha256)
        path = self._directory / (name + _CODE)
        digest = hashlib.blake2b(code, digest_size=32).hexdigest()
        artifact = Artifact(path, digest, len(code), info)
        body = json.dumps(
            {"digest": digest, "size": len(code), "info": info.to_plain()}, sort_keys=True
        )
        record = json.dumps({"record": body, "mac": self._mac(name, body)}).encode()
        self._write(path, code)
        self._write(path.with_suffix(_RECORD), record)
        self._read[name] = _shape(path)
        self._evict(keep=name)
        return artifact

    def _name(self, sha256: str) -> str:
        name = f"{sha256}-{self._fingerprint}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a module hash and an engine fingerprint")
        return name

    def _mac(self, name: str, body: str) -> str:
        assert self._key, "start() comes first"
        return hashlib.blake2b(f"{name}\n{body}".encode(), key=self._key).hexdigest()

    def _read_record(self, name: str) -> Artifact:
        path = self._directory / (name + _RECORD)
        fd = _open_regular(path)
        with open(fd, "rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            raise ArtifactRefused(f"record {path.name}: more than {MAX_RECORD_BYTES} bytes")
        match json.loads(data):
            case {"record": str(body), "mac": str(mac)}:
                if not hmac.compare_digest(mac.encode(), self._mac(name, body).encode()):
                    raise ArtifactRefused(f"record {path.name}: not written with our key")
                facts = json.loads(body)
                return Artifact.from_plain({**facts, "path": str(path.with_suffix(_CODE))})
        raise ArtifactRefused(f"record {path.name}: not a record")

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _remove(self, name: str) -> None:
        self._read.pop(name, None)
        for suffix in (_RECORD, _CODE):
            (self._directory / (name + suffix)).unlink(missing_ok=True)

    def _evict(self, *, keep: str) -> None:
        found = sorted(self._stored())
        total = sum(size for _, size, _ in found)
        for _, size, name in found:
            if total <= self._max_bytes:
                return
            if name != keep and name.partition("-")[0] not in self.pinned:
                self._remove(name)
                total -= size

    def _stored(self) -> Iterator[tuple[float, int, str]]:
        for path in self._directory.glob("*" + _CODE):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat(follow_symlinks=False)
                yield status.st_mtime, status.st_size, path.name.removesuffix(_CODE)


def _shape(path: Path) -> _Shape:
    """What changes with a file's bytes: whoever writes to it cannot help changing its ctime."""
    status = path.stat(follow_symlinks=False)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open_regular(path: Path) -> int:
    """Open a file of ours for reading; FileNotFoundError, or ArtifactRefused if it is not ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactRefused(f"{path.name}: {error.strerror}") from error
    status = os.fstat(fd)
    foreign = status.st_uid != os.geteuid() or status.st_mode & 0o022
    if foreign or not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ArtifactRefused(f"{path.name}: not a file that only we can write")
    return fd


def _digest(fd: int) -> tuple[int, str]:
    digest = hashlib.blake2b(digest_size=32)
    size = 0
    while piece := os.pread(fd, _PIECE, size):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(Problem("state_dir", f"{path}: {error.strerror}")) from error
    if status.st_uid != os.geteuid():
        raise ConfigError(
            Problem("state_dir", f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
        )
    if status.st_mode & 0o022:
        raise ConfigError(
            Problem("state_dir", f"others can write to {path}; run: chmod 700 {path}")
        )
    if status.st_mode & 0o055:
        path.chmod(0o700)  # secrets may lie here; taking rights away surprises nobody


def _load_key(path: Path) -> bytes:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError), open(os.open(path, flags, 0o600), "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        fd = _open_regular(path)
    except (ArtifactRefused, OSError) as error:
        raise ConfigError(Problem("state_dir", f"{path}: {error}; remove it")) from error
    with open(fd, "rb") as file:
        if os.fstat(fd).st_mode & 0o077:
            raise ConfigError(Problem("state_dir", f"others can read {path}; run: rm {path}"))
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ConfigError(
            Problem("state_dir", f"{path} holds {len(key)} bytes instead of {KEY_BYTES}; remove it")
        )
    return key
