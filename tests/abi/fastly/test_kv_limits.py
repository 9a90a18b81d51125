"""A KV store or a value that is too large: the guest gets a status, its operator the setting."""

from __future__ import annotations

import pytest

from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.dispatch.visit import _SOFT_LIMITS
from edge.stores.kv import insertion_of
from edge.telemetry.layout import SoftLimit
from tests.support.kv_guest import MIB, KvGuest


def test_a_full_store_is_remembered_with_its_setting() -> None:
    guest = KvGuest()
    for number in range(3):
        guest.inner.insert(f"key{number}", insertion_of(bytes(MIB)))
    assert guest.insert_kv(b"k", bytes(MIB)) == KvError.PAYLOAD_TOO_LARGE
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
