"""Where backends that are not the operator's own word may lead: names before DNS, addresses after.

Pure but for one question to the kernel: whether an address is this machine's.  A backend of the
operator's document is never asked about.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from edge.http.special_addresses import (
    IPAddress,
    embedded,
    normal,
    parse_literal,
    special_kind,
)
from edge.model.backend import Backend
from edge.settings import Egress, EgressRule
from edge.upstream.fetch import Cause, UpstreamFailed


class EgressPolicy:
    """`egress` of the settings, and our own listeners, which no guest may ask itself through."""

    __slots__ = ("_egress", "_is_ours", "_listeners")

    def __init__(
        self,
        egress: Egress,
        listeners: Sequence[tuple[str, int]] = (),
        *,
        is_ours: Callable[[IPAddress], bool] | None = None,
    ) -> None:
        """`listeners`: host and port of each, an empty host or an unspecified address for all.

        `is_ours` tells whether this machine has an address; without it the kernel is asked.
        """
        self._egress = egress
        self._listeners = [(_listener_address(host), port) for host, port in listeners]
        self._is_ours = is_ours or is_local

    def check_name(self, backend: Backend) -> None:
        """Before DNS, so that a name which is not allowed is not even looked up.

        Raises UpstreamFailed if no rule could ever allow the backend.
        """
        if not backend.dynamic:
            return
        origin = backend.url
        for rule in self._egress.allow:
            if rule.port not in (None, origin.port):
                continue
            if rule.network is not None or _names(rule, origin.host):
                return
        raise _refused(
            backend, f"{origin.authority} is not in egress.allow", setting="egress.allow"
        )

    def permitted(self, backend: Backend, addresses: Sequence[IPAddress]) -> list[IPAddress]:
        """Those of `addresses` (normal forms) that the backend may be connected to, in order.

        Raises UpstreamFailed, saying what is wrong with the first, if that leaves none.
        """
        if not backend.dynamic:
            return list(addresses)
        kept, first = [], None
        for address in addresses:
            refusal = self._refusal(backend, address)
            if refusal is None:
                kept.append(address)
            elif first is None:
                first = refusal
        if first is not None and not kept:
            raise first
        return kept

    def _refusal(self, backend: Backend, address: IPAddress) -> UpstreamFailed | None:
        origin = backend.url
        if not any(_allows(rule, origin.host, origin.port, address) for rule in self._egress.allow):
            message = f"{origin.host} is at {address}, which is not in egress.allow"
            return _refused(backend, message, setting="egress.allow")
        if any(self._is_own_listener(each, origin.port) for each in (address, *embedded(address))):
            message = f"{address} port {origin.port} is this server itself; no setting allows that"
            return _refused(backend, message)
        if not self._egress.private_networks and (why := special_kind(address)):
            message = f"{address} is special ({why}) and egress.private_networks is off"
            return _refused(backend, message, setting="egress.private_networks")
        return None

    def _is_own_listener(self, address: IPAddress, port: int) -> bool:
        for host, listening in self._listeners:
            if listening != port:
                continue
            # Linux takes a connection to the unspecified address to loopback.
            if address == host or address.is_unspecified:
                return True
            if host is None and self._is_ours(address):
                return True
        return False


def is_local(address: IPAddress) -> bool:
    """Whether this machine has `address`: then, and only then, can a socket be bound to it.

    With `ip_nonlocal_bind` every address can be: then all are taken for ours, on ports of ours.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))
        return True
    return False


def _listener_address(host: str) -> IPAddress | None:
    """None stands for every address of this machine."""
    try:
        address = normal(ip_address(host.strip("[]")))
    except ValueError:  # empty, or a name that only the kernel's table could tell
        return None
    return None if address.is_unspecified else address


def _names(rule: EgressRule, host: str) -> bool:
    """Whether a rule with a name is about `host`; `*.example.com` is not about example.com."""
    host = host.removesuffix(".")
    if rule.host == "*":
        return True
    if rule.host.startswith("*."):
        # A wildcard is about names: `*.1` must not be about 10.0.0.1.
        return host.endswith(rule.host[1:]) and parse_literal(host) is None
    return bool(rule.host) and host == rule.host


def _allows(rule: EgressRule, host: str, port: int, address: IPAddress) -> bool:
    if rule.port not in (None, port):
        return False
    return address in rule.network if rule.network is not None else _names(rule, host)


def _refused(backend: Backend, message: str, *, setting: str = "") -> UpstreamFailed:
    text = f"backend {backend.name}: {message}"
    return UpstreamFailed(Cause.DESTINATION_IP_UNROUTABLE, text, setting=setting)
