"""What may stand in a store, by its kind: Fastly's rules, so that programs move both ways."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network

from edge.catalogue.checks import read, read_text
from edge.catalogue.records import StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_network

KEY_CHARS = 256
VALUE_CHARS = 8000
SECRET_BYTES = 64 * 1024
ACL_COMMENT_CHARS = 4096
# Keys and values of one store.  Every worker holds them in memory, once for each served link to it.
STORE_BYTES = 8 * 1024 * 1024

_SECRET_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)

NETWORKS = (StoreKind.ACL, StoreKind.SERVICE_ACL)  # their entries have ids, and networks as keys


def read_key(kind: StoreKind, key: str) -> str:
    """A key in its normal form.  ApiRefused INVALID."""
    match kind:
        case StoreKind.CONFIG | StoreKind.DICTIONARY:
            return read_text("a key", key, KEY_CHARS)
        case StoreKind.SECRET:
            if not _SECRET_NAME.fullmatch(key):
                raise ApiRefused(
                    Refusal.INVALID,
                    f"{key[:64]!r} is not the name of a secret: 1 to 255 letters, digits, '_', "
                    "'.' or '-'",
                )
            return key
        case StoreKind.ACL:
            return read("prefix", key, lambda text: str(read_network(text)))
        case StoreKind.SERVICE_ACL:
            return read("network", key, _loose_network)
        case StoreKind.KV:
            raise ApiRefused(Refusal.INVALID, "what is in a KV store is not in the catalogue")


def read_value(kind: StoreKind, key: str, value: bytes) -> bytes:
    """A value in its normal form.  ApiRefused INVALID, which never quotes it."""
    match kind:
        case StoreKind.SECRET:
            if len(value) > SECRET_BYTES:
                raise ApiRefused(
                    Refusal.INVALID,
                    f"the secret {key} has {len(value)} bytes; at most {SECRET_BYTES} are kept",
                )
            return value
        case StoreKind.ACL | StoreKind.SERVICE_ACL:
            return _acl_value(kind, key, value)
        case _:
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise ApiRefused(
                    Refusal.INVALID, f"the value of {key!r} is not text in UTF-8"
                ) from None
            if len(text) > VALUE_CHARS:
                raise ApiRefused(
                    Refusal.INVALID,
                    f"the value of {key!r} has {len(text)} characters; at most {VALUE_CHARS} are "
                    "kept; longer ones belong into a KV store",
                )
            return value


def _loose_network(text: str) -> str:
    """Fastly's service ACLs take an address of the network for the network."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not a network such as 10.0.0.0/8") from None


def _acl_value(kind: StoreKind, key: str, value: bytes) -> bytes:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    match kind, found:
        case StoreKind.ACL, {"action": "ALLOW" | "BLOCK", **rest} if not rest:
            return _plain(found)
        case StoreKind.SERVICE_ACL, {"negated": bool(), "comment": str(comment), **rest} if (
            not rest and len(comment) <= ACL_COMMENT_CHARS
        ):
            return _plain(found)
    form = (
        '{"action": "ALLOW"} or {"action": "BLOCK"}'
        if kind is StoreKind.ACL
        else f'{{"negated": true or false, "comment": up to {ACL_COMMENT_CHARS} characters}}'
    )
    raise ApiRefused(Refusal.INVALID, f"what is said of {key} has the form {form}")


def _plain(found: object) -> bytes:
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
