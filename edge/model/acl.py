"""An access control list as configured: networks and what is said of each.  Lookup is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from edge.settings import IPNetwork


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One network; of several that hold an address the longest counts, of equal ones the last."""

    prefix: IPNetwork
    action: str  # what the guest is told, such as BLOCK
