"""WASI preview1, all 46 functions: the files of this package, put together.

No files and no sockets: a sandbox has three streams, clocks, randomness, arguments and an
environment.  docs/wasi.md, rendered from the declarations, says what each function answers.
"""

from __future__ import annotations

from edge.abi.wasi import arguments, clocks, descriptors, poll, process, refused
from edge.abi.wasi.module import WASI_PREVIEW1

__all__ = ["WASI_PREVIEW1"]

# Naming them keeps the imports that fill the module from looking unused.
PARTS = (arguments, clocks, descriptors, poll, process, refused)
