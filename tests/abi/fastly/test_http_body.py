"""Bodies: reading, writing, joining, lengths and trailers."""

from __future__ import annotations

import asyncio

import pytest

from edge.abi.codec import MAX_MOVE
from edge.abi.fastly.status import Status
from edge.errors import Failed, Incomplete
from edge.http.body import HIGH_WATER, Body
from edge.model.limits import Limits
from edge.server.flow import AwaitedBody
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.loop import in_loop, turns


def streaming(guest: FastlyGuest) -> tuple[int, Body]:
    """A body that is being sent: its handle, and the reader's side."""
    body = guest.body()
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.send_downstream", response, body, 1) == Status.OK
    sent = guest.client.response_body
    assert sent is not None
    return body, sent


def live_request(guest_size: int = 1 << 20) -> tuple[FastlyGuest, int, Body]:
    """A guest whose request body is still arriving."""
    incoming = Body(live=True)
    guest = FastlyGuest(client=FakeDownstream(body=incoming), size=guest_size)
    return guest, guest.downstream()[1], incoming


def test_writes_at_the_back_and_at_the_front() -> None:
    guest = FastlyGuest()
    body = guest.body(b"middle")
    assert guest.write(body, b" back") == Status.OK
    assert guest.write(body, b"front ", end=1) == Status.OK
    assert guest.write(body, b"") == Status.OK
    assert guest.do("http_body.write", body, 64, 0, 2, 128) == Status.INVAL
    assert guest.read_all(body) == b"front middle back"
    assert guest.read(body) == b"", "the end stays the end"


def test_a_read_gives_what_is_there_and_no_more_than_asked() -> None:
    guest = FastlyGuest()
    body = guest.body(b"abcdef")
    assert guest.read(body, 4) == b"abcd"
    assert guest.read(body, 0) == b""
    assert guest.read(body, 4) == b"ef"


@in_loop
async def test_a_read_waits_for_bytes_and_for_the_end() -> None:
    guest, body, incoming = live_request()
    buffer, count = guest.room(16), guest.room(4)
    for data in (b"one", b"two"):
        assert guest.begin("http_body.read", body, buffer, 16, count) is None
        incoming.write(data)
        assert await guest.finish() == Status.OK
        assert guest.bytes_at(buffer, guest.u32_at(count)) == data
    assert guest.begin("http_body.read", body, buffer, 16, count) is None
    incoming.finish()
    assert await guest.finish() == Status.OK
    assert guest.u32_at(count) == 0


@in_loop
async def test_a_body_that_breaks_off_is_an_error_after_its_bytes() -> None:
    for error, status in (
        (Incomplete("closed"), Status.HTTPINCOMPLETE),
        (Failed("timed out"), Status.ERROR),
    ):
        guest, body, incoming = live_request()
        incoming.write(b"part")
        incoming.fail(error)
        assert guest.read(body) == b"part"
        assert guest.do("http_body.read", body, 64, 16, 128) == status


def test_a_guest_that_is_killed_while_it_reads_leaves_no_watcher() -> None:
    async def run() -> None:
        guest, body, incoming = live_request()
        assert guest.begin("http_body.read", body, 64, 16, 128) is None
        guest.cancel()
        assert not incoming._watchers

    asyncio.run(run())


@in_loop
async def test_long_writes_go_in_pieces_and_long_reads_are_answered_short() -> None:
    guest = FastlyGuest(size=4 << 20)
    data = bytes(range(256)) * 4096  # 1 MiB
    at, length = guest.put(data)
    wrote = guest.room(4)
    body = guest.get("http_body.new")
    for end in (0, 1):
        assert guest.begin("http_body.write", body, at, length, end, wrote) is None
        assert await guest.finish() == Status.OK
        assert guest.u32_at(wrote) == length
    buffer = guest.room(1 << 20)
    assert guest.begin("http_body.read", body, buffer, 1 << 20, wrote) == Status.OK
    assert 0 < guest.u32_at(wrote) <= MAX_MOVE
    first = guest.bytes_at(buffer, guest.u32_at(wrote))
    assert first + guest.read_all(body) == data + data


@in_loop
async def test_a_write_that_cannot_fit_is_refused_before_anything_is_copied() -> None:
    guest = FastlyGuest(size=4 << 20, limits=Limits(host_memory=1 << 20))
    body = guest.get("http_body.new")
    status = guest.begin("http_body.write", body, 0, 2 << 20, 0, 128)
    assert status == Status.LIMITEXCEEDED
    assert guest.made.account.held == 0
    assert guest.made.account.exceeded
    assert guest.made.box.limits_hit == {"limits.host_memory": 1}


def test_all_bodies_together_are_bounded_and_closing_gives_bytes_back() -> None:
    guest = FastlyGuest(size=4 << 20, limits=Limits(host_memory=1 << 20))
    piece = b"x" * 200_000
    bodies = [guest.get("http_body.new") for _ in range(6)]
    assert [guest.write(body, piece) for body in bodies] == [Status.OK] * 5 + [Status.LIMITEXCEEDED]
    assert guest.do("http_body.close", bodies[0]) == Status.OK
    assert guest.do("http_body.abandon", bodies[1]) == Status.OK
    assert guest.made.account.held == 600_000
    assert guest.write(bodies[5], piece) == Status.OK
    guest.made.box.close()
    assert guest.made.account.held == 0
    assert guest.made.account.ledger.held == 0


@in_loop
async def test_a_streaming_write_waits_for_its_reader() -> None:
    guest = FastlyGuest(size=4 << 20)
    body, sent = streaming(guest)
    piece = guest.put(b"x" * MAX_MOVE)
    wrote = guest.room(4)
    assert guest.begin("http_body.write", body, *piece, 0, wrote) == Status.OK
    assert sent.held == HIGH_WATER
    assert guest.begin("http_body.write", body, *guest.put(b"more"), 0, wrote) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    assert not waiting.done()
    sent.read(1000)
    assert await waiting == Status.OK
    assert guest.u32_at(wrote) == 4


@in_loop
async def test_a_long_streaming_write_holds_little_at_a_time() -> None:
    guest = FastlyGuest(size=4 << 20)
    body, sent = streaming(guest)
    at, length = guest.put(b"y" * (2 << 20))
    wrote = guest.room(4)
    assert guest.begin("http_body.write", body, at, length, 0, wrote) is None
    writing = asyncio.ensure_future(guest.finish())
    got = most = 0
    while got < length:
        await turns(1)
        most = max(most, sent.held)
        got += len(sent.read(64 * 1024))
    assert await writing == Status.OK
    assert guest.u32_at(wrote) == length
    assert most <= HIGH_WATER + MAX_MOVE


@in_loop
async def test_a_streaming_write_fails_when_the_client_has_gone() -> None:
    guest = FastlyGuest()
    body, sent = streaming(guest)
    sent.write(b"x" * HIGH_WATER)
    assert guest.begin("http_body.write", body, *guest.put(b"more"), 0, 128) is None
    sent.fail(Failed("the client has gone"))
    assert await guest.finish() == Status.ERROR
    assert guest.write(body, b"again") == Status.ERROR


def test_append_moves_bytes_and_trailers_and_consumes_the_source() -> None:
    guest = FastlyGuest()
    dest, source = guest.body(b"one "), guest.body(b"two")
    raw = (*guest.put(b"X-Sum"), *guest.put(b"7"))
    assert guest.do("http_body.trailer_append", source, *raw) == Status.OK
    assert guest.do("http_body.append", dest, source) == Status.OK
    assert guest.do("http_body.close", source) == Status.BADF
    assert guest.read_all(dest) == b"one two"
    assert guest.list("http_body.trailer_names_get", dest) == [b"x-sum"]


def test_append_refuses_itself_and_bad_handles_consume_nothing() -> None:
    guest = FastlyGuest()
    body = guest.body(b"x")
    assert guest.do("http_body.append", body, body) == Status.INVAL
    assert guest.do("http_body.append", INVALID, body) == Status.BADF
    assert guest.do("http_body.append", body, INVALID) == Status.BADF
    assert guest.read_all(body) == b"x"


def test_what_the_guest_adds_to_an_arriving_body_comes_after_all_of_it() -> None:
    guest, body, incoming = live_request()
    incoming.write(b"client ")
    assert guest.write(body, b"guest") == Status.OK
    assert guest.do("http_body.append", body, guest.body(b" and more")) == Status.OK
    assert guest.write(body, b"first ", end=1) == Status.OK
    incoming.write(b"late ")
    incoming.finish([(b"t", b"1")])
    assert guest.read_all(body) == b"first client late guest and more"
    assert guest.list("http_body.trailer_names_get", body) == [b"t"]


@in_loop
async def test_append_to_a_stream_waits_for_room_and_then_moves_without_copying() -> None:
    guest = FastlyGuest()
    body, sent = streaming(guest)
    sent.write(b"x" * HIGH_WATER)
    source = guest.body(b"the end")
    assert guest.begin("http_body.append", body, source) is None
    sent.read(HIGH_WATER)
    assert await guest.finish() == Status.OK
    assert guest.do("http_body.close", body) == Status.OK
    assert guest.client.sent == b"the end"


@in_loop
async def test_a_guest_that_is_killed_while_it_appends_gives_its_bytes_back() -> None:
    guest = FastlyGuest()
    body, sent = streaming(guest)
    sent.write(b"x" * HIGH_WATER)
    assert guest.begin("http_body.append", body, guest.body(b"y" * 1000)) is None
    guest.cancel()
    guest.made.box.close()
    sent.discard()
    assert guest.made.account.held == 0


def test_known_length_is_told_only_when_it_is_certain() -> None:
    guest, body, incoming = live_request()
    out = guest.room(8)
    assert guest.do("http_body.known_length", body, out) == Status.NONE
    incoming.expected = 10
    assert guest.get("http_body.known_length", body, width=8) == 10
    own = guest.body(b"abc")
    assert guest.get("http_body.known_length", own, width=8) == 3
    guest.read(own, 1)
    assert guest.get("http_body.known_length", own, width=8) == 2
    assert guest.do("http_body.append", own, body) == Status.OK
    assert guest.get("http_body.known_length", own, width=8) == 12
    assert guest.do("http_body.known_length", INVALID, out) == Status.BADF


def test_trailers_are_readable_after_the_last_byte() -> None:
    guest, body, incoming = live_request()
    incoming.write(b"x")
    incoming.finish([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    buffer, end, size = guest.room(8), guest.room(8), guest.room(4)
    names = "http_body.trailer_names_get"
    assert guest.do(names, body, buffer, 8, 0, end, size) == Status.AGAIN
    name = guest.put(b"A")
    value = "http_body.trailer_value_get"
    assert guest.do(value, body, *name, buffer, 8, size) == Status.AGAIN
    assert guest.read(body) == b"x"
    assert guest.list(names, body) == [b"a", b"b"]
    assert guest.text(value, body, *name) == b"1"
    assert guest.list("http_body.trailer_values_get", body, *name) == [b"1", b"3"]
    absent = guest.put(b"zz")
    assert guest.do(value, body, *absent, buffer, 8, size) == Status.INVAL
    assert guest.do(value, body, *guest.put(b"a"), buffer, 0, size) == Status.BUFLEN
    assert guest.u32_at(size) == 1


def test_trailers_of_a_broken_body_are_its_error() -> None:
    guest, body, incoming = live_request()
    incoming.fail(Incomplete("closed"))
    status = guest.do("http_body.trailer_names_get", body, 64, 8, 0, 128, 136)
    assert status == Status.HTTPINCOMPLETE


@pytest.mark.parametrize("stream", [False, True])
def test_trailers_are_checked_bounded_and_sent(stream: bool) -> None:
    guest = FastlyGuest(limits=Limits(head_fields=16, head_bytes=1024))
    body = streaming(guest)[0] if stream else guest.body()

    def add(name: bytes, value: bytes) -> Status:
        return guest.do("http_body.trailer_append", body, *guest.put(name), *guest.put(value))

    assert add(b"bad name", b"v") == Status.ERROR
    assert add(b"name", b"bad\nvalue") == Status.ERROR
    assert add(b"big", b"v" * 900) == Status.OK
    assert add(b"big", b"v" * 200) == Status.LIMITEXCEEDED
    for number in range(15):
        assert add(b"n", b"%d" % number) == Status.OK
    assert add(b"n", b"v") == Status.LIMITEXCEEDED
    if stream:
        assert guest.do("http_body.close", body) == Status.OK
        assert guest.client.response_body is not None
        assert len(guest.client.response_body.trailers) == 16


def test_the_clients_body_left_open_is_not_thrown_away_by_the_end_of_the_sandbox() -> None:
    guest, _, incoming = live_request()
    incoming.write(b"the connection still has to drain this")
    guest.made.box.close()
    assert incoming.held > 0


def test_every_call_wants_a_body() -> None:
    guest = FastlyGuest()
    for name, rest in {
        "read": 3, "write": 4, "close": 0, "abandon": 0, "trailer_append": 4,
        "trailer_names_get": 5, "trailer_value_get": 5, "trailer_values_get": 7, "known_length": 1,
    }.items():  # fmt: skip
        name_and_rest = [64] * rest
        if name.startswith("trailer_") and name != "trailer_names_get":
            name_and_rest[:2] = guest.put(b"name")
        if name == "trailer_append":
            name_and_rest[2:] = guest.put(b"value")
        if name == "write":
            name_and_rest[2] = 0
        assert guest.do(f"http_body.{name}", INVALID, *name_and_rest) == Status.BADF, name


def test_a_body_that_is_only_sent_when_it_is_wanted_is_a_body_like_any_other() -> None:
    wanted: list[bool] = []
    body = AwaitedBody(lambda: wanted.append(True))
    guest = FastlyGuest(client=FakeDownstream(body=body))
    _, handle = guest.downstream()
    assert guest.do("http_body.known_length", handle, 64) == Status.NONE
    assert not wanted
    assert guest.get("async_io.is_ready", handle) == 0
    assert wanted, "to look whether there is something is to ask for it"
    body.write(b"sent after 100 Continue")
    assert guest.read(handle) == b"sent after 100 Continue"
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.send_downstream", response, handle, 0) == Status.OK
    assert guest.client.response_body is body
