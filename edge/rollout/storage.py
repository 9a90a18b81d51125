"""Everything durable of the control plane, opened together before anything listens.

Whatever is wrong with it is a ConfigError: the server does not begin, and nothing was changed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.catalogue import services, tokens
from edge.catalogue.database import STARTUP, Catalogue, CatalogueLimits
from edge.catalogue.keyring import Keyring
from edge.catalogue.packages import PackageStore
from edge.clock import SystemClock
from edge.settings import Settings
from edge.stores.kv import KvLimits
from edge.stores.kv_sqlite import SqliteKvEngine

CATALOGUE_FILE: Final = "catalogue.sqlite3"
KV_FILE: Final = "kv.sqlite3"  # as the workers call it
KEY_FILE: Final = "secrets.key"
TOKEN_FILE: Final = "admin.token"  # noqa: S105 - the name of a file


@dataclass(frozen=True, slots=True)
class Storage:
    """What `open_storage` opened."""

    catalogue: Catalogue
    packages: PackageStore
    keyring: Keyring
    token_file: Path
    made_token: bool  # at this start

    def write_statistics(self) -> tuple[int, float]:
        """Transactions so far, and the seconds they took."""
        found = self.catalogue.statistics()
        return found.writes, found.write_seconds


def open_storage(settings: Settings, opened: contextlib.ExitStack) -> Storage:
    """Open the catalogue, the packages and the key, and see to it that there is a token.

    Blocks.  `state_dir` exists and is ours.  Raises ConfigError.
    """
    folder = settings.state_dir
    keyring = Keyring(folder / KEY_FILE)
    packages = PackageStore(folder)
    packages.start()
    catalogue = Catalogue(
        folder / CATALOGUE_FILE,
        clock=SystemClock(),
        limits=CatalogueLimits.of(settings.deploy),
        keyring=keyring,
    )
    catalogue.start()
    opened.callback(catalogue.close)
    packages.sweep(catalogue.read_now(services.referenced_packages))
    token_file = folder / TOKEN_FILE
    made = catalogue.write_now(STARTUP, lambda tx: tokens.bootstrap(tx, token_file))
    return Storage(catalogue, packages, keyring, token_file, made is not None)


def kv_engine(settings: Settings) -> SqliteKvEngine:
    """The supervisor's own, on the file that all workers have open; for the control API."""
    storage = settings.storage
    limits = KvLimits(storage.kv_value_bytes, storage.kv_store_bytes, storage.kv_total_bytes)
    return SqliteKvEngine(settings.state_dir / KV_FILE, limits, SystemClock())
