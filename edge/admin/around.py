"""What the endpoints of the control API are given to work with; composition puts it together.

An endpoint module exports `def routes(around: Around) -> list[Route]` and is named in the list of
its package: `edge.admin.v1` or `edge.admin.fastly`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge.admin.control import ControlPlane
from edge.admin.status import Status
from edge.admin.token_cache import TokenCache
from edge.clock import Clock
from edge.model.limits import Limits
from edge.model.parse import Config
from edge.settings import Listen, Settings
from edge.stores.kv import KvEngine

if TYPE_CHECKING:
    from edge.catalogue.database import Catalogue
    from edge.catalogue.keyring import Keyring
    from edge.catalogue.packages import PackageStore


def _nowhere() -> tuple[Listen, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Around:
    """One per server.  Everything in it outlives every call."""

    catalogue: Catalogue
    packages: PackageStore
    keyring: Keyring
    control: ControlPlane
    kv: KvEngine  # the supervisor's own, on the file that workers share
    settings: Settings
    document: Callable[[], Config]  # of the last reload: what an activation goes by
    clock: Clock
    report: Callable[[], Status]  # what `AdminApp` is given as well
    listens: Callable[[], tuple[Listen, ...]] = _nowhere  # public addresses, ports as chosen
    tokens: TokenCache = field(default_factory=TokenCache)  # tell it of every revoked token

    @property
    def limits(self) -> Limits:
        """Those of a service that does not say."""
        return self.document().limits

    @property
    def ceilings(self) -> Limits:
        """What no service may exceed."""
        return self.document().ceilings
