"""Every hostcall that is built: it works, and it knows each single lie and each short buffer.

What is tried follows from how a parameter is declared, so that a new hostcall is tried as well.
Everything but the lie is good: without it the call succeeds, which the first test shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edge.abi.codec import (
    Bits,
    Bulk,
    Choice,
    Codec,
    Handle,
    Int,
    OutArray,
    OutBuffer,
    OutValues,
    Region,
    Span,
    Text,
    U32List,
    Wrapped,
)
from edge.abi.fastly.heads import FieldName, FieldValue
from edge.abi.fastly.status import Status
from edge.abi.hostcall import Hostcall
from tests.support.fastly_guest import INVALID
from tests.support.whole_guest import CALLS, Argument, WholeGuest, replaced

every_call = pytest.mark.parametrize("call", CALLS)

# Pointers that nothing is read from or written to, and why.
UNREAD = {
    "kv_store.lookup:config": "its struct has one field, which is reserved",
    "kv_store.delete:config": "its struct has one field, which is reserved",
}
# call -> where in its struct an address stands, with a length behind it
INNER = {
    "http_req.cache_override_v3_set": (8,),
    "http_req.register_dynamic_backend": (0,),
    "kv_store.insert": (8,),
    "kv_store.list": (4, 16),
    "shielding.backend_for_shield": (0,),
}
# Structs of numbers alone.
NO_INNER = {"http_downstream.next_request"}
FAR = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Lie:
    """Numbers in the place of one good argument, and the status that they deserve."""

    about: str
    place: int  # which argument
    raw: tuple[int, ...]
    status: Status


def knows_nothing(hostcall: Hostcall) -> bool:
    """Whether there is nothing that it could answer; its description says so, and why."""
    return hostcall.doc.startswith("NONE: ")


@every_call
def test_it_works_with_good_arguments(call: str) -> None:
    guest = WholeGuest()
    status = guest.make(call, guest.arguments(CALLS[call]))
    assert status == (Status.NONE if knows_nothing(CALLS[call]) else Status.OK)


@every_call
def test_each_single_lie_gets_its_status(call: str) -> None:
    hostcall = CALLS[call]
    first = WholeGuest()
    for number, lie in enumerate(lies(first, call, first.arguments(hostcall))):
        guest = WholeGuest()
        told = lies(guest, call, arguments := guest.arguments(hostcall))
        lie = list(told)[number]
        answered, sent = guest.client.responded, len(guest.upstream.sent)
        status = guest.make(call, replaced(arguments, lie.place, lie.raw))
        assert status == lie.status, f"{lie.about}: {lie.raw}"
        assert guest.client.responded == answered, lie.about
        assert len(guest.upstream.sent) == sent, lie.about
        guest.box.close()
        assert guest.made.account.held == 0, f"{lie.about}: something is charged for ever"


@pytest.mark.parametrize(("call", "offset"), [(c, at) for c, each in INNER.items() for at in each])
def test_a_struct_may_not_point_out_of_memory(call: str, offset: int) -> None:
    for start, length in ((1 << 20, 1), (FAR, FAR), (64, FAR), (FAR, 1)):
        guest = WholeGuest()
        arguments = guest.arguments(CALLS[call])
        struct = next(argument for argument in arguments if argument.is_pointer)
        guest.box.memory.write_u32(struct.raw[0] + offset, start)
        guest.box.memory.write_u32(struct.raw[0] + offset + 4, length)
        assert guest.make(call, arguments) == Status.INVAL, (start, length)
        guest.box.close()
        assert guest.made.account.held == 0


def test_every_struct_is_known() -> None:
    pointing = {
        call
        for call, hostcall in CALLS.items()
        for argument in WholeGuest().arguments(hostcall)
        if argument.is_pointer and f"{call}:{argument.name}" not in UNREAD
        if not knows_nothing(hostcall)
    }
    assert pointing == INNER.keys() | NO_INNER


@pytest.mark.parametrize("call", [call for call, hostcall in CALLS.items() if hostcall.results])
def test_where_a_result_cannot_go_nothing_is_done(call: str) -> None:
    hostcall = CALLS[call]
    for number, codec in enumerate(hostcall.results):
        guest = WholeGuest()
        arguments = guest.arguments(hostcall)
        place = len(hostcall.params) + number
        before = dict(guest.box.items)
        for at in (guest.size - codec.width + 1, guest.size, FAR):
            assert guest.make(call, replaced(arguments, place, (at,))) == Status.INVAL
            assert dict(guest.box.items) == before
        assert guest.make(call, arguments) in (Status.OK, Status.NONE), "all is as it was"


def _can_be_short(codec: Codec) -> bool:
    return isinstance(codec, Wrapped) and (
        codec.cls in (OutBuffer, OutValues) or (codec.cls is OutArray and codec.wasm == "ii")
    )


SHORT = [
    (call, place)
    for call, hostcall in CALLS.items()
    for place, codec in enumerate(hostcall.params)
    if _can_be_short(codec)
]


@pytest.mark.parametrize(("call", "place"), SHORT)
def test_a_short_buffer_is_told_what_it_takes_and_loses_nothing(call: str, place: int) -> None:
    guest = WholeGuest()
    arguments = guest.arguments(CALLS[call])
    at, _, *rest = arguments[place].raw
    if knows_nothing(CALLS[call]):
        assert guest.make(call, replaced(arguments, place, (at, 0, *rest))) == Status.NONE
        return
    needed = _needed(call, place)
    for room in (0, needed - 1):
        cut = replaced(arguments, place, (at, room, *rest))
        assert guest.make(call, cut) == Status.BUFLEN
        if rest:  # one of two numbers has no place for the size
            assert guest.u32_at(rest[-1]) == needed
    exact = replaced(arguments, place, (at, needed, *rest))
    assert guest.make(call, exact) == Status.OK


def _needed(call: str, place: int) -> int:
    """How long the answer is, as a guest with room enough learns it."""
    guest = WholeGuest()
    arguments = guest.arguments(CALLS[call])
    assert guest.make(call, arguments) == Status.OK
    buffer = arguments[place].raw
    size = guest.u32_at(buffer[-1] if len(buffer) > 2 else arguments[-1].raw[0])
    assert size > 0, "an answer without bytes shows nothing"
    return size


# Lies -----------------------------------------------------------------------------------------


def lies(guest: WholeGuest, call: str, arguments: list[Argument]) -> Iterator[Lie]:
    """Everything wrong that can be said in the place of one good argument."""
    silent = knows_nothing(CALLS[call])
    for place, argument in enumerate(arguments[: len(CALLS[call].params)]):
        about = f"{call}:{argument.name}"
        if about in UNREAD:
            continue
        for raw, status in _lies(guest, argument):
            ignored = silent and (argument.is_pointer or isinstance(argument.codec, Wrapped))
            yield Lie(about, place, raw, Status.NONE if ignored else status)


Told = Iterator[tuple[tuple[int, ...], Status]]


def _lies(guest: WholeGuest, argument: Argument) -> Told:
    end = guest.size
    if argument.is_handle and not isinstance(argument.codec, U32List):
        closed = guest.get("http_resp.new")
        assert guest.do("http_resp.close", closed) == Status.OK
        for handle in (0, INVALID, FAR, closed, _other(guest, argument)):
            yield (handle,), Status.BADF
        return
    if argument.is_pointer:
        yield from (((at,), Status.INVAL) for at in (end - 3, end, FAR))
        return
    match argument.codec:
        case Wrapped(cls=cls, wasm=wasm):
            yield from _lies_of_outputs(end, cls, wasm, argument.raw)
        case U32List():
            yield (end, 1), Status.INVAL
            yield (argument.raw[0], 10_001), Status.INVAL
            yield (argument.raw[0], FAR), Status.INVAL
            good = guest.u32_at(argument.raw[0])
            for handle in (0, INVALID, guest.get("http_resp.new")):
                yield guest.handles(good, handle), Status.BADF
        case Span() | FieldValue() | Bulk() as codec:
            yield from _lies_of_bytes(guest, codec)
        case Choice(values=values):
            for number in (max(values) + 1, FAR):
                yield (number,), Status.INVAL
        case Bits(known=known):
            yield from (((1 << bit,), Status.INVAL) for bit in range(32) if not known >> bit & 1)
        case Int():
            pass  # any number is as good as another
        case codec:
            raise LookupError(f"nobody said how to lie to {codec}; say it here")


def _lies_of_bytes(guest: WholeGuest, codec: Span | FieldValue | Bulk) -> Told:
    yield (guest.size, 1), Status.INVAL
    yield (guest.size - 1, 2), Status.INVAL
    yield (FAR, FAR), Status.LIMITEXCEEDED if isinstance(codec, FieldValue) else Status.INVAL
    match codec:
        case FieldValue():
            for text in (b"two\nlines", b"\x7f"):
                yield guest.put(text), Status.ERROR
            yield (
                (0, guest.box.limits.head_bytes + guest.box.limits.head_fields + 1),
                (Status.LIMITEXCEEDED),
            )
        case FieldName():
            for text in (b"", b"two words", b"\xff", b"x:"):
                yield guest.put(text), Status.ERROR
            yield (0, codec.limit + 1), Status.INVAL
        case Text():
            yield guest.put(b"\xff\xfe"), Status.INVAL
            yield (0, codec.limit + 1), Status.INVAL
        case Span():
            yield (0, codec.limit + 1), Status.INVAL
        case _:
            yield (0, guest.size + 1), Status.INVAL


def _lies_of_outputs(end: int, cls: type, wasm: str, raw: tuple[int, ...]) -> Told:
    yield (end, *raw[1:]), Status.INVAL
    yield (FAR, *raw[1:]), Status.INVAL
    if cls is Region:
        yield (raw[0], FAR), Status.INVAL
    elif cls is OutBuffer or cls is OutValues:
        for at in (end - 3, FAR):
            yield (*raw[:-1], at), Status.INVAL
        if cls is OutValues:
            yield (*raw[:3], end - 7, raw[4]), Status.INVAL


def _other(guest: WholeGuest, argument: Argument) -> int:
    """A handle of another kind."""
    kind = argument.codec.kind.__name__ if isinstance(argument.codec, Handle) else ""
    if kind == "GuestResponse":
        return guest.get("http_req.new")
    return guest.get("http_resp.new")


def test_the_pointers_that_are_not_read_exist() -> None:
    for about in UNREAD:
        call, _, name = about.partition(":")
        guest = WholeGuest()
        assert name in [argument.name for argument in guest.arguments(CALLS[call])]
