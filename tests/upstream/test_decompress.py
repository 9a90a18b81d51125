"""gzip from backends: right, in pieces, in members, cut, garbage, and bombs."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from edge.errors import Failed, HostcallError, Incomplete, LimitExceeded
from edge.http.body import HIGH_WATER, Account, Body, Ledger
from edge.upstream.decompress import STEP, STEPS_PER_TURN, Inflater, take_encoding
from tests.support.backends_h1 import answer, answering, fetching, ok, read_all
from tests.support.serving import run, until

TEXT = random.Random(7).randbytes(100_000) + b"hello " * 100_000


class Bench:
    """An inflater, its body, and a loop turned by hand."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.account = Account(Ledger(), limit)
        self.body = Body(self.account, live=True)
        self.soon: list[Callable[[], None]] = []
        self.inflater = Inflater(self.body, self.account, self.soon.append)
        self.drained = 0
        self.broken = 0
        self.inflater.on_drain = self._drain
        self.inflater.on_broken = self._break

    def _drain(self) -> None:
        self.drained += 1

    def _break(self) -> None:
        self.broken += 1

    def turn(self) -> None:
        soon, self.soon[:] = list(self.soon), []
        for callback in soon:
            callback()

    def read(self) -> bytes:
        """All that comes, as a reader that takes everything gets it."""
        found = []
        while True:
            data = self.body.read(1 << 20)
            if data:
                found.append(data)
            elif self.soon:
                self.turn()
            else:
                return b"".join(found)

    def decode(self, data: bytes, step: int) -> bytes:
        found = []
        for at in range(0, len(data), step):
            self.inflater.write(data[at : at + step])
            found.append(self.read())
        self.inflater.finish([(b"x", b"y")])
        return b"".join([*found, self.read()])


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_gzip_is_undone_however_it_arrives(step: int) -> None:
    text = TEXT[:3000] if step < 10 else TEXT
    bench = Bench()
    assert bench.decode(gzip.compress(text), step) == text
    assert bench.body.at_eof
    assert bench.body.trailers == [(b"x", b"y")]
    assert bench.account.held == 0


@pytest.mark.parametrize("step", [1, 1000])
def test_members_follow_each_other_and_padding_means_nothing(step: int) -> None:
    data = gzip.compress(b"one") + gzip.compress(b"") + b"\0" * 9 + gzip.compress(b"two") + b"\0\0"
    bench = Bench()
    assert bench.decode(data, step) == b"onetwo"
    assert bench.body.at_eof


def test_an_empty_body_is_empty() -> None:
    bench = Bench()
    assert bench.decode(b"", 1) == b""
    assert bench.body.at_eof


def test_an_output_of_exactly_one_step_ends_as_well() -> None:
    for size in (STEP - 1, STEP, STEP + 1, 2 * STEP):
        bench = Bench()
        assert len(bench.decode(gzip.compress(bytes(size)), 1 << 20)) == size
        assert bench.body.at_eof


@pytest.mark.parametrize("cut", [1, 5, 12, 20, -9, -1])
def test_what_ends_in_the_middle_is_incomplete(cut: int) -> None:
    bench = Bench()
    with pytest.raises(Incomplete):
        bench.decode(gzip.compress(TEXT[:1000])[:cut], 1 << 20)
    assert bench.account.held == 0


@pytest.mark.parametrize(
    "data",
    [
        b"this is not gzip",
        zlib.compress(b"zlib and not gzip"),
        gzip.compress(b"one") + b"garbage",
        b"\0" + gzip.compress(b"padding before the first"),
        gzip.compress(b"checksum")[:-8] + b"12345678",
    ],
)
def test_what_is_not_gzip_fails_and_says_so(data: bytes) -> None:
    bench = Bench()
    with pytest.raises(Failed, match="not the gzip"):
        bench.decode(data, 1 << 20)
    assert bench.broken == 1
    assert bench.account.held == 0


def test_a_failure_comes_after_what_came_before_it() -> None:
    bench = Bench()
    bench.inflater.write(gzip.compress(b"whole"))
    bench.inflater.fail(Incomplete("the connection closed"))
    assert bench.body.read(100) == b"whole"
    with pytest.raises(Incomplete, match="the connection closed"):
        bench.body.read(100)


def test_a_bomb_holds_no_more_than_a_full_body() -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024), 9)
    assert len(bomb) < 300_000
    bench = Bench()
    bench.inflater.write(bomb)
    for _ in range(100):
        bench.turn()
    assert bench.inflater.is_full
    assert bench.body.held <= HIGH_WATER + STEP
    assert bench.account.peak <= HIGH_WATER + STEP + len(bomb)
    before = bench.body.total_read
    bench.body.read(HIGH_WATER)
    assert bench.body.total_read > before
    assert bench.body.held <= HIGH_WATER + STEP
    bench.inflater.stop()
    bench.body.discard()
    assert bench.account.held == 0


def test_a_reader_that_takes_all_gets_no_more_than_a_turns_worth_at_once() -> None:
    bench = Bench()
    got = 0

    def take() -> None:
        nonlocal got
        while data := bench.body.read(1 << 20):
            got += len(data)
        bench.body.watch(take)

    bench.body.watch(take)
    bench.inflater.write(gzip.compress(bytes(64 * 1024 * 1024)))
    assert got <= STEP * STEPS_PER_TURN
    before = got
    bench.turn()
    assert before < got <= 2 * STEP * STEPS_PER_TURN


def test_thousands_of_empty_members_are_taken_in_turns() -> None:
    bench = Bench()
    bench.inflater.write(gzip.compress(b"") * 5000 + gzip.compress(b"end"))
    turns = 0
    while bench.soon:
        bench.turn()
        turns += 1
    assert turns >= 5000 // STEPS_PER_TURN - 1
    bench.inflater.finish([])
    assert bench.body.read(100) == b"end"


def test_compressed_bytes_that_wait_are_paid_for() -> None:
    bench = Bench(limit=1000)
    with pytest.raises(LimitExceeded):
        bench.inflater.write(random.Random(1).randbytes(2000))
    assert bench.account.held == 0


def test_output_that_the_account_cannot_hold_fails_the_body() -> None:
    bench = Bench(limit=100_000)
    bench.inflater.write(gzip.compress(bytes(1_000_000)))
    assert bench.broken == 1
    with pytest.raises(LimitExceeded):
        bench.read()
    assert bench.account.held == 0


def test_the_connection_reads_on_when_all_input_is_used() -> None:
    bench = Bench()
    bench.inflater.write(gzip.compress(b"x" * 10)[:12])
    assert (bench.drained, bench.inflater.is_full) == (1, False)


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        ([b"gzip"], True),
        ([b"X-GZIP"], True),
        ([], False),
        ([b"br"], False),
        ([b"gzip, br"], False),
        ([b"gzip", b"gzip"], False),
    ],
)
def test_only_gzip_alone_is_undone(values: list[bytes], taken: bool) -> None:
    headers = [(b"a", b"b"), (b"content-length", b"9")]
    headers += [(b"content-encoding", value) for value in values]
    assert take_encoding(headers) == ([(b"a", b"b")] if taken else None)


# Over a connection ------------------------------------------------------------------------------

PACKED = gzip.compress(TEXT)


@pytest.mark.parametrize("auto", [True, False])
def test_a_response_is_inflated_when_that_is_wanted(auto: bool) -> None:
    async def main() -> None:
        async with fetching(answering(ok(PACKED, b"Content-Encoding: gzip"), ok())) as f:
            got = await f.fetch(auto_decompress=auto)
            names = [name for name, _ in got.headers]
            assert (b"content-encoding" in names, b"content-length" in names) == (
                not auto,
                not auto,
            )
            assert got.body == (TEXT if auto else PACKED)
            assert (await f.fetch()).body == b"hello"
            assert f.accepted == 1
            assert f.account.held == 0

    run(main())


def test_the_connection_is_free_while_what_was_read_is_still_being_inflated() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)

    async def main() -> None:
        async with fetching(answering(ok(bomb, b"Content-Encoding: gzip"), ok())) as f:
            body = (await answer(f.send(auto_decompress=True))).body
            await until(lambda: f.client.statistics().connections_idle == 1)
            assert f.account.held <= HIGH_WATER + STEP + len(bomb)
            assert (await f.fetch()).body == b"hello"
            body.discard()
            assert f.account.held == 0

    run(main())


@pytest.mark.parametrize("packed", [PACKED[:-20], b"not gzip"])
def test_a_response_that_is_no_whole_gzip_fails(packed: bytes) -> None:
    async def main() -> None:
        async with fetching(answering(ok(packed, b"Content-Encoding: gzip"))) as f:
            body = (await answer(f.send(auto_decompress=True))).body
            with pytest.raises(HostcallError):
                await read_all(body)
            assert f.account.held == 0

    run(main())


def test_a_head_that_names_gzip_without_a_body_stays_as_it_is() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n"

    async def main() -> None:
        async with fetching(answering(response)) as f:
            got = await f.fetch(b"HEAD", auto_decompress=True)
            assert (b"content-encoding", b"gzip") in got.headers
            assert (b"content-length", b"9") in got.headers

    run(main())
