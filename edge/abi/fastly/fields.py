"""Header hostcalls that `fastly_http_req` and `fastly_http_resp` share, declared once for both.

The two that set a field are the hot path of every service: they work on the list themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.abi.codec import Out, OutList
from edge.abi.fastly.heads import (
    FIELD_OVERHEAD,
    FREE,
    Head,
    Name,
    Value,
    ValueList,
    split_values,
)
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox


def header_names_get(box: Sandbox, head: Head, names: OutList) -> None:
    """The distinct field names, lower-case."""
    names.fill(head.names())


def header_value_get(box: Sandbox, head: Head, name: Name, value: Out) -> None:
    """The first value of a field; INVAL when it is absent."""
    value.fill(head.first(name))


def header_values_get(box: Sandbox, head: Head, name: Name, values: OutList) -> None:
    """All values of a field; none when it is absent."""
    values.fill(head.values(name))


def header_values_set(box: Sandbox, head: Head, name: Name, values: ValueList) -> None:
    """Replace all values of a field; each one given is followed by a NUL."""
    head.replace(box, name, split_values(values))


def header_insert(box: Sandbox, head: Head, name: Name, value: Value) -> None:
    """Set a field to exactly one value."""
    headers = head.headers
    for field in headers:
        if field[0] == name:
            head.replace(box, name, [value])
            return
    size = head.size + len(name) + len(value)
    if size + FIELD_OVERHEAD * (len(headers) + 1) > FREE:
        head.admit(box, size, len(headers) + 1)
    head.size = size
    headers.append((name, value))


def header_append(box: Sandbox, head: Head, name: Name, value: Value) -> None:
    """Add a value to a field and keep its others."""
    headers = head.headers
    size = head.size + len(name) + len(value)
    if size + FIELD_OVERHEAD * (len(headers) + 1) > FREE:
        head.admit(box, size, len(headers) + 1)
    head.size = size
    headers.append((name, value))


def header_remove(box: Sandbox, head: Head, name: Name) -> None:
    """Remove a field; INVAL when it is absent."""
    head.remove(box, name)


FIELD_CALLS: tuple[Callable[..., None], ...] = (
    header_names_get,
    header_value_get,
    header_values_get,
    header_values_set,
    header_insert,
    header_append,
    header_remove,
)


def declare_field_calls(abi: HostModule, head: Any) -> None:
    """Add them to a module whose heads cross the ABI as `head` (an annotation with its codec)."""
    for handler in FIELD_CALLS:
        abi.named(handler.__name__, head=head)(handler)
