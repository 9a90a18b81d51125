"""`fastly_acl`: what the access control lists of a service say of an address."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Annotated

from edge.abi.codec import U32, Handle, Span, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.handles import INVALID_HANDLE
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Missing
from edge.stores.acl import Acl

abi = HostModule("fastly_acl", FASTLY)


class AclError(IntEnum):
    """`acl_error`; we never say 3, too many requests."""

    OK = 1
    NO_CONTENT = 2


AclHandle = Annotated[Acl, Handle(Acl)]
Address = Annotated[bytes, Span(limit=16)]


@abi.hostcall
def open_(box: Sandbox, name: Str) -> AclHandle:
    """Open a list by name; NONE when the service has none of that name."""
    acl = box.capabilities.acls.get(name)
    if acl is None:
        raise Missing(f"no access control list {name[:64]!r} in this service")
    return acl


@abi.hostcall
def lookup(box: Sandbox, acl: AclHandle, address: Address) -> tuple[U32, U32]:
    """A body with `{"prefix": ..., "action": ...}` and 1 for the entry with the longest prefix.

    No entry: the invalid handle and 2, no content.
    """
    entry = acl.lookup(address)
    if entry is None:
        return INVALID_HANDLE, AclError.NO_CONTENT
    # Two texts in a flat object: nothing in here recurses.
    text = json.dumps({"prefix": str(entry.prefix), "action": entry.action})
    body = box.new_body()
    handle = box.insert(body)
    body.write(text.encode())
    return handle, AclError.OK
