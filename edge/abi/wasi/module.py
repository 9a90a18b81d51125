"""The empty import module that the files of this package fill; `preview1` is the full one."""

from __future__ import annotations

from edge.abi.hostcall import HostModule
from edge.abi.wasi.errno import WASI

WASI_PREVIEW1 = HostModule("wasi_snapshot_preview1", WASI)
