"""The keys that secrets are sealed with, in a file of their own: `state_dir/secrets.key`.

XChaCha20-Poly1305 from libsodium (decision 019), with the store and the name of the secret as
associated data: a sealed value that is moved to another place does not open.  Of several keys the
newest seals; older ones open what they sealed until `edge.catalogue.rotation` has replaced it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.secret import Aead
from nacl.utils import random

from edge.catalogue.durable import replace_file, temporary_of
from edge.catalogue.ids import new_id
from edge.errors import ConfigError, Problem

_MOST_BYTES = 64 * 1024  # of the file; a key is about 100
MOST_KEYS = 100


class Unopened(Exception):
    """A sealed value that none of the keys opens: damaged, or moved, or its key is gone."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value at rest."""

    sealed_by: str  # the id of a key
    value: bytes
    digest: bytes  # 32 bytes; equal values of one store have equal ones while the key is the same


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"_Key({self.id})"


class Keyring:
    """Used from any thread.  Keys change by replacing a tuple, after the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: tuple[_Key, ...] = ()  # oldest first
        self._changing = threading.Lock()

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return self._keys[-1].id

    @property
    def ids(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(key.id for key in self._keys)

    def start(self, needed: frozenset[str] = frozenset()) -> None:
        """Read the file, or make one where no secret needs an older one.

        `needed` are the keys that secrets are sealed with.  Raises ConfigError, with nothing
        changed, when one is missing, when others can read the file, or when it is damaged.
        """
        temporary = temporary_of(self._path)
        temporary.unlink(missing_ok=True)  # of a process that was killed: never in use yet
        if self._path.is_symlink() or self._path.exists():
            self._keys = self._read()
        elif needed:
            raise self._wrong(
                "is missing, and secrets in the catalogue are sealed with its keys; nothing is "
                "lost: put it back from your copy"
            )
        else:
            self._write((_Key(new_id(), random(Aead.KEY_SIZE)),))
        if missing := needed - set(self.ids):
            raise self._wrong(
                f"does not have the keys {', '.join(sorted(missing))}, which seal secrets in the "
                "catalogue; nothing is lost: put the file back that belongs to it"
            )

    def seal(self, store_id: str, name: str, value: bytes) -> Sealed:
        """With the newest key and a random nonce of 192 bits."""
        key = self._keys[-1]
        box = Aead(key.key)
        return Sealed(
            sealed_by=key.id,
            value=bytes(box.encrypt(value, _place(store_id, name))),
            digest=_digest(key, store_id, value),
        )

    def open(self, sealed_by: str, store_id: str, name: str, value: bytes) -> bytes:
        """What was sealed.  Raises Unopened."""
        for key in self._keys:
            if key.id == sealed_by:
                try:
                    return bytes(Aead(key.key).decrypt(value, _place(store_id, name)))
                except CryptoError:
                    raise Unopened(f"the secret {name!r} is damaged or was moved") from None
        raise Unopened(f"the key {sealed_by} of the secret {name!r} is not in {self._path.name}")

    def rotate(self) -> str:
        """Add a key, which seals from now on; returns its id.  Durable when it returns; blocks.

        What older keys sealed still opens.
        """
        with self._changing:
            if len(self._keys) >= MOST_KEYS:
                raise self._wrong(f"has {MOST_KEYS} keys; finish the last rotation first")
            self._write((*self._keys, _Key(new_id(), random(Aead.KEY_SIZE))))
            return self.newest

    def retire(self, used: frozenset[str]) -> int:
        """Forget older keys that seal nothing; returns how many.  Blocks.

        `used` must have been read when nothing could be sealed by an older key any more: within the
        lane of writes.
        """
        with self._changing:
            kept = tuple(key for key in self._keys[:-1] if key.id in used)
            gone = len(self._keys) - 1 - len(kept)
            if gone:
                self._write((*kept, self._keys[-1]))
            return gone

    def _read(self) -> tuple[_Key, ...]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(_MOST_BYTES)
        except OSError as error:
            raise self._wrong(f"cannot be read: {error.strerror}") from error
        if status.st_uid != os.geteuid():
            raise self._wrong(f"belongs to user {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o077:
            raise self._wrong(
                "can be read by others; run: chmod 600, and rotate the key if they may have"
            )
        try:
            document = json.loads(data)
            keys = tuple(
                _Key(str(key["id"]), base64.b64decode(key["key"], validate=True))
                for key in document["keys"]
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._wrong("is damaged; put it back from your copy") from None
        if not keys or any(len(key.key) != Aead.KEY_SIZE for key in keys):
            raise self._wrong("is damaged; put it back from your copy")
        return keys

    def _write(self, keys: tuple[_Key, ...]) -> None:
        """Replace the file, and only then use what it says."""
        document = {
            "keys": [
                {"id": key.id, "key": base64.b64encode(key.key).decode("ascii")} for key in keys
            ]
        }
        try:
            replace_file(self._path, json.dumps(document, indent=1).encode())
        except OSError as error:
            raise self._wrong(f"cannot be written: {error.strerror}") from error
        self._keys = keys

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError(Problem("state_dir", f"{self._path} {why}"))


def _place(store_id: str, name: str) -> bytes:
    return f"{store_id}\0{name}".encode()


def _digest(key: _Key, store_id: str, value: bytes) -> bytes:
    """Keyed, and of one store: it tells its owner that two values are equal, and others nothing."""
    derived = hashlib.blake2b(key=key.key, person=b"edge digest").digest()
    return hashlib.blake2b(store_id.encode() + b"\0" + value, key=derived, digest_size=32).digest()
