"""Lines that are kept and followed: bounds, filters, slow readers, workers that lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from edge.admin.control import LogFilter
from edge.errors import ApiRefused
from edge.outcome import OK, Ending, Outcome
from edge.rollout import lines as under_test
from edge.rollout.lines import LineBook
from edge.telemetry.lines import MAX_BATCH, BadLines, Batch, Line, LineReader, encode_batch
from edge.telemetry.tap import BYTES_PER_SECOND, LINES_PER_SECOND, AccessRecord, Tap
from edge.watch import Follow
from tests.support.loop import turns

EVERYTHING = LogFilter()


def line(service: str = "shop", text: str = "hello", **facts: object) -> Line:
    whole = {
        "kind": "guest",
        "service": service,
        "version": 1,
        "stream": "stdout",
        "request": "r",
        "message": text,
        **facts,
    }
    return Line(service, int(str(whole["version"])), len(text), whole)


def book(told: Callable[[Follow], None] = lambda follow: None) -> LineBook:
    return LineBook(told)


async def recent(kept: LineBook, wanted: LogFilter = EVERYTHING, most: int = 1000) -> list[object]:
    found = kept.lines(wanted, recent=most, follow=False)
    return [facts["message"] async for facts in found]


def test_lines_are_kept_in_order_and_the_newest_are_shown() -> None:
    kept = book()
    kept.take(Batch(0, tuple(line("ab"[n % 2], str(n)) for n in range(10))))
    assert asyncio.run(recent(kept, most=3)) == ["7", "8", "9"]
    assert asyncio.run(recent(kept, LogFilter(service="a"), 2)) == ["6", "8"]


def test_a_service_that_is_gone_leaves_no_lines_for_the_next_of_its_name() -> None:
    kept = book()
    kept.take(Batch(0, (line("a", "theirs"), line("b", "others"))))
    kept.drop("a")
    kept.drop("nobody")
    kept.take(Batch(0, (line("a", "mine"),)))
    assert asyncio.run(recent(kept, LogFilter(service="a"))) == ["mine"]
    assert asyncio.run(recent(kept, LogFilter(service="b"))) == ["others"]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (LogFilter(service="b"), ["other"]),
        (LogFilter(version=2), ["new"]),
        (LogFilter(stream="stderr"), ["error"]),
        (LogFilter(request="q"), ["asked"]),
        (LogFilter(outcome="trap"), ["broken"]),
        (LogFilter(service="b", version=2), []),
    ],
)
def test_filters_choose_lines(wanted: LogFilter, shown: list[str]) -> None:
    kept = book()
    kept.take(
        Batch(
            0,
            (
                line(text="plain"),
                line("b", "other"),
                line(text="new", version=2),
                line(text="error", stream="stderr"),
                line(text="asked", request="q"),
                line(text="broken", outcome="trap"),
            ),
        )
    )
    assert asyncio.run(recent(kept, wanted)) == shown


def test_what_is_kept_is_bounded_for_a_service_for_all_and_in_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "MAX_BYTES", 40 * (under_test.OVERHEAD + 5))
    monkeypatch.setattr(under_test, "PER_SERVICE", 30)
    monkeypatch.setattr(under_test, "MAX_SERVICES", 5)
    kept = book()
    kept.take(Batch(0, tuple(line("loud") for _ in range(100))))
    assert len(asyncio.run(recent(kept))) == 30
    kept.take(Batch(0, tuple(line(name) for name in "abcd" for _ in range(5))))
    assert 0 < len(asyncio.run(recent(kept))) <= 40
    assert len(asyncio.run(recent(kept, LogFilter(service="d")))) == 5  # the loud one gave way
    kept.take(Batch(0, tuple(line(f"many-{n}") for n in range(100))))
    assert len(asyncio.run(recent(kept))) == 5


def test_a_follower_gets_new_lines_and_a_slow_one_is_told_how_many_it_missed() -> None:
    async def run() -> None:
        told: list[Follow] = []
        kept = book(told.append)
        found = kept.lines(LogFilter(service="shop"), recent=0, follow=True)
        assert await anext(found) == {}
        assert told == [Follow(("shop",), everything=False)]
        kept.take(Batch(3, tuple(line(text=str(n)) for n in range(under_test.MAX_WAITING + 7))))
        await turns(under_test.MAX_WAITING)
        got = [await anext(found) for _ in range(under_test.MAX_WAITING)]
        assert [facts["message"] for facts in got] == [str(n) for n in range(len(got))]
        assert await anext(found) == {"dropped": 10}
        await found.aclose()
        assert told[-1] == Follow()
        kept.take(Batch(0, (line(),)))

    asyncio.run(run())


def test_a_follower_of_silence_gets_empty_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "QUIET_SECONDS", 0.01)

    async def run() -> None:
        found = book().lines(EVERYTHING, recent=10, follow=True)
        assert [await anext(found) for _ in range(3)] == [{}, {}, {}]
        await found.aclose()

    asyncio.run(run())


def test_only_so_many_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_FOLLOWERS", 1)

    async def run() -> None:
        kept = book()
        first = kept.lines(EVERYTHING, recent=0, follow=True)
        await anext(first)
        with pytest.raises(ApiRefused, match="follow the log already"):
            kept.lines(EVERYTHING, recent=0, follow=True)
        await first.aclose()
        second = kept.lines(EVERYTHING, recent=0, follow=True)
        assert await anext(second) == {}
        await second.aclose()

    asyncio.run(run())


def test_only_so_many_may_follow_one_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_FOLLOWERS_OF_ONE", 1)

    async def run() -> None:
        kept = book()
        readers = [kept.lines(LogFilter(service=name), recent=0, follow=True) for name in ("a", "")]
        for reader in readers:
            await anext(reader)
        for name, whose in (("a", "the log of a"), ("", "the whole log")):
            with pytest.raises(ApiRefused, match=f"{whose} already"):
                kept.lines(LogFilter(service=name), recent=0, follow=True)
        other = kept.lines(LogFilter(service="b"), recent=0, follow=True)
        assert await anext(other) == {}
        for reader in (*readers, other):
            await reader.aclose()

    asyncio.run(run())


def test_a_line_costs_only_those_who_follow_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        kept = book()
        names = ["loud", "", *(f"quiet-{n}" for n in range(20))]
        readers = [kept.lines(LogFilter(service=one), recent=0, follow=True) for one in names]
        for reader in readers:
            await anext(reader)
        offers = counted_offers(monkeypatch)
        kept.take(Batch(0, (line("loud"), line("nobody"))))
        assert offers == ["loud", "", ""]
        for reader in readers:
            await reader.aclose()

    asyncio.run(run())


def test_a_loud_batch_takes_turns_of_the_loop_and_what_is_too_much_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "STEP", 10)
    monkeypatch.setattr(under_test, "MAX_BEHIND", 50)

    async def run() -> None:
        kept = book()
        readers = [kept.lines(LogFilter(service="s"), recent=0, follow=True) for _ in range(4)]
        for reader in readers:
            await anext(reader)
        offers = counted_offers(monkeypatch)
        kept.take(Batch(1, tuple(line("s", str(n)) for n in range(70))))
        steps = [len(offers)]
        kept.take(Batch(0, (line("s", "another"),)))  # its turn comes after the others'
        while len(offers) < 4 * 51:
            assert len(await recent(kept)) == len(offers) / 4
            before = len(offers)
            await asyncio.sleep(0)
            steps.append(len(offers) - before)
        assert steps == [8] * 25 + [4]  # two lines a turn, each offered to four
        got = [await anext(readers[0]) for _ in range(52)]
        assert [facts.get("message") for facts in got[49:]] == ["49", "another", None]
        assert got[51] == {"dropped": 21}
        kept.take(Batch(0, tuple(line("s") for _ in range(9))))
        kept.drop("s")
        await turns()
        assert await recent(kept) == []
        for reader in readers:
            await reader.aclose()

    asyncio.run(run())


def counted_offers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The service that a follower follows, each time that it is offered a line."""
    offers: list[str] = []
    offer = under_test._Follower.offer

    def counting(follower: under_test._Follower, line: Line) -> None:
        offers.append(follower.wanted.service)
        offer(follower, line)

    monkeypatch.setattr(under_test._Follower, "offer", counting)
    return offers


# From worker to supervisor --------------------------------------------------------------------


class Pipe:
    """What a tap sends; `full` refuses it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.full = False
        self.now = 1.0
        self.tap = Tap(self._send, lambda: self.now)

    def _send(self, data: bytes) -> bool:
        assert len(data) <= MAX_BATCH
        if not self.full:
            self.sent.append(data)
        return not self.full

    def read(self) -> list[Batch]:
        self.tap.flush()
        found = [LineReader(3).read(data) for data in self.sent]
        self.sent.clear()
        return found

    def say(self, text: bytes = b"hello", service: str = "shop") -> None:
        self.tap.guest(1.5, service, "7", "r", "stdout", text, 0)


def record(request: str = "r", service: str = "shop", outcome: Outcome = OK) -> AccessRecord:
    return (
        1.5, request, "127.0.0.1", service, "7", b"GET", b"a.test", b"/p?secret", 200, outcome,
        5000, 9000, 65536, 1, 2, 3, 4000,
    )  # fmt: skip


def test_lines_of_guests_cross_over_whole_whatever_is_in_them() -> None:
    pipe = Pipe()
    texts = [b"plain", '"\\ é\u2028'.encode(), b"\xff\x00", b"x" * 8192, b"\x01" * 8192]
    for text in texts:
        pipe.say(text)
    batches = pipe.read()
    found = [one for batch in batches for one in batch.lines]
    assert [one.facts["message"] for one in found[:2]] == ["plain", '"\\ é\u2028']
    assert found[0].facts["time"] == "1970-01-01T00:00:01.500Z"
    assert (found[0].service, found[0].version, found[0].facts["worker"]) == ("shop", 7, 3)
    assert found[3].facts["message"] == "x" * 8192
    assert sum(batch.dropped for batch in batches) + len(found) == len(texts)


def test_records_go_when_they_did_not_end_well_or_are_wanted() -> None:
    pipe = Pipe()
    bad = Outcome(Ending.CPU_LIMIT, "too long", "51ms", "50ms", "services.shop.limits.cpu")
    pipe.tap.records([record(), record("bad", outcome=bad), record("none", service="")])
    ((only,),) = [batch.lines for batch in pipe.read()]
    assert only.facts["outcome"] == "cpu_limit"
    assert only.facts["path"] == "/p"  # a query is nobody's business
    assert (only.facts["cpu_us"], only.facts["setting"]) == (5, "services.shop.limits.cpu")
    assert not pipe.tap.follows
    pipe.tap.expect("wanted")
    pipe.tap.follow(["other"], everything=False)
    pipe.tap.records([record(), record("wanted"), record("wanted"), record(service="other")])
    ((one, other),) = [batch.lines for batch in pipe.read()]
    assert (one.facts["request"], other.service) == ("wanted", "other")
    pipe.tap.follow([], everything=True)
    pipe.tap.records([record(), record()])
    assert len(pipe.read()[0].lines) == 2


def test_a_loud_service_is_cut_off_and_its_neighbour_is_heard() -> None:
    pipe = Pipe()
    for _ in range(LINES_PER_SECOND):
        pipe.say()
    pipe.say(service="quiet")
    batches = pipe.read()
    heard = [one.service for batch in batches for one in batch.lines]
    assert heard.count("shop") == LINES_PER_SECOND // 4
    assert heard.count("quiet") == 1
    assert sum(batch.dropped for batch in batches) == LINES_PER_SECOND * 3 // 4
    pipe.now = 2.0
    for _ in range(BYTES_PER_SECOND // 8192):
        pipe.say(b"x" * 8192)
    assert sum(len(batch.lines) for batch in pipe.read()) == BYTES_PER_SECOND // 8192 // 4


def test_what_the_supervisor_does_not_take_is_left_out_and_counted() -> None:
    pipe = Pipe()
    pipe.full = True
    for _ in range(5):
        pipe.say()
    assert pipe.read() == []
    pipe.full = False
    pipe.say()
    (batch,) = pipe.read()
    assert (batch.dropped, len(batch.lines)) == (5, 1)


GOOD = ["guest", 1.5, "shop", "7", "r", "stdout", "text", 0]


@pytest.mark.parametrize(
    "item",
    [
        7,
        [],
        ["other", *GOOD[1:]],
        ["guest", "1.5", *GOOD[2:]],
        ["guest", float("nan"), *GOOD[2:]],
        ["guest", -1.0, *GOOD[2:]],
        [*GOOD[:2], 7, *GOOD[3:]],
        [*GOOD[:3], "seven", *GOOD[4:]],
        [*GOOD[:6], {"a": 1}, 0],
        [*GOOD[:6], "x" * 65537, 0],
        [*GOOD[:7], -1],
        [*GOOD[:7], True],
        [*GOOD, "more"],
        ["access", 1.5, "shop", "7", ["r"], [1]],
        ["access", 1.5, "shop", "7", ["r"] * 10, ["1"] * 8],
        ["access", 1.5, "shop", "7", [1] * 10, [1] * 8],
    ],
)
def test_a_worker_that_lies_about_its_lines_is_found_out(item: object) -> None:
    reader = LineReader(0)
    assert len(reader.read(encode_batch(0, [json.dumps(GOOD)])).lines) == 1
    with pytest.raises(BadLines):
        reader.read(encode_batch(0, [json.dumps(GOOD), json.dumps(item)]))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'["a"]', b"[-1]", b"[" * 5000, b" " * (MAX_BATCH + 1), b"\xff"]
)
def test_a_batch_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadLines):
        LineReader(0).read(data)
