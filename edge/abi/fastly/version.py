"""`fastly_abi`: the guest says which version of the ABI it was built for."""

from __future__ import annotations

from edge.abi.codec import U64
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Failed

abi = HostModule("fastly_abi", FASTLY)

ABI_VERSION = 1


@abi.hostcall
def init(box: Sandbox, version: U64) -> None:
    """Accept version 1; ERROR for any other."""
    if version != ABI_VERSION:
        raise Failed(f"ABI version {version}; we speak {ABI_VERSION}")
