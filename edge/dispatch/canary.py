"""Which clients get a canary: always the same ones, and with a larger share only more of them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edge.model.service import Role

if TYPE_CHECKING:
    from edge.dispatch.deployed import Deployed

SHARES: Final = 10_000
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2
_SUBSCRIBER: Final = 8  # octets: a host changes its address within a /64 as it likes (RFC 8981)


class Canary:
    """A version that stands in for the active one of its service."""

    __slots__ = ("_key", "_share", "deployed")

    def __init__(self, deployed: Deployed) -> None:
        """Every worker, and every later start, picks the same clients."""
        version = deployed.version
        self.deployed = deployed
        self._share = version.share
        # Keyed, so that a client is not in the first percent of every service.
        self._key = blake2b((version.id or deployed.name).encode(), digest_size=32).digest()

    def takes(self, client: bytes) -> bool:
        """Whether a client, by its address of 4 or 16 octets, is one of the share."""
        if len(client) == 16:
            client = client[12:] if client.startswith(_MAPPED) else client[:_SUBSCRIBER]
        digest = blake2b(client, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest) % SHARES < self._share


def place_canaries(served: Sequence[Deployed]) -> None:
    """Tell each active version its canary; one that cannot run takes no clients from it."""
    canaries = {
        each.name: Canary(each) for each in served if each.version.role is Role.CANARY and each.runs
    }
    for each in served:
        is_active = each.version.role is Role.ACTIVE
        each.canary = canaries.get(each.name) if is_active else None
