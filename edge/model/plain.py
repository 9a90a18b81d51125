"""Frozen dataclasses to JSON's plain types and back, guided by their type hints.

Made for what crosses a pipe between our own processes: it trusts the sender, and it carries
secrets in the clear.  Not for documents that people write.
"""

from __future__ import annotations

import types
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edge.model.secret import Secret
from edge.settings import IPNetwork

T = TypeVar("T")


def to_plain(value: object) -> object:
    """`value` as dict, list, str, int, float, bool and None.  Raises TypeError for other types."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return value.value
        case Secret():
            return b64encode(value.reveal()).decode()
        case Path():
            return str(value)
        case tuple():
            return [to_plain(item) for item in value]
        case Mapping():
            return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, IPNetwork):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: to_plain(getattr(value, item.name)) for item in fields(value) if item.init
        }
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(cls: type[T], data: object) -> T:
    """The dataclass that `to_plain` took apart.

    Raises TypeError, KeyError or ValueError when `data` is not its plain form.
    """
    built: T = _build(cls, data)
    return built


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _dataclass(cls: Any, data: Any) -> object:
    hints = _hints(cls)
    members = [item.name for item in fields(cls) if item.init]
    return cls(**{name: _build(hints[name], data[name]) for name in members})


def _build(hint: Any, data: Any) -> Any:
    if hint in (IPNetwork, IPNetwork | None):
        return None if data is None else ip_network(data)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        (inner,) = (option for option in get_args(hint) if option is not type(None))
        return _build(inner, data)
    if origin is tuple:
        (inner, _) = get_args(hint)
        return tuple(_build(inner, item) for item in data)
    if origin is Mapping:
        (_, inner) = get_args(hint)
        return {key: _build(inner, item) for key, item in data.items()}
    if hint is Secret:
        return Secret(b64decode(data, validate=True))
    if hint is Path:
        return Path(data)
    if is_dataclass(hint):
        return _dataclass(hint, data)
    if issubclass(hint, Enum):
        return hint(data)
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise TypeError(f"{data!r} is not {hint.__name__}")
    return data
