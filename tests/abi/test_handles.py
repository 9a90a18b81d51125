"""Handle tables."""

from __future__ import annotations

import pytest

from edge.abi.handles import INVALID_HANDLE, HandleTable
from edge.errors import BadHandle, LimitExceeded


def test_numbers_start_at_1_and_are_never_used_twice() -> None:
    table: HandleTable[str] = HandleTable(10)
    assert [table.insert(name) for name in "abc"] == [1, 2, 3]
    assert table.take(3) == "c"
    assert table.insert("d") == 4
    with pytest.raises(BadHandle):
        table[3]


def test_what_does_not_exist_is_a_bad_handle() -> None:
    table: HandleTable[str] = HandleTable(10)
    for handle in (0, 1, INVALID_HANDLE, 0xFFFF_FFFF):
        with pytest.raises(BadHandle, match="no handle"):
            table[handle]
        with pytest.raises(BadHandle):
            table.take(handle)


def test_so_many_are_open_at_once() -> None:
    table: HandleTable[int] = HandleTable(3)
    for number in range(3):
        table.insert(number)
    with pytest.raises(LimitExceeded) as refusal:
        table.insert(3)
    assert refusal.value.limit == "limits.handles"
    table.take(1)
    assert table.insert(3) == 4
