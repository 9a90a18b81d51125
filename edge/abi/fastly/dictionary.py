"""`fastly_dictionary`: config stores under their older name."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import Handle, Out, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, Missing
from edge.stores.config_store import ConfigStore

abi = HostModule("fastly_dictionary", FASTLY)

Dictionary = Annotated[ConfigStore, Handle(ConfigStore)]


@abi.hostcall
def open_(box: Sandbox, name: Str) -> Dictionary:
    """Open a store by name; BADF when the service has none of that name."""
    items = box.service.config_stores.get(name)
    if items is None:
        raise BadHandle(f"no config store {name[:64]!r} in this service")
    return ConfigStore(items)


@abi.hostcall
def get(box: Sandbox, store: Dictionary, key: Str, value: Out) -> None:
    """The value of a key; NONE when it is absent."""
    found = store.lookup(key)
    if found is None:
        raise Missing(f"no item {key!r}")
    value.fill(found)
