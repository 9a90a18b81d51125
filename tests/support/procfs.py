"""What /proc says about a process: memory it holds and processor time it used (proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now, shared pages and mapped files included."""
    return _status(pid, "VmRSS")


def resident_anonymous(pid: int) -> int:
    """Bytes of its own: without the pages of mapped files, which the kernel can drop."""
    return _status(pid, "RssAnon")


def resident_peak(pid: int) -> int:
    """The most it has held since it began, or since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Begin a new measurement of `resident_peak`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def processor_seconds(pid: int) -> float:
    """User and system time of all its threads."""
    # The command may hold spaces and brackets; what follows its last ")" does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _status(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has no {field}: it is gone or a zombie")
    return int(found[1]) * 1024
