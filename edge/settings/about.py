"""How a setting documents itself: the kinds of values, and what a reader and a page need to know.

Every field says what it means, its unit, its default and when to change it, in `About`; the
document reader and docs/settings.md are both driven by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

IPNetwork = IPv4Network | IPv6Network

MIB = 1024 * 1024
GIB = 1024 * MIB


class Kind(Enum):
    """How a setting is written in a document; the value is how docs/settings.md names it."""

    GROUP = "group"
    DURATION = "duration"
    BYTES = "size"
    COUNT = "number"
    SHARE = "percentage"
    SWITCH = "true or false"
    CHOICE = "choice"
    NAMES = "name or list of names"
    HOST = "host"
    HOSTS = "host or list of hosts"
    URL_PATH = "path of a URL or `{exact: PATH}`"
    PATH = "path"
    ADDRESS = "address"
    LISTENERS = "address or list of addresses"
    NETWORKS = "network or list of networks"
    ROUTES = "list of routes"
    TEXT_MAP = "mapping of text"
    STORES = "mapping of stores"
    SECRETS = "mapping of secret stores"
    LIMITS = "limits"
    TEXT = "text"
    URL = "URL"
    PEM = "PEM text or `{file: PATH}`"
    CERTIFICATE = "`{certificate: PEM, key: PEM}`"
    BACKENDS = "mapping of backends"
    KV_STORES = "list of names, or mapping of names to shared stores"
    ACLS = "mapping of access control lists"
    EGRESS = "rule or list of rules"
    RECORDS = "mapping of records"
    SHIELDS = "mapping of sites"


@dataclass(frozen=True, slots=True)
class About:
    """The documentation of one setting, and the bounds its reader enforces.

    `least` and `most` are in the unit the program uses (seconds, bytes, a count, a share of 1).
    `unset` is the word a document uses for `None`.  `example` replaces a default in the docs
    where there is none.
    """

    kind: Kind
    meaning: str
    change: str = ""
    least: float | None = None
    most: float | None = None
    unset: str = ""
    example: str = ""
