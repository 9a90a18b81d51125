"""Codecs, each through a module made for the test: what arrives, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Annotated, Any

import pytest

from edge.abi.codec import (
    MAX_MOVE,
    U16,
    U32,
    U64,
    Bits,
    Bytes,
    Choice,
    Data,
    Handle,
    Handles,
    Input,
    Out,
    OutBytes,
    OutList,
    OutOctets,
    Region,
    Str,
)
from edge.abi.fastly.status import FASTLY, Status
from edge.abi.hostcall import HostModule
from edge.errors import InvalidArgument
from tests.support.fake_guest import FakeGuest
from tests.support.sandboxes import make_sandbox


class Colour(IntEnum):
    RED = 0
    BLUE = 7


Paint = Annotated[Colour, Choice(Colour)]
Flags = Annotated[int, Bits(known=0b0110)]
Thing = Annotated[str, Handle(str)]
TakenThing = Annotated[str, Handle(str, consumed=True)]

VALUES = [b"one", b"", b"three"]


def guest_with(handler: Callable[..., Any], size: int = 1 << 20) -> FakeGuest:
    """A guest that can call `handler` as `f`."""
    abi = HostModule("m", FASTLY)
    abi.named("f")(handler)
    return FakeGuest(abi, make_sandbox().box, size)


def test_numbers_are_unsigned_and_of_their_width() -> None:
    seen: list[int] = []

    def handler(box: object, small: U32, big: U64) -> tuple[U16, U32, U64]:
        seen.extend((small, big))
        return 0x1234, 0xFFFF_FFFF, 1 << 63

    guest = guest_with(handler)
    a, b, c = guest.room(8), guest.room(8), guest.room(8)
    guest.box.memory.write(a, b"\xaa" * 8)
    assert guest.call("f", -1, -1, a, b, c) == Status.OK
    assert seen == [0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF]
    assert guest.bytes_at(a, 4) == b"\x34\x12\xaa\xaa"
    assert (guest.u32_at(b), guest.u64_at(c)) == (0xFFFF_FFFF, 1 << 63)
    assert guest.call("f", 0, 0, guest.size - 2, b, c) == Status.OK
    assert guest.call("f", 0, 0, guest.size - 1, b, c) == Status.INVAL
    assert guest.call("f", 0, 0, a, b, guest.size - 7) == Status.INVAL
    assert len(seen) == 4, "the handler did not run: its result would have been lost"


def test_bytes_and_text() -> None:
    seen: list[object] = []

    def handler(box: object, raw: Bytes, text: Str) -> None:
        seen.extend((raw, text))

    guest = guest_with(handler)
    assert guest.call("f", *guest.put(b"\xff"), *guest.put("käse".encode())) == Status.OK
    assert seen == [b"\xff", "käse"]
    ok = guest.put(b"x")
    for lie in (
        (*ok, *guest.put(b"\xff")),
        (guest.size, 1, *ok),
        (guest.size - 1, 2, *ok),
        (*ok, 0, 65_536),
        (0xFFFF_FFFF, 0xFFFF_FFFF, *ok),
    ):
        assert guest.call("f", *lie) == Status.INVAL, lie
    assert guest.call("f", guest.size, 0, 0, 0) == Status.OK, "nothing, at the very end"


def test_choices_flags_and_lists_of_handles() -> None:
    seen: list[object] = []

    def handler(box: object, colour: Paint, flags: Flags, handles: Handles) -> Paint:
        seen.extend((colour, flags, handles))
        return Colour.BLUE

    guest = guest_with(handler)
    at = guest.put(b"\1\0\0\0\2\0\0\0")[0]
    out = guest.room(4)
    assert guest.call("f", 7, 6, at, 2, out) == Status.OK
    assert seen == [Colour.BLUE, 6, (1, 2)]
    assert guest.u32_at(out) == 7
    for lie in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 8, 0, 0), (0, 0, 0, 10_001), (0, 0, -4, 2)):
        assert guest.call("f", *lie, out) == Status.INVAL, lie


def test_handles_are_looked_up_made_and_consumed() -> None:
    def make(box: object, thing: Thing) -> Thing:
        return thing + "!"

    def take(box: object, thing: TakenThing) -> None:
        assert thing == "x!"

    abi = HostModule("m", FASTLY)
    abi.hostcall(make)
    abi.hostcall(take)
    made = make_sandbox()
    guest = FakeGuest(abi, made.box)
    assert made.box.items.insert("x") == 1
    out = guest.room(4)
    assert guest.call("make", 1, out) == Status.OK
    assert guest.u32_at(out) == 2
    assert guest.call("make", 3, out) == Status.BADF
    other = made.box.items.insert(b"not a str")
    assert guest.call("take", other) == guest.call("make", other, out) == Status.BADF
    assert other in made.box.items, "the wrong call has not consumed it"
    assert guest.call("take", 2) == Status.OK
    assert guest.call("take", 2) == Status.BADF
    made.box.items.ceiling = 1
    made.box.limits = replace(made.box.limits, handles=1)
    assert guest.call("make", 1, out) == Status.LIMITEXCEEDED
    assert made.box.limits_hit == {"limits.handles": 1}


def test_out_buffers_take_all_or_say_what_they_need() -> None:
    def handler(box: object, out: Out) -> None:
        out.fill(b"12345")

    guest = guest_with(handler)
    buffer, size = guest.room(8), guest.room(4)
    assert guest.call("f", buffer, 4, size) == Status.BUFLEN
    assert (guest.bytes_at(buffer, 5), guest.u32_at(size)) == (bytes(5), 5)
    assert guest.call("f", buffer, 5, size) == Status.OK
    assert (guest.bytes_at(buffer, 5), guest.u32_at(size)) == (b"12345", 5)
    assert guest.call("f", guest.size - 4, 5, size) == Status.INVAL
    assert guest.call("f", buffer, 5, guest.size - 3) == Status.INVAL


def test_out_arrays_return_their_count_and_tell_no_size() -> None:
    def handler(box: object, out: OutBytes, octets: OutOctets) -> U32:
        assert octets.capacity == 16
        return out.fill(b"abc") + octets.fill(b"1234")

    guest = guest_with(handler)
    buffer, octets, count = guest.room(4), guest.room(16), guest.room(4)
    assert guest.call("f", buffer, 3, octets, count) == Status.OK
    assert guest.u32_at(count) == 7
    assert guest.call("f", buffer, 2, octets, count) == Status.BUFLEN
    assert guest.call("f", buffer, 3, guest.size - 3, count) == Status.INVAL


@pytest.mark.parametrize(
    ("room", "cursor", "status", "text", "end"),
    [
        (100, 0, Status.OK, b"one\0\0three\0", -1),
        (11, 0, Status.OK, b"one\0\0three\0", -1),
        (10, 0, Status.OK, b"one\0\0", 2),
        (5, 0, Status.OK, b"one\0\0", 2),
        (4, 0, Status.OK, b"one\0", 1),
        (1, 1, Status.OK, b"\0", 2),
        (6, 2, Status.OK, b"three\0", -1),
        (6, 3, Status.OK, b"", -1),
        (6, 0xFFFF_FFFF, Status.OK, b"", -1),
        (0, 0, Status.BUFLEN, None, -1),
        (3, 0, Status.BUFLEN, None, -1),
    ],
)
def test_lists_of_values_are_paged_by_cursor(
    room: int, cursor: int, status: Status, text: bytes | None, end: int
) -> None:
    def handler(box: object, out: OutList) -> None:
        out.fill(VALUES)

    guest = guest_with(handler)
    buffer, ending, size = guest.room(128), guest.room(8), guest.room(4)
    assert guest.call("f", buffer, room, cursor, ending, size) == status
    assert guest.i64_at(ending) == end
    if text is None:
        assert guest.u32_at(size) == len(VALUES[cursor]) + 1
    else:
        assert guest.bytes_at(buffer, guest.u32_at(size)) == text
    assert guest.call("f", buffer, room, cursor, 0, size) == status, "a null ending is allowed"
    assert guest.bytes_at(0, 8) == bytes(8)


def test_regions_are_checked_whole_and_moved_in_pieces() -> None:
    seen: list[bytes] = []

    def handler(box: object, region: Input) -> None:
        seen.append(region.read(2, 100))
        region.write(0, b"Z")
        with pytest.raises(InvalidArgument):
            region.write(region.length, b"Z")

    guest = guest_with(handler)
    at, length = guest.put(b"abcdef")
    assert guest.call("f", at, length) == Status.OK
    assert seen == [b"cdef"]
    assert guest.bytes_at(at, 6) == b"Zbcdef"
    assert guest.call("f", guest.size - 5, 6) == Status.INVAL


def test_bulk_data_is_copied_at_once_while_it_is_small() -> None:
    seen: list[object] = []

    def handler(box: object, data: Data) -> None:
        seen.append(data)

    guest = guest_with(handler)
    assert guest.call("f", 16, MAX_MOVE) == Status.OK
    assert guest.call("f", 16, MAX_MOVE + 1) == Status.OK
    assert seen[0] == bytes(MAX_MOVE)
    assert isinstance(seen[1], Region)
    assert seen[1].length == MAX_MOVE + 1
    for length in (2, MAX_MOVE, MAX_MOVE + 1, 0xFFFF_FFFF):
        assert guest.call("f", guest.size - 1, length) == Status.INVAL
