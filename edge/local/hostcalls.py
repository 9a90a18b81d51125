"""Hostcalls that answer otherwise in a local server: the list that a runtime is given, changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox

KEY_FIELD = b"fastly-key"


def replaced(
    modules: Iterable[HostModule], handlers: Mapping[tuple[str, str], Callable[..., Any]]
) -> tuple[HostModule, ...]:
    """The modules with other handlers for (module, name); what crosses the ABI stays the same.

    Raises KeyError for a hostcall that there is not.
    """
    left = dict(handlers)
    found = []
    for module in modules:
        hostcalls = {
            name: dataclasses.replace(hostcall, handler=left.pop((module.name, name)))
            if (module.name, name) in left
            else hostcall
            for name, hostcall in module.hostcalls.items()
        }
        found.append(HostModule(module.name, module.dialect, hostcalls))
    if left:
        raise KeyError(f"no hostcalls {sorted(left)}")
    return tuple(found)


def key_checks(
    valid_keys: Callable[[], frozenset[str]],
) -> dict[tuple[str, str], Callable[..., int]]:
    """Both `fastly_key_is_valid`: whether the client's `fastly-key` is one of these."""

    def is_valid(box: Sandbox, *_: object) -> int:
        keys = valid_keys()
        return int(
            any(
                name == KEY_FIELD and value.decode("latin-1") in keys
                for name, value in box.downstream.head.headers
            )
        )

    return {
        (module, "fastly_key_is_valid"): is_valid
        for module in ("fastly_http_req", "fastly_http_downstream")
    }
