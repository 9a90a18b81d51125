"""Settings of what guests can reach: egress, storage, geolocation, devices, shields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edge.settings.about import GIB, MIB, About, IPNetwork, Kind


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of `egress.allow`: a host, a wildcard or a network, perhaps with a port.

    Exactly one of `host` and `network` is set; `host` is lower-case, `*` or `*.suffix` or exact.
    """

    host: str = ""
    network: IPNetwork | None = None
    port: int | None = None  # None: any

    def __str__(self) -> str:
        what = self.host or str(self.network)
        if self.port is None:
            return what
        return f"[{what}]:{self.port}" if ":" in what else f"{what}:{self.port}"


@dataclass(frozen=True, slots=True)
class Egress:
    """The policy for backends that are not the operator's own word."""

    allow: Annotated[
        tuple[EgressRule, ...],
        About(
            Kind.EGRESS,
            "Hosts (`api.example.com`, `*.example.com`, `*`) and networks (`203.0.113.0/24`), each "
            "perhaps with `:port`, that backends made by guests or through an API may name; "
            "nothing else. Backends written in this document are not asked.",
            'Add the hosts that dynamic backends need; `"*"` lets guests reach any public address.',
            example='[api.example.com, "*.example.net:443"]',
        ),
    ] = ()
    private_networks: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Whether such backends may lead to private, loopback, link-local and other special "
            "addresses, after DNS. Our own listeners are refused even then.",
            "Only where guests are trusted with everything that this machine can reach.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class Storage:
    """Data of guests."""

    kv_store_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Most that one KV store may hold, keys and metadata included; more is refused.",
            "Raise it for large stores; the file is in `state_dir`.",
            least=MIB,
            most=1024 * GIB,
        ),
    ] = GIB
    kv_total_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Most that all KV stores may hold together; more is refused.",
            "To what the disk can spare.",
            least=MIB,
            most=1024 * GIB,
        ),
    ] = 10 * GIB
    kv_value_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Largest value of a KV store.",
            "Hardly ever: the SDKs assume 25 MiB.",
            least=1024,
            most=256 * MIB,
        ),
    ] = 25 * MIB
    rate_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Memory for rate counters and penalty boxes of all services together; when it is full "
            "the entries that were idle longest go first.",
            "Raise it when many clients are counted at once (about 700 bytes each).",
            least=MIB,
            most=16 * GIB,
        ),
    ] = 64 * MIB


@dataclass(frozen=True, slots=True)
class Geolocation:
    """Data for `fastly_geo`."""

    file: Annotated[
        Path | None,
        About(
            Kind.PATH,
            "A MaxMind database (`.mmdb`), or JSON that maps addresses to records.",
            "Without one, guests find nothing for an address.",
            unset="none",
        ),
    ] = None
    addresses: Annotated[
        Mapping[str, str],
        About(
            Kind.RECORDS,
            "Records by address, for addresses that `file` does not know or gets wrong.",
            "For tests, and for networks of your own.",
            example='{"192.0.2.1": {city: Paris}}',
        ),
    ] = field(default_factory=dict)  # address -> JSON text


@dataclass(frozen=True, slots=True)
class DeviceDetection:
    """Data for `fastly_device_detection`."""

    file: Annotated[
        Path | None,
        About(
            Kind.PATH,
            "JSON that maps User-Agent texts to records.",
            "Without one, guests are told that a device is unknown.",
            unset="none",
        ),
    ] = None
    user_agents: Annotated[
        Mapping[str, str],
        About(
            Kind.RECORDS,
            "Records by User-Agent text, before those of `file`.",
            "For tests.",
            example="{my phone: {device: {is_mobile: true}}}",
        ),
    ] = field(default_factory=dict)  # User-Agent -> JSON text


@dataclass(frozen=True, slots=True)
class ShieldSite:
    """One site: this installation (`local`), or where another one is reached."""

    local: bool = False
    encrypted: str = ""  # URL
    unencrypted: str = ""  # URL
