"""Numbers of another process, also when its name is hostile or it is gone."""

from __future__ import annotations

import os
from pathlib import Path

from edge.telemetry.process_stats import read_process


def test_this_process_has_memory_time_and_descriptors() -> None:
    stats = read_process(os.getpid())
    assert stats is not None
    assert stats.resident_bytes > 1_000_000
    assert stats.cpu_seconds > 0
    assert stats.open_fds >= 3


def test_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    assert read_process(5, tmp_path) is None


def test_a_command_name_cannot_shift_the_fields(tmp_path: Path) -> None:
    (tmp_path / "5" / "fd").mkdir(parents=True)
    fields = ["S", *(str(n) for n in range(4, 52))]  # field n of proc(5) holds n
    (tmp_path / "5" / "stat").write_text("5 (evil) S 9 (x) " + " ".join(fields))
    stats = read_process(5, tmp_path)
    assert stats is not None
    assert stats.resident_bytes == 24 * os.sysconf("SC_PAGE_SIZE")
    assert stats.cpu_seconds == (14 + 15) / os.sysconf("SC_CLK_TCK")
    assert stats.open_fds == 0
