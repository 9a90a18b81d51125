"""Memory, CPU time and descriptors of another process, from /proc.  Read at scrape time only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """Resident bytes, CPU seconds (user and system), open descriptors."""

    resident_bytes: int
    cpu_seconds: float
    open_fds: int


def read_process(pid: int, proc: Path = Path("/proc")) -> ProcessStats | None:
    """What the kernel says of `pid`; `None` when it is gone or not ours to look at."""
    try:
        # The command name may hold spaces and parentheses: the fields start after the last one.
        fields = (proc / str(pid) / "stat").read_text("latin-1").rpartition(")")[2].split()
        return ProcessStats(
            resident_bytes=int(fields[21]) * _PAGE,  # proc(5): field 24, rss
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,  # 14 utime, 15 stime
            open_fds=len(os.listdir(proc / str(pid) / "fd")),
        )
    except (OSError, ValueError, IndexError):
        return None
