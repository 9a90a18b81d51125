"""What a guest asked of the host, read from a trace: without what its language's runtime asked."""

from __future__ import annotations

from edge.testing import Seen

WASI = "wasi_snapshot_preview1."


def fastly(seen: Seen) -> list[str]:
    """Fastly's hostcalls in order, without `fastly_`; WASI's clocks and arguments left out."""
    assert seen.calls_left_out == 0
    return [call.name.removeprefix("fastly_") for call in seen.calls if WASI not in call.name]


def refusals(seen: Seen) -> dict[str, int]:
    """Hostcalls that had another status than OK, with the last one."""
    return {
        call.name.removeprefix("fastly_"): call.status for call in seen.calls if call.status != 0
    }


def after(seen: Seen, call: str) -> list[str]:
    """What followed the first `call`, which is left out."""
    calls = fastly(seen)
    return calls[calls.index(call) + 1 :]
