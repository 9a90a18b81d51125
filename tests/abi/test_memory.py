"""The bounds check that everything else rests on."""

from __future__ import annotations

import pytest

from edge.errors import InvalidArgument
from tests.support.fastly_guest import FastlyGuest

SIZE = 4096


@pytest.fixture
def guest() -> FastlyGuest:
    return FastlyGuest(size=SIZE)


OUTSIDE = [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (0xFFFF_FFFF, 1), (1, 0xFFFF_FFFF)]


@pytest.mark.parametrize(("ptr", "length"), OUTSIDE)
def test_ranges_outside_are_refused(guest: FastlyGuest, ptr: int, length: int) -> None:
    memory = guest.box.memory
    with pytest.raises(InvalidArgument):
        memory.require(ptr, length)
    with pytest.raises(InvalidArgument):
        memory.read(ptr, length)


@pytest.mark.parametrize(("ptr", "length"), [(0, SIZE), (SIZE, 0), (SIZE - 1, 1), (0, 0)])
def test_ranges_inside_are_not(guest: FastlyGuest, ptr: int, length: int) -> None:
    guest.box.memory.require(ptr, length)
    assert len(guest.box.memory.read(ptr, length)) == length


def test_numbers_are_little_endian_and_checked_at_their_last_byte(guest: FastlyGuest) -> None:
    memory = guest.box.memory
    memory.write(8, bytes(range(1, 9)))
    assert memory.u32(8) == 0x0403_0201
    assert memory.u64(8) == 0x0807_0605_0403_0201
    assert memory.u32_list(8, 2) == (0x0403_0201, 0x0807_0605)
    memory.write_u16(100, 0xABCD)
    memory.write_u32(104, 0x1234_5678)
    memory.write_u64(112, 1 << 63)
    assert (guest.u16_at(100), guest.u32_at(104), guest.u64_at(112)) == (
        0xABCD,
        0x1234_5678,
        1 << 63,
    )
    for write, width in ((memory.write_u16, 2), (memory.write_u32, 4), (memory.write_u64, 8)):
        write(SIZE - width, 0)
        with pytest.raises(InvalidArgument):
            write(SIZE - width + 1, 0)
    for read, width in ((memory.u32, 4), (memory.u64, 8)):
        read(SIZE - width)
        with pytest.raises(InvalidArgument):
            read(SIZE - width + 1)
    with pytest.raises(InvalidArgument):
        memory.u32_list(SIZE - 8, 3)


def test_memory_that_grew_is_seen_when_it_is_needed() -> None:
    guest = FastlyGuest(size=2 * SIZE)
    memory = guest.box.memory
    memory.size = SIZE  # as it was before the guest grew it
    assert memory.read(SIZE, 4) == bytes(4)
    assert memory.size == 2 * SIZE


def test_nothing_can_be_reached_once_the_guest_is_gone(guest: FastlyGuest) -> None:
    memory = guest.box.memory
    guest.box.close()
    for ptr, length in ((0, 1), (SIZE - 1, 1)):
        with pytest.raises(InvalidArgument):
            memory.read(ptr, length)
        with pytest.raises(InvalidArgument):
            memory.write(ptr, bytes(length))
