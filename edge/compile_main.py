"""The compile child: one module in on stdin, one compiled artifact out on stdout, then it is gone.

Compilers are large and their input is hostile, so this process has nothing to lose: an empty
environment, no network, hard limits on CPU, address space, files and descriptors, and no keys.
Its parent (`edge.runtime.compile`) bounds the wall time and everything it reads from here.

Out comes a header, a big-endian u32 length and JSON, and then the artifact to the end of the
stream: `{"info": ..., "bytes": n, "notes": [...]}` or `{"refused": "one line"}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Sequence

from edge.errors import ModuleRefused
from edge.runtime.compile_bounds import EXIT_OK, EXIT_REFUSED, Bounds

# stdin, stdout, stderr and what the engine opens for itself while it starts (measured: 3).
MAX_DESCRIPTORS = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the child; the parent passes `Bounds.arguments()`."""
    bounds = Bounds.read(sys.argv[1:] if arguments is None else arguments)
    notes = confine(bounds)
    from edge.runtime.translate import compile_module  # loads the engine's library: see `confine`

    # One byte more than is taken: `compile_module` says that there is too much.
    data = sys.stdin.buffer.read(bounds.module_bytes + 1)
    try:
        info, artifact = compile_module(
            data, max_bytes=bounds.module_bytes, exceptions=bounds.exceptions
        )
    except ModuleRefused as refusal:
        _answer({"refused": str(refusal)}, b"")
        return EXIT_REFUSED
    except MemoryError:
        _answer({"refused": f"compiling needs more memory than {bounds.address_bytes} bytes"}, b"")
        return EXIT_REFUSED
    _answer({"info": info.to_plain(), "bytes": len(artifact), "notes": notes}, artifact)
    return EXIT_OK


def confine(bounds: Bounds) -> list[str]:
    """Give up what compiling does not need.  Returns what the kernel did not let us give up."""
    # Before the limits: loading the engine's library maps far more than it uses.
    from edge.runtime import capi, engine

    assert engine.CODE_GENERATION  # imported for its side effect of being loaded
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # results go through a pipe, which this does not bound
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_AS, bounds.address_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # A second more for CPU: SIGXCPU, which comes first, tells the parent which limit it was.
        more = 1 if limit == resource.RLIMIT_CPU and allowed == value else 0
        resource.setrlimit(limit, (allowed, allowed + more))
    refused = capi.unshare_network()  # while there is one thread: the kernel asks for that
    if refused:
        return [f"compiling with the network still in reach: {os.strerror(refused)}"]
    return []


def _answer(header: dict[str, object], artifact: bytes) -> None:
    encoded = json.dumps(header).encode()
    with contextlib.suppress(BrokenPipeError):  # a parent that gave up has killed us as well
        sys.stdout.buffer.write(len(encoded).to_bytes(4, "big") + encoded)
        sys.stdout.buffer.write(artifact)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
