"""Files that only we can read, on the disk, whole, when the call returns.  It blocks."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """What is there, if anything, stays until all of `data` is on the disk.  OSError.

    A process that is killed leaves `temporary_of(path)`, which the next call removes.
    """
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)
    write_new(temporary, data)
    temporary.rename(path)
    sync_directory(path.parent)


def temporary_of(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(path.name + ".tmp")


def write_new(path: Path, data: bytes) -> None:
    """A file that was not there.  Its name is durable after `sync_directory` alone.  OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in it durable.  OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
