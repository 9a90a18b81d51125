"""`fastly_geo`: where an address is."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import Out, Span
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.stores.acl import plain_address

abi = HostModule("fastly_geo", FASTLY)

Address = Annotated[bytes, Span(limit=16)]


@abi.hostcall
async def lookup(box: Sandbox, address: Address, record: Out) -> None:
    """The JSON record of 4 or 16 octets (other lengths are INVAL); nothing when it is unknown."""
    address = plain_address(address)
    geo = box.capabilities.geo
    found = geo.known(address) if geo is not None else None
    if found is None and geo is not None and geo.searches:
        await Pause()  # a database is read recursively, which must not be on the guest's stack
        found = geo.search(address)
    record.fill(found or b"")
