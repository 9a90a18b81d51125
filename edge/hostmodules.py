"""The hostcall modules this server offers, named once: what workers link and the supervisor checks.

No import-time registration anywhere else: what is not in this list cannot be imported by a guest.
"""

from __future__ import annotations

from typing import Final

from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.hostcall import HostModule
from edge.abi.wasi.preview1 import WASI_PREVIEW1

HOST_MODULES: Final[tuple[HostModule, ...]] = (*FASTLY_MODULES, WASI_PREVIEW1)


def known_imports() -> dict[tuple[str, str], str]:
    """(module, name) of every hostcall with its core signature, such as `iiI->i`."""
    return {
        (module.name, hostcall.name): f"{hostcall.signature}->{hostcall.returns}"
        for module in HOST_MODULES
        for hostcall in module.hostcalls.values()
    }
