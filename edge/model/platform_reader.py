"""Reads the settings of what guests can reach: egress rules, records by key, shield sites, ACLs."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path

from edge.model import names, units
from edge.model.acl import AclEntry
from edge.model.backend_reader import read_origin
from edge.model.reader import Reader, parsed, text_of
from edge.model.yaml_lines import Entries, Items, Node, Scalar, join
from edge.settings import EgressRule, Kind, ShieldSite

_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})", re.ASCII)
# Geolocation fields that are numbers; a document's own types stay outside, so the name decides.
_NUMBERS = frozenset(
    ("as_number", "area_code", "latitude", "longitude", "metro_code", "utc_offset", "gmt_offset")
)
MAX_ACL_ENTRIES = 200_000
MAX_ACTION = 255


def read_egress_rule(text: str) -> EgressRule:
    """`host`, `*.suffix`, `*` or a network, perhaps with `:port`."""
    match = _WITH_PORT.fullmatch(text)
    what, port = (match[1], int(match[2])) if match else (text, None)
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{text!r}: {port} is not a port")
    bare = what.removeprefix("[").removesuffix("]")
    try:
        return EgressRule(network=names.read_network(bare), port=port)
    except ValueError as error:
        if "/" in bare:
            form = "a rule is a host or a network, perhaps with :port, without scheme and path"
            raise ValueError(f"{error}; {form}") from None
    return EgressRule(host=names.read_host(what), port=port)


class PlatformReader(Reader):
    """Reads `Settings`; `problems` has what is wrong with them."""

    def __init__(self, base: Path) -> None:
        special = {
            Kind.EGRESS: self._egress,
            Kind.RECORDS: self._records,
            Kind.SHIELDS: self._shields,
        }
        super().__init__(base, special)

    def _egress(self, node: Node, path: str) -> tuple[EgressRule, ...]:
        return self.each(node, path, read_egress_rule)

    def _records(self, node: Node, path: str) -> dict[str, str]:
        """Records as JSON text by key; the keys of `addresses` are addresses."""
        found: dict[str, str] = {}
        for key, child in self.entries(node, path).entries.items():
            where = join(path, key)
            try:
                name = str(ip_address(key)) if path.endswith(".addresses") else key
                if not isinstance(child, Entries):
                    raise ValueError("must be a mapping")
                found[name] = json.dumps(_plain(child, ""))
            except ValueError as error:
                self.problem(where, str(error), child.line)
        return found

    def _shields(self, node: Node, path: str) -> dict[str, ShieldSite]:
        found: dict[str, ShieldSite] = {}
        for key, child in self.entries(node, path).entries.items():
            where = join(path, key)
            try:
                found[names.read_name(key)] = self._shield(child, where)
            except ValueError as error:
                self.problem(where, str(error), child.line)
        return found

    def _shield(self, node: Node, path: str) -> ShieldSite:
        if isinstance(node, Scalar):
            if text_of(node) != "local":
                raise ValueError("must be `local` or {encrypted: URL, unencrypted: URL}")
            return ShieldSite(local=True)
        entries = self.entries(node, path)
        self.check_keys(entries, ("encrypted", "unencrypted"), path)
        urls = {}
        for key, tls in (("encrypted", True), ("unencrypted", False)):
            if key not in entries.entries:
                raise ValueError(f"has no {key} URL")
            origin = parsed(entries.entries[key], read_origin)
            if origin.tls is not tls:
                raise ValueError(f"{key} must begin with {'https' if tls else 'http'}://")
            urls[key] = str(origin)
        return ShieldSite(False, urls["encrypted"], urls["unencrypted"])


def read_acl(entries: list[tuple[str, str]]) -> tuple[AclEntry, ...]:
    """Pairs of network and action.  Raises ValueError naming the first that is wrong."""
    if len(entries) > MAX_ACL_ENTRIES:
        raise ValueError(f"has {len(entries)} entries; {MAX_ACL_ENTRIES} are the most")
    return tuple(read_acl_entry(prefix, action) for prefix, action in entries)


def read_acl_entry(prefix: str, action: str) -> AclEntry:
    """Raises ValueError."""
    if len(action) > MAX_ACTION:
        raise ValueError(f"the action of {prefix} has more than {MAX_ACTION} characters")
    return AclEntry(names.read_network(prefix), action)


def acl_from_json(data: bytes) -> tuple[AclEntry, ...]:
    """`{"entries": [{"prefix": ..., "action": ...}]}`, the form that Fastly's API gives out."""
    try:
        document = json.loads(data)
        pairs = [(str(one["prefix"]), str(one["action"])) for one in document["entries"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            'is not JSON of the form {"entries": [{"prefix": "10.0.0.0/8", "action": "BLOCK"}]}'
        ) from None
    return read_acl(pairs)


def _plain(node: Node, key: str) -> object:
    """A node as JSON's types: the name of a field says whether it is a number or a switch."""
    if isinstance(node, Entries):
        return {name: _plain(child, name) for name, child in node.entries.items()}
    if isinstance(node, Items):
        return [_plain(item, key) for item in node.items]
    if node.null:
        return None
    if key.startswith("is_"):
        return parsed(node, units.read_switch)
    if key in _NUMBERS:
        return parsed(node, _number)
    return text_of(node)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{text!r} is not a number")
    return value
