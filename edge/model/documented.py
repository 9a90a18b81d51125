"""The documented fields of a settings class, from its type hints; knows no setting itself."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from edge.settings import About


@dataclass(frozen=True, slots=True)
class SettingField:
    """One documented field of a settings class; `optional` fields may be `None`."""

    name: str
    about: About
    type: Any  # a class, or a generic alias such as `tuple[Listen, ...]`
    optional: bool
    required: bool
    default: object


@cache
def documented(cls: type) -> tuple[SettingField, ...]:
    """The documented fields of a settings class, in order; fields without `About` are left out."""
    return tuple(_documented(cls))


def _documented(cls: type) -> Iterator[SettingField]:
    hints = get_type_hints(cls, include_extras=True)
    for item in fields(cls):
        hint = hints[item.name]
        if get_origin(hint) is not Annotated:
            continue
        base, about = get_args(hint)
        default = item.default
        if default is MISSING and item.default_factory is not MISSING:
            default = item.default_factory()
        options = get_args(base) if get_origin(base) in (Union, types.UnionType) else ()
        optional = type(None) in options
        if optional:
            (base,) = (option for option in options if option is not type(None))
        yield SettingField(item.name, about, base, optional, default is MISSING, default)
