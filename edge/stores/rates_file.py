"""The file that workers share their rate counters in: where it is, and how it comes to be.

The supervisor prepares it before the first worker starts; workers map it.  It holds nothing that
must outlive the machine's uptime, so it lies in memory where that is possible, with all its space
taken at once: a hole that cannot be filled later would kill whoever writes there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from hashlib import blake2b
from pathlib import Path

import lmdb

from edge.errors import ConfigError, Problem
from edge.stores.rates import SECRET_BYTES

FACTS, SECRET = b"facts", b"secret"  # the database that holds the key for hashing, and its key
_FORMAT = "1"  # of what is in the file
_MARK = "made-for"
_FILE = "rates.lmdb"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a directory of our own in there, checked below


def choose_directory(
    state_dir: Path, rate_bytes: int, shared_memory: Path = _SHARED_MEMORY
) -> Path:
    """A directory in shared memory that belongs to this state directory, or one in it.

    On a disk the kernel would write the counters out again and again, and stop a worker meanwhile.
    """
    name = blake2b(os.fsencode(state_dir.resolve()), digest_size=8).hexdigest()
    directory = shared_memory / f"edge-rates-{os.geteuid()}-{name}"
    if (directory / _FILE).exists():
        return directory
    try:
        free = os.statvfs(shared_memory)
    except OSError:
        return state_dir / "rates"
    if free.f_bavail * free.f_frsize < 2 * rate_bytes or not os.access(shared_memory, os.W_OK):
        return state_dir / "rates"
    return directory


def prepare(directory: Path, rate_bytes: int) -> Path:
    """Make the file, or keep the one that an earlier server left since this machine started.

    Not while others have it open.  Raises ConfigError when there is no room or the directory is
    somebody else's.
    """
    try:
        _own(directory)
        path = directory / _FILE
        mark = f"{_FORMAT} {rate_bytes} {_BOOT_ID.read_text().strip()}"
        if _read(directory / _MARK) == mark and path.exists():
            return path
        for old in (_MARK, _FILE, f"{_FILE}-lock"):
            (directory / old).unlink(missing_ok=True)
        _create(path, rate_bytes)
        (directory / _MARK).write_text(mark)  # last: without it the file does not count
    except (OSError, lmdb.Error) as error:
        problem = f"no file of {rate_bytes} bytes in {directory}: {error}"
        raise ConfigError(Problem("storage.rate_bytes", problem)) from None
    return path


def discard(path: Path) -> None:
    """Give the memory back: the server has ended, and none of its workers is left."""
    for name in (_MARK, path.name, f"{path.name}-lock"):
        path.with_name(name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody has put a file of his own there
        path.parent.rmdir()


def map_file(path: Path, rate_bytes: int, *, in_place: bool = True) -> lmdb.Environment:
    """`in_place`: write into the mapping, all of which must be there.  Raises lmdb.Error."""
    return lmdb.open(
        str(path),
        map_size=rate_bytes,
        subdir=False,
        mode=0o600,
        sync=False,
        metasync=False,
        writemap=in_place,
        readahead=False,
        meminit=False,
        max_dbs=8,
        max_spare_txns=1,
    )


def _own(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory of our own with mode 0700")


def _create(path: Path, rate_bytes: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.close(file)
    with (
        map_file(path, rate_bytes, in_place=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        facts = environment.open_db(FACTS, transaction)
        transaction.put(SECRET, os.urandom(SECRET_BYTES), db=facts)
    file = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, rate_bytes)
    finally:
        os.close(file)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
