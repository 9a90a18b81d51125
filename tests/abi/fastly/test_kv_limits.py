"""A KV store or a value that is too large: the guest gets a status, its operator the setting."""

from __future__ import annotations

import pytest

from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.dispatch.visit import _SOFT_LIMITS
from edge.telemetry.layout import SoftLimit
from tests.support.kv_guest import MIB, KvGuest

HALF = bytes(MIB // 2)


def fill(guest: KvGuest) -> KvError:
    """Write half a MiB again and again; the first answer that is not OK."""
    for number in range(16):
        error = guest.insert_kv(b"key%d" % number, HALF)
        if error != KvError.OK:
            return KvError(error)
    raise AssertionError("a store of 4 MiB took 8")


def test_a_full_store_is_remembered_with_its_setting() -> None:
    guest = KvGuest()
    assert fill(guest) is KvError.PAYLOAD_TOO_LARGE
    assert guest.box.limits_hit == {"storage.kv_store_bytes": 1}


def test_a_value_that_is_too_large_is_remembered_with_its_setting() -> None:
    guest = KvGuest()
    assert guest.insert_kv(b"k", bytes(MIB + 1)) == KvError.PAYLOAD_TOO_LARGE
    assert guest.box.limits_hit == {"storage.kv_value_bytes": 1}


def test_the_older_interface_remembers_it_as_well() -> None:
    guest = KvGuest()
    store, body = guest.open_kv("object_store"), guest.body(bytes(MIB + 1))
    assert guest.do("object_store.insert", store, *guest.put(b"k"), body) == Status.INVAL
    assert guest.box.limits_hit == {"storage.kv_value_bytes": 1}


def test_what_is_no_limit_is_not_remembered() -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"value")
    assert guest.insert_kv(b"k", b"value", mode=1) == KvError.PRECONDITION_FAILED
    assert guest.box.limits_hit == {}


@pytest.mark.parametrize("setting", ["storage.kv_store_bytes", "storage.kv_value_bytes"])
def test_each_is_counted_under_a_label_of_its_own(setting: str) -> None:
    assert _SOFT_LIMITS[setting] in (SoftLimit.KV_STORE, SoftLimit.KV_VALUE)
