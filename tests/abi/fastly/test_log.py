"""Log endpoints: their names, what a line keeps, and how much may be logged."""

from __future__ import annotations

import pytest

from edge.abi.fastly.log import MAX_LINE
from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.sandboxes import make_service


def endpoint(guest: FastlyGuest, name: bytes) -> int:
    return guest.get("log.endpoint_get", *guest.put(name))


def log(guest: FastlyGuest, handle: int, text: bytes) -> int:
    start = guest._top
    length = guest.get("log.write", handle, *guest.put(text))
    guest._top = start
    return length


def test_each_write_is_a_line_without_its_line_break() -> None:
    guest = FastlyGuest()
    handle = endpoint(guest, b"audit")
    assert log(guest, handle, b"one\n") == 4
    assert log(guest, handle, b"two\nthree") == 9
    assert log(guest, handle, b"") == 0
    assert guest.made.log == [("audit", b"one", 0), ("audit", b"two\nthree", 0)]


def test_the_same_name_gives_the_same_handle() -> None:
    guest = FastlyGuest()
    assert endpoint(guest, b"a") == endpoint(guest, b"a") != endpoint(guest, b"b")


@pytest.mark.parametrize(
    "name", [b"stdout", b"STDERR", b"fst_managed_x", b"FST_Managed_", b"", b"n" * 1025]
)
def test_reserved_and_impossible_names(name: bytes) -> None:
    guest = FastlyGuest()
    assert guest.do("log.endpoint_get", *guest.put(name), 64) == Status.INVAL


def test_a_service_that_lists_its_endpoints_has_no_others() -> None:
    guest = FastlyGuest(service=make_service(log_endpoints=("audit",)))
    assert endpoint(guest, b"audit") == 1
    assert guest.do("log.endpoint_get", *guest.put(b"aduit"), 64) == Status.INVAL


def test_a_long_line_is_cut_and_its_whole_length_reported() -> None:
    guest = FastlyGuest()
    handle = endpoint(guest, b"a")
    assert log(guest, handle, b"x" * 100_000) == 100_000
    assert guest.made.log == [("a", b"x" * MAX_LINE, 100_000 - MAX_LINE)]


def test_lines_over_the_limit_are_dropped_and_counted() -> None:
    guest = FastlyGuest(limits=Limits(log_bytes=100))
    handle = endpoint(guest, b"a")
    for _ in range(12):
        assert log(guest, handle, b"0123456789") == 10
    assert len(guest.made.log) == 10
    assert guest.box.log_dropped == 2


def test_endless_endpoints_are_bounded() -> None:
    guest = FastlyGuest(limits=Limits(host_memory=1 << 20))
    statuses = []
    name = guest.room(1000)
    for number in range(2_000):
        guest.box.memory.write(name, b"%01000d" % number)
        statuses.append(guest.do("log.endpoint_get", name, 1000, 64))
    assert statuses[-1] == Status.LIMITEXCEEDED
    guest.made.box.close()
    assert guest.made.account.held == 0


def test_lies() -> None:
    guest = FastlyGuest()
    handle = endpoint(guest, b"a")
    assert guest.do("log.write", INVALID, 64, 1, 128) == Status.BADF
    assert guest.do("log.write", handle, 64, 1 << 30, 128) == Status.INVAL
    assert guest.made.log == []
