"""The log writer: never blocks its callers, bounded, counted, whole lines also among processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.telemetry.layout import Total
from edge.telemetry.log_sink import LogSink
from edge.telemetry.shared import SharedCells

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def drain(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def test_lines_arrive_in_order_and_close_waits_for_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = LogSink(fd)
    expected = [f"line {n}\n" for n in range(2000)]
    sink.put(expected[0])
    sink.start()
    for n in range(1, 2000, 3):
        batch = expected[n : n + 3]
        assert sink.put("".join(batch), len(batch))
    assert sink.close() == 0
    os.close(fd)
    assert path.read_text() == "".join(expected)
    assert sink.statistics().written == 2000
    assert not sink.put("late\n")


def test_a_reader_that_stops_costs_lines_and_never_the_callers_time(pipe: Pipe) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    cells = SharedCells.create(1, 2)
    worker = cells.worker(0)
    sink = LogSink(
        writer,
        lock_fd=cells.fd,
        max_bytes=10_000,
        on_dropped=lambda lines: worker.add(Total.LOG_LINES_DROPPED, lines),
    )
    sink.start()
    line = "x" * 99 + "\n"
    accepted = sum(sink.put(line) for _ in range(5000))  # returns, though nobody reads
    dropped = worker.get(Total.LOG_LINES_DROPPED)
    assert accepted + dropped == 5000
    assert 100 <= accepted <= 300
    assert sink.statistics().dropped == dropped
    assert sink.close(timeout=0.01) > 0  # gives up in time
    found = os.read(reader, 4096)  # the reader comes back: the thread goes on, and ends
    while len(found) < accepted * 100:
        found += os.read(reader, 65536)
    assert found == line.encode() * accepted


def test_the_number_of_lines_is_bounded_as_well(pipe: Pipe) -> None:
    sink = LogSink(pipe[1], max_lines=3)  # not started: nothing leaves
    assert sink.put("a\nb\n", 2)
    assert not sink.put("c\nd\n", 2)
    assert sink.put("e\n")
    assert sink.statistics().waiting == 3
    assert sink.statistics().dropped == 2
    assert sink.close() == 3


def test_a_reader_that_went_away_is_counted_and_the_thread_lives(pipe: Pipe) -> None:
    reader, writer = pipe
    os.close(reader)
    failed: list[int] = []
    sink = LogSink(writer, on_failed=failed.append)
    sink.start()
    sink.put("a\nb\n", 2)
    sink.put("c\n")
    assert sink.close() == 0
    assert sum(failed) == sink.statistics().failed == 3
    assert sink.statistics().written == 0


def test_a_file_that_refuses_half_a_line_does_not_glue_the_next_one_to_it(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    real: Callable[[int, bytes], int] = os.write
    script: list[int | OSError | None] = [6, OSError(28, "No space left on device"), None, None]

    def write(fd: int, data: bytes) -> int:
        step = script.pop(0)
        if isinstance(step, OSError):
            raise step
        return real(fd, data if step is None else data[:step])

    sink = LogSink(writer)
    sink.put("one\ntwo\nthree\n", 3)
    monkeypatch.setattr(os, "write", write)
    assert sink._write(b"one\ntwo\nthree\n") == 8
    assert sink._write(b"four\n") == 0
    os.close(writer)
    assert drain(reader) == b"one\ntw\nfour\n"


def test_a_descriptor_somebody_made_non_blocking_still_gets_everything(pipe: Pipe) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    sink = LogSink(writer)
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(drain(reader)))
    reading.start()
    sink.start()
    for _ in range(300):
        sink.put("y" * 999 + "\n")
    assert sink.close(timeout=10) == 0
    os.close(writer)
    reading.join()
    assert found[0] == (b"y" * 999 + b"\n") * 300


WRITER = """
import sys
from edge.telemetry.log_sink import LogSink
fd, lock, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sink = LogSink(fd, lock_fd=lock)
sink.start()
for n in range(200):
    for length in (10, 5000, 20_000):
        sink.put(f"{name}{length}:" + name * length + "\\n")
        while sink.statistics().waiting > 100: pass
assert sink.close(timeout=30) == 0
"""


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_lines_of_several_processes_never_mix(kind: str, tmp_path: Path, pipe: Pipe) -> None:
    reader, writer = pipe
    path = tmp_path / "log"
    if kind == "file":
        os.close(writer)
        writer = os.open(path, os.O_WRONLY | os.O_CREAT)  # shared offset, not O_APPEND
    cells = SharedCells.create(1, 2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(writer), str(cells.fd), name],
            pass_fds=[writer, cells.fd],
        )
        for name in "ab"
    ]
    os.close(writer)
    data = drain(reader) if kind == "pipe" else b""
    assert [process.wait() for process in processes] == [0, 0]
    lines = (data if kind == "pipe" else path.read_bytes()).decode().splitlines()
    wanted = [f"{name}{n}:" + name * n for name in "ab" for n in (10, 5000, 20_000)]
    assert sorted(lines) == sorted(wanted * 200)


def test_on_a_pipe_short_lines_travel_in_writes_that_a_kill_cannot_tear(pipe: Pipe) -> None:
    sink = LogSink(pipe[1])
    data = b"".join(b"%d" % (n % 10) * (n % 700) + b"\n" for n in range(400)) + b"z" * 9000 + b"\n"
    pieces = [bytes(piece) for piece in sink._pieces(data)]
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in pieces)


EXIT = """
import sys
from edge.telemetry.log_sink import LogSink
sink = LogSink(int(sys.argv[1]))
sink.start()
for n in range(2000):
    sink.put("x" * 999 + "\\n")
print(sink.close(timeout=0.05) > 0, flush=True)
"""


def test_a_process_can_exit_while_its_writer_hangs_in_a_full_pipe(pipe: Pipe) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(pipe[1])],
        pass_fds=[pipe[1]],
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    assert done.stdout == b"True\n"
