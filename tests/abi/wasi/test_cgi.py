"""CGI programs: the request body on stdin, the response from stdout."""

from __future__ import annotations

import pytest

from edge.abi.wasi.cgi import HOLD_BACK
from edge.abi.wasi.errno import Errno
from edge.errors import Incomplete
from edge.http.body import HIGH_WATER, Body
from edge.model.limits import Limits
from tests.support.wasi_box import WasiGuest, in_loop

HEAD = b"Content-Type: text/plain\n\n"


@pytest.fixture
def guest() -> WasiGuest:
    return WasiGuest(cgi=True, client_body=Body(live=True))


def test_a_small_response_goes_out_whole_at_the_end(guest: WasiGuest) -> None:
    assert guest.write(1, HEAD, b"hello") == (0, 31)
    assert not guest.client.responded
    assert guest.cgi.finish(clean=True) == ""
    assert guest.client.response is not None
    assert guest.client.response.headers == [(b"content-type", b"text/plain")]
    assert guest.client.response_body is not None
    assert guest.client.response_body.known_length == 5
    assert guest.client.read() == b"hello"
    assert guest.box.account.held == 0


def test_a_response_written_byte_by_byte_is_the_same(guest: WasiGuest) -> None:
    for at in range(len(HEAD + b"hello")):
        assert guest.write(1, (HEAD + b"hello")[at : at + 1]) == (0, 1)
    assert guest.cgi.finish(clean=True) == ""
    assert guest.client.read() == b"hello"


def test_a_large_response_streams_before_the_end(guest: WasiGuest) -> None:
    guest.write(1, HEAD)
    guest.write(1, b"x" * HOLD_BACK)
    assert guest.client.responded
    guest.write(1, b"tail")
    assert guest.client.read() == b"x" * HOLD_BACK + b"tail"
    assert guest.client.response_body is not None
    assert not guest.client.response_body.at_eof
    guest.cgi.finish(clean=True)
    assert guest.client.response_body.at_eof


@pytest.mark.parametrize("how", ["fd_sync", "fd_datasync", "fd_close"])
def test_the_guest_can_send_what_it_has(guest: WasiGuest, how: str) -> None:
    guest.write(1, HEAD, b"event")
    assert guest.call(how, 1) == 0
    assert guest.client.read() == b"event"


def test_what_is_written_goes_out_when_the_guest_waits_for_input(guest: WasiGuest) -> None:
    guest.write(1, HEAD, b"your name?")
    raw = guest.iovecs((guest.room(8), 8))

    @in_loop
    async def wait() -> None:
        assert guest.start("fd_read", 0, *raw, guest.out) is None
        assert guest.client.read() == b"your name?"
        guest.client.body.write(b"Bo")
        assert await guest.finish() == 0

    wait()
    assert guest.u32_at(guest.out) == 2


def test_a_slow_client_makes_the_guest_wait(guest: WasiGuest) -> None:
    guest.write(1, HEAD)
    assert guest.write(1, b"x" * HIGH_WATER) == (0, HIGH_WATER)
    raw = guest.iovecs(guest.put(b"more"))

    @in_loop
    async def wait() -> None:
        assert guest.start("fd_write", 1, *raw, guest.out) is None
        assert len(guest.client.read()) == HIGH_WATER
        assert await guest.finish() == 0

    wait()
    assert guest.client.read() == b"more"


def test_a_non_blocking_guest_is_told_to_come_again(guest: WasiGuest) -> None:
    for fd in (0, 1):
        assert guest.call("fd_fdstat_set_flags", fd, 4) == 0
    assert guest.read(8) == (Errno.AGAIN, b"")
    guest.write(1, HEAD)
    guest.write(1, b"x" * HIGH_WATER)
    assert guest.write(1, b"x")[0] == Errno.AGAIN


def test_stdin_is_the_request_body_to_its_end(guest: WasiGuest) -> None:
    guest.client.body.write(b"hello world")
    guest.client.body.finish()
    assert guest.read(5) == (0, b"hello")
    assert guest.read(100) == (0, b" world")
    assert guest.read(100) == (0, b"")


def test_stdin_is_scattered_over_the_buffers(guest: WasiGuest) -> None:
    guest.client.body.write(b"abcdefgh")
    first, second = guest.room(8), guest.room(8)
    assert guest.call("fd_read", 0, *guest.iovecs((first, 3), (0, 0), (second, 4)), guest.out) == 0
    assert guest.u32_at(guest.out) == 7
    assert (guest.bytes_at(first, 4), guest.bytes_at(second, 5)) == (b"abc\0", b"defg\0")


def test_a_client_that_breaks_off_is_an_error_and_not_an_end(guest: WasiGuest) -> None:
    guest.client.body.write(b"half")
    guest.client.body.fail(Incomplete("the client went away"))
    assert guest.read(100) == (0, b"half")
    assert guest.read(100)[0] == Errno.IO


def test_writing_to_a_client_that_is_gone_is_a_broken_pipe(guest: WasiGuest) -> None:
    guest.write(1, HEAD, b"x" * HOLD_BACK)
    assert guest.client.response_body is not None
    guest.client.response_body.fail(Incomplete("the client went away"))
    assert guest.write(1, b"more")[0] == Errno.PIPE


def test_a_broken_header_block_is_named_at_the_end(guest: WasiGuest) -> None:
    assert guest.write(1, b"<h1>hi</h1>\n\n")[0] == Errno.IO
    assert guest.write(1, HEAD)[0] == Errno.IO
    assert "not a header field" in guest.cgi.finish(clean=True)
    assert not guest.client.responded
    assert guest.box.account.held == 0


@pytest.mark.parametrize(
    ("output", "problem"),
    [(b"", "no response"), (b"Status: 200\n", "before the blank line"), (b"hi", "before the")],
)
def test_an_output_that_is_no_response_is_named(
    guest: WasiGuest, output: bytes, problem: str
) -> None:
    guest.write(1, output)
    assert problem in guest.cgi.finish(clean=True)
    assert not guest.client.responded
    assert guest.box.account.held == 0


def test_an_endless_header_block_is_bounded() -> None:
    guest = WasiGuest(cgi=True, limits=Limits(head_bytes=4096))
    assert guest.write(1, b"X-A: " + b"a" * 4000)[0] == 0
    assert guest.box.account.held == 4005
    assert guest.write(1, b"a" * 4000)[0] == Errno.IO
    assert guest.box.account.held == 0
    assert "limits.head_bytes" in guest.cgi.finish(clean=True)


def test_more_than_the_host_holds_is_no_memory_and_takes_nothing() -> None:
    guest = WasiGuest(cgi=True, limits=Limits(host_memory=1024))
    assert guest.write(1, HEAD + b"x" * 2000)[0] == Errno.NOMEM
    assert guest.write(1, HEAD + b"x" * 1000)[0] == 0
    assert guest.write(1, b"x" * 100)[0] == Errno.NOMEM
    assert guest.cgi.finish(clean=True) == ""
    assert guest.client.read() == b"x" * 1000
    assert guest.box.limits_hit == {"limits.host_memory": 2}


def test_a_guest_that_fails_before_its_response_left_sends_none(guest: WasiGuest) -> None:
    guest.write(1, HEAD, b"half")
    assert guest.cgi.finish(clean=False) == ""
    assert not guest.client.responded
    assert guest.box.account.held == 0


def test_a_guest_that_fails_in_mid_response_breaks_it_off(guest: WasiGuest) -> None:
    guest.write(1, HEAD, b"x" * HOLD_BACK)
    assert guest.cgi.finish(clean=False) == ""
    body = guest.client.response_body
    assert body is not None
    assert body.read(1 << 20) == b"x" * HOLD_BACK
    with pytest.raises(Incomplete):
        body.read(1)


def test_a_response_that_the_guest_closed_survives_its_later_failure(guest: WasiGuest) -> None:
    guest.write(1, HEAD, b"done")
    guest.call("fd_close", 1)
    assert guest.write(1, b"x")[0] == Errno.BADF
    assert guest.cgi.finish(clean=False) == ""
    assert guest.client.read() == b"done"
    assert guest.client.response_body is not None
    assert guest.client.response_body.at_eof


def test_stderr_is_logged_and_stdout_looks_like_a_pipe(guest: WasiGuest) -> None:
    guest.write(2, b"careful\n")
    assert guest.logged == [("stderr", b"careful", 0)]
    at = guest.room(24)
    for fd in (0, 1):
        assert guest.call("fd_fdstat_get", fd, at) == 0
        assert guest.bytes_at(at, 1) == b"\0"
