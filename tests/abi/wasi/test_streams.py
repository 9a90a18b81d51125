"""stdin, stdout and stderr of a program that answers through hostcalls, and all that is refused."""

from __future__ import annotations

import pytest

from edge.abi.codec import MAX_MOVE
from edge.abi.log_lines import MAX_LINE, MAX_LINES_PER_WRITE
from edge.abi.wasi.codec import MAX_IOVECS
from edge.abi.wasi.errno import Errno
from edge.abi.wasi.program import flush
from edge.abi.wasi.refused import REFUSALS
from edge.model.limits import Limits
from tests.abi.wasi.golden import SIGNATURES
from tests.support.wasi_box import WasiGuest

OUTSIDE = 0xFFFF_FFF0


@pytest.fixture
def guest() -> WasiGuest:
    return WasiGuest()


def test_each_line_becomes_one_log_line_however_it_is_written(guest: WasiGuest) -> None:
    assert guest.write(1, b"one\ntw", b"o\r\n", b"", b"\nthr") == (0, 13)
    assert guest.write(2, b"bad\n") == (0, 4)
    assert guest.write(1, b"ee") == (0, 2)
    assert guest.logged == [
        ("stdout", b"one", 0),
        ("stdout", b"two", 0),
        ("stdout", b"", 0),
        ("stderr", b"bad", 0),
    ]
    flush(guest.box)
    flush(guest.box)
    assert guest.logged[4:] == [("stdout", b"three", 0)]
    assert guest.box.account.held == 0


@pytest.mark.parametrize("pieces", [[20_000], [1, 8191, 1, 11_807], [8192, 11_808]])
def test_a_long_line_is_cut_and_says_by_how_much(guest: WasiGuest, pieces: list[int]) -> None:
    for size in pieces:
        assert guest.write(1, b"x" * size) == (0, size)
    assert guest.write(1, b"\nnext\n") == (0, 6)
    assert guest.logged == [("stdout", b"x" * MAX_LINE, 20_000 - MAX_LINE), ("stdout", b"next", 0)]


def test_output_over_the_log_limit_is_dropped_and_counted_but_written() -> None:
    guest = WasiGuest(limits=Limits(log_bytes=100))
    for _ in range(12):
        assert guest.write(1, b"0123456789\n") == (0, 11)
    assert 8 <= len(guest.logged) <= 10
    assert guest.box.log_dropped == 12 - len(guest.logged)


def test_a_write_of_line_breaks_is_taken_in_parts(guest: WasiGuest) -> None:
    assert guest.write(1, b"\n" * 100_000) == (0, MAX_LINES_PER_WRITE)


def test_a_write_of_the_whole_memory_moves_256_kib(guest: WasiGuest) -> None:
    whole = guest.iovecs(*[(0, guest.size)] * 128)
    assert guest.call("fd_write", 1, *whole, guest.out) == 0
    assert guest.u32_at(guest.out) == MAX_MOVE


def test_buffers_after_the_1024th_are_left_for_the_next_write(guest: WasiGuest) -> None:
    byte = guest.put(b"x")
    assert guest.call("fd_write", 1, *guest.iovecs(*[byte] * 2000), guest.out) == 0
    assert guest.u32_at(guest.out) == MAX_IOVECS


def test_stdin_is_at_its_end(guest: WasiGuest) -> None:
    assert guest.read(100) == (0, b"")
    assert guest.read(0) == (0, b"")


@pytest.mark.parametrize(
    ("call", "fd", "errno"),
    [
        ("fd_write", 0, Errno.BADF),
        ("fd_write", 3, Errno.BADF),
        ("fd_write", 0xFFFF_FFFF, Errno.BADF),
        ("fd_read", 1, Errno.BADF),
        ("fd_read", 3, Errno.BADF),
    ],
)
@pytest.mark.parametrize("size", [0, 1])
def test_the_wrong_descriptor_is_refused(
    guest: WasiGuest, call: str, fd: int, errno: Errno, size: int
) -> None:
    assert guest.call(call, fd, *guest.iovecs((64, size)), guest.out) == errno


@pytest.mark.parametrize("call", ["fd_read", "fd_write"])
def test_lies_about_pointers_are_faults_and_nothing_is_written(guest: WasiGuest, call: str) -> None:
    good, bad = guest.put(b"hello\n"), (OUTSIDE, 32)
    lies = [
        (*guest.iovecs(good, bad), guest.out),
        (*guest.iovecs(good, (guest.size - 1, 2)), guest.out),
        (OUTSIDE, 1, guest.out),
        (guest.size - 8, 0xFFFF_FFFF, guest.out),
        (*guest.iovecs(good), guest.size - 3),
    ]
    for lie in lies:
        assert guest.call(call, call == "fd_write", *lie) == Errno.FAULT
    assert guest.logged == []
    # an empty buffer may point anywhere, as in C
    assert guest.call(call, call == "fd_write", *guest.iovecs((OUTSIDE, 0)), guest.out) == 0


def test_a_closed_stream_is_gone_and_its_last_line_is_logged(guest: WasiGuest) -> None:
    guest.write(1, b"bye")
    assert guest.call("fd_close", 1) == 0
    assert guest.logged == [("stdout", b"bye", 0)]
    assert guest.write(1, b"x")[0] == Errno.BADF
    assert guest.call("fd_close", 1) == Errno.BADF


def test_renumbering_redirects_one_stream_onto_another(guest: WasiGuest) -> None:
    guest.write(2, b"old")
    assert guest.call("fd_renumber", 1, 2) == 0
    guest.write(2, b"moved\n")
    assert guest.logged == [("stderr", b"old", 0), ("stdout", b"moved", 0)]
    assert guest.call("fd_renumber", 1, 2) == Errno.BADF
    assert guest.call("fd_renumber", 2, 5) == Errno.BADF
    assert guest.call("fd_renumber", 2, 2) == 0


@pytest.mark.parametrize(
    ("fd", "filetype", "can"), [(0, 0, 1 << 1), (1, 2, 1 << 6), (2, 2, 1 << 6)]
)
def test_logged_streams_look_like_a_terminal_to_libc(
    guest: WasiGuest, fd: int, filetype: int, can: int
) -> None:
    at = guest.room(64)
    assert guest.call("fd_fdstat_get", fd, at) == 0
    assert guest.bytes_at(at, 1)[0] == filetype
    rights = guest.u64_at(at + 8)
    assert rights & can
    assert not rights & (1 << 2 | 1 << 5), "a terminal cannot seek or tell"
    assert guest.call("fd_filestat_get", fd, at) == 0
    assert guest.bytes_at(at + 16, 1)[0] == filetype


def test_flags_can_be_set_and_read_back(guest: WasiGuest) -> None:
    at = guest.room(24)
    assert guest.call("fd_fdstat_set_flags", 0, 4) == 0
    assert guest.call("fd_fdstat_get", 0, at) == 0
    assert guest.u16_at(at + 2) == 4
    assert guest.call("fd_fdstat_set_flags", 0, 16) == Errno.INVAL


def test_rights_do_not_grow(guest: WasiGuest) -> None:
    assert guest.call("fd_fdstat_set_rights", 1, 1 << 6, 0) == 0
    assert guest.call("fd_fdstat_set_rights", 1, 1 << 1, 0) == Errno.NOTCAPABLE
    assert guest.call("fd_fdstat_set_rights", 1, 0, 1) == Errno.NOTCAPABLE


def test_syncing_an_open_stream_succeeds(guest: WasiGuest) -> None:
    for name in ("fd_sync", "fd_datasync"):
        assert guest.call(name, 1) == 0
        assert guest.call(name, 3) == Errno.BADF


@pytest.mark.parametrize("name", REFUSALS)
def test_what_needs_files_or_sockets_says_so(guest: WasiGuest, name: str) -> None:
    refusal = REFUSALS[name]
    for fd, errno in [(0, refusal.errno), (2, refusal.errno), (3, Errno.BADF), (-1, Errno.BADF)]:
        raw = [OUTSIDE] * len(SIGNATURES[name])
        raw[refusal.fd] = fd
        assert guest.call(name, *raw) == errno


@pytest.mark.parametrize("name", ["fd_fdstat_get", "fd_filestat_get"])
def test_results_outside_memory_are_faults(guest: WasiGuest, name: str) -> None:
    assert guest.call(name, 1, guest.size - 8) == Errno.FAULT
    assert guest.call(name, 3, guest.room(64)) == Errno.BADF
