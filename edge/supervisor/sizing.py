"""How many sandboxes and how much memory each worker gets, from what this machine has."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

from edge.control import Sizing
from edge.model.limits import Limits
from edge.settings import MIB, Settings

MEMORY_PER_SLOT: Final = 16 * MIB  # what `pool.slots: auto` assumes of an average guest
MAX_AUTO_SLOTS: Final = 1000  # more than that queue better than they run
MIN_SLOTS: Final = 4
_V1_UNLIMITED: Final = 1 << 60  # cgroup v1 says "none" with a number near 2**63


def worker_count(settings: Settings) -> int:
    """Worker processes: as set, or one for each core this process may run on."""
    return settings.server.workers or len(os.sched_getaffinity(0))


def sizing(settings: Settings, ceilings: Limits, *, workers: int, memory: int) -> Sizing:
    """Shares of one worker; `memory` is what `machine_memory` found."""
    # Rate counters have their memory from the start; half of a small machine is for guests anyway.
    left = max(memory - settings.storage.rate_bytes, memory // 2)
    budget = int(left * settings.pool.memory_share) // workers
    automatic = max(MIN_SLOTS, min(MAX_AUTO_SLOTS, budget // MEMORY_PER_SLOT))
    return Sizing(
        slots=settings.pool.slots or automatic,
        memory_budget=budget,
        memory_ceiling=ceilings.memory,
        table_ceiling=ceilings.table_elements,
    )


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: the cgroup's limit or the machine's, whichever is less.

    A cgroup's limit is looked for at its root as containers see it and up the path of our own.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [total]
    groups = root / "sys/fs/cgroup"
    candidates = [groups / "memory.max", groups / "memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError, IndexError):
        unified = (root / "proc/self/cgroup").read_text().rsplit("0::", 1)[1].splitlines()[0]
        own = groups / unified.lstrip("/")
        candidates += [folder / "memory.max" for folder in (own, *own.parents)]
    for path in candidates:
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            limit = int(path.read_text())
            if limit < _V1_UNLIMITED:
                found.append(limit)
    return min(found)


def raise_descriptor_limit() -> int:
    """Use all the open files we are allowed; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft
