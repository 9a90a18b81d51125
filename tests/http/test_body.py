"""Bodies: order, bounds, accounts, swallowing, endings."""

from __future__ import annotations

import asyncio

import pytest

from edge.errors import Incomplete, LimitExceeded
from edge.http.body import HIGH_WATER, Account, Body, Ledger


def drain(body: Body, limit: int = 1 << 20) -> bytes:
    found = b""
    while data := body.read(limit):
        found += data
    return found


def test_bytes_come_out_in_order_and_in_the_pieces_asked_for() -> None:
    body = Body()
    for piece in (b"a" * 5000, b"b", b"c", b""):
        body.write(piece)
    body.write_front(b"0")
    assert body.known_length == 5003
    assert [body.read(1), body.read(2), body.read(4999)] == [b"0", b"aa", b"a" * 4998]
    assert (body.at_eof, drain(body)) == (False, b"bc")
    assert (body.at_eof, body.total_read) == (True, 5003)


def test_reading_a_large_chunk_in_small_pieces_does_not_copy_the_rest_each_time() -> None:
    body = Body()
    size = 32 << 20
    body.write(bytes(size))  # cut at every read this would move 8 GiB
    count = 0
    while data := body.read(65536):
        count += len(data)
    assert count == size


def test_a_half_read_chunk_is_joined_peeked_swallowed_and_prepended_to_correctly() -> None:
    def half_read() -> Body:
        body = Body()
        body.write(b"abcdef")
        assert body.read(2) == b"ab"
        return body

    body = half_read()
    body.write(b"gh")
    assert body.peek_all() == b"cdefgh"
    assert drain(body, 3) == b"cdefgh"
    body = half_read()
    body.write_front(b"X")
    assert drain(body) == b"Xcdef"
    body, other = half_read(), Body()
    other.write(b"1")
    other.append(body)
    assert other.known_length == 5
    assert drain(other, 2) == b"1cdef"
    body = half_read()
    body.discard()
    assert body.at_eof
    assert body.held == 0


def test_a_reader_is_told_of_bytes_end_error_and_a_writer_of_room() -> None:
    told: list[str] = []
    body = Body(live=True)
    body.on_drain = lambda: told.append("drain")
    body.watch(lambda: told.append("changed"))
    body.write(b"x" * HIGH_WATER)
    assert told == ["changed"]
    assert body.is_full
    body.watch(lambda: told.append("room"))
    body.read(1)
    assert told == ["changed", "drain", "room"]
    body.watch(lambda: told.append("end"))
    body.finish([(b"a", b"b")])
    body.finish([(b"a", b"b")])
    assert told[-1] == "end"
    assert body.trailers == [(b"a", b"b")]


def test_an_error_is_raised_after_the_bytes_before_it() -> None:
    body = Body(live=True)
    body.write(b"x")
    body.fail(Incomplete("gone"))
    assert body.read(10) == b"x"
    assert body.is_readable
    assert not body.at_eof
    with pytest.raises(Incomplete):
        body.read(10)


def test_a_live_body_is_read_through_the_one_that_swallowed_it() -> None:
    live, outer = Body(live=True), Body()
    outer.write(b"1")
    outer.append(live)
    outer.write(b"3")
    assert live.feeds(outer)
    assert not outer.feeds(live)
    assert (outer.known_length, live.known_length) == (None, None)
    assert outer.read(9) == b"1"
    assert not outer.is_readable
    told: list[int] = []
    outer.watch(lambda: told.append(1))
    live.write(b"2")
    assert told == [1]
    live.expected = 0
    assert outer.known_length == 2
    live.finish([(b"t", b"u")])
    assert drain(outer) == b"23"
    assert outer.at_eof
    assert outer.trailers == [(b"t", b"u")]


def test_an_account_is_charged_moved_and_released() -> None:
    ledger = Ledger()
    first, second = Account(ledger, 100), Account(ledger, 50)
    body = Body()
    body.write(b"x" * 60)
    body.adopt(first)
    assert (first.held, ledger.held) == (60, 60)
    with pytest.raises(LimitExceeded):
        body.adopt(second)
    with pytest.raises(LimitExceeded):
        body.write(b"y" * 41)
    assert (first.held, second.held, body.held) == (60, 0, 60)
    other = Body(second)
    with pytest.raises(LimitExceeded):
        other.append(body)
    assert (body.known_length, other.known_length) == (60, 0)
    body.read(20)
    other.append(body)
    assert (first.held, second.held, ledger.held) == (0, 40, 40)
    other.discard()
    assert (second.held, ledger.held) == (0, 0)


def test_a_discarded_body_lets_its_writer_run_on_into_nothing() -> None:
    account = Account(Ledger(), 100)
    body = Body(account, live=True)
    body.write(b"x" * 100)
    body.discard()
    body.write(b"y" * 1000)
    body.append(Body())
    assert (body.held, account.held) == (0, 0)
    body.finish()
    assert body.at_eof


def test_a_writer_is_told_once_that_nobody_reads_any_more() -> None:
    told: list[str] = []
    inner, outer = Body(live=True), Body()
    inner.on_discard = lambda: told.append("given up")
    outer.append(inner)
    assert told == []
    outer.discard()
    outer.discard()
    inner.discard()
    assert told == ["given up"]


def test_waiting_ends_with_a_change() -> None:
    async def main() -> None:
        body = Body(live=True)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(body.wait_readable())
            await asyncio.sleep(0)
            assert not waiting.done()
            body.write(b"x" * HIGH_WATER)
            await waiting
            room = tasks.create_task(body.wait_room())
            await asyncio.sleep(0)
            assert not room.done()
            body.read(HIGH_WATER)
            await room

    asyncio.run(main())
