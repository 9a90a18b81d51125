"""Names and keys of nothing: for every hostcall that takes one, what it answers.

Whatever has a parameter that names something stands in one of the tables: a hostcall that is in
none fails here.  Absence that has nothing to do with a name is tested beside the module.
"""

from __future__ import annotations

import pytest

from edge.abi.codec import Codec, Text
from edge.abi.fastly.heads import FieldName
from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.abi.handles import INVALID_HANDLE
from tests.support.whole_guest import CALLS, Argument, WholeGuest, replaced

_BACKENDS = """
    is_healthy is_dynamic get_host get_override_host get_port get_connect_timeout_ms
    get_first_byte_timeout_ms get_between_bytes_timeout_ms get_http_keepalive_time
    get_tcp_keepalive_enable get_tcp_keepalive_interval get_tcp_keepalive_probes
    get_tcp_keepalive_time is_ssl get_ssl_min_version get_ssl_max_version
"""
_SENDING = """
    send send_v2 send_v3 send_async send_async_v2 send_async_streaming
    redirect_to_websocket_proxy redirect_to_websocket_proxy_v2 upgrade_websocket
"""
_HEADS = ("http_req", "http_resp")

# call:parameter -> the status that names nothing
REFUSED = {
    **{f"{head}.header_value_get:name": Status.INVAL for head in _HEADS},
    **{f"{head}.header_remove:name": Status.INVAL for head in _HEADS},
    "http_body.trailer_value_get:name": Status.INVAL,
    **{f"http_req.{name}:backend": Status.INVAL for name in _SENDING.split()},
    **{f"backend.{name}:backend": Status.INVAL for name in _BACKENDS.split()},
    "dictionary.open:name": Status.BADF,
    "dictionary.get:key": Status.NONE,
    "config_store.open:name": Status.BADF,
    "config_store.get:key": Status.NONE,
    "secret_store.open:name": Status.NONE,
    "secret_store.get:name": Status.NONE,
    "kv_store.open:name": Status.INVAL,
    "object_store.open:name": Status.INVAL,
    "acl.open:name": Status.NONE,
    "device_detection.lookup:user_agent": Status.NONE,
    "shielding.shield_info:name": Status.INVAL,
    "shielding.backend_for_shield:target": Status.INVAL,
}
# These say OK, and an empty list or 0.
EMPTY = {
    *(f"{head}.header_values_get:name" for head in _HEADS),
    "http_body.trailer_values_get:name",
}
ZERO = {
    "backend.exists:backend",
    "erl.ratecounter_lookup_rate:counter",
    "erl.ratecounter_lookup_rate:entry",
    "erl.ratecounter_lookup_count:counter",
    "erl.ratecounter_lookup_count:entry",
    "erl.penaltybox_has:penalty_box",
    "erl.penaltybox_has:entry",
}
# These start what tells later; there is a test for each below.
LATER = {
    "kv_store.lookup:key",
    "kv_store.delete:key",
    "object_store.lookup:key",
    "object_store.lookup_async:key",
    "object_store.delete_async:key",
}
# What is named here need not be there, and why.
MAKES = {
    **{
        f"{head}.{name}:name": "it makes the field"
        for head in _HEADS
        for name in ("header_values_set", "header_insert", "header_append")
    },
    **{
        f"http_req.pending_req_header_{name}:name": "the response is not here yet"
        for name in ("insert", "append", "remove")
    },
    "http_body.trailer_append:name": "it makes the trailer",
    "http_req.register_dynamic_backend:name": "it makes the backend",
    "http_req.register_dynamic_backend:target": "whether a host exists is found out by sending",
    "log.endpoint_get:name": "a service that lists no endpoints has every one",
    "kv_store.insert:key": "it makes the value",
    "object_store.insert:key": "it makes the value",
    "object_store.insert_async:key": "it makes the value",
    "uap.parse:user_agent": "every text has a family, if only `Other`",
    **{
        f"erl.{name}": "counters, boxes and their entries come to be when they are used"
        for name in (
            "check_rate:counter",
            "check_rate:entry",
            "check_rate:penalty_box",
            "ratecounter_increment:counter",
            "ratecounter_increment:entry",
            "penaltybox_add:penalty_box",
            "penaltybox_add:entry",
        )
    },
}
NOWHERE = b"nowhere"


def _names_something(codec: Codec) -> bool:
    return isinstance(codec, Text | FieldName)


def test_every_parameter_that_names_something_stands_in_one_table() -> None:
    found = {
        f"{call}:{argument.name}"
        for call, hostcall in CALLS.items()
        for argument in WholeGuest().arguments(hostcall)
        if _names_something(argument.codec)
    }
    tables = [set(REFUSED), EMPTY, ZERO, LATER, set(MAKES)]
    assert set().union(*tables) == found
    assert sum(map(len, tables)) == len(found), "one table each"


def ask(guest: WholeGuest, about: str) -> tuple[Status, list[Argument]]:
    """The call with good arguments, but for the name of nothing."""
    call, _, name = about.partition(":")
    arguments = guest.arguments(CALLS[call])
    place = next(i for i, argument in enumerate(arguments) if argument.name == name)
    arguments = replaced(arguments, place, guest.put(NOWHERE))
    return guest.make(call, arguments), arguments


@pytest.mark.parametrize("about", REFUSED)
def test_what_is_not_there_is_refused(about: str) -> None:
    guest = WholeGuest()
    sent = len(guest.upstream.sent)
    status, _ = ask(guest, about)
    assert status == REFUSED[about]
    assert not guest.client.responded
    assert len(guest.upstream.sent) - sent in (0, "http_resp" in about)  # which made its response
    guest.box.close()
    assert guest.made.account.held == 0, "something is charged for ever"


@pytest.mark.parametrize("about", sorted(EMPTY))
def test_of_what_is_not_there_the_list_is_empty(about: str) -> None:
    guest = WholeGuest()
    status, arguments = ask(guest, about)
    *_, end, size = arguments[-1].raw
    assert (status, guest.u32_at(size), guest.i64_at(end)) == (Status.OK, 0, -1)


@pytest.mark.parametrize("about", sorted(ZERO))
def test_of_what_is_not_there_the_number_is_0(about: str) -> None:
    guest = WholeGuest()
    assert guest.do("erl.ratecounter_increment", *guest.put(b"rc"), *guest.put(b"ip"), 9) == 0
    assert guest.do("erl.penaltybox_add", *guest.put(b"pb"), *guest.put(b"ip"), 60) == 0
    call = about.partition(":")[0]
    arguments = guest.arguments(CALLS[call])
    assert guest.make(call, arguments) == Status.OK
    assert guest.u32_at(arguments[-1].raw[0]) > 0, "what is there has another"
    status, arguments = ask(guest, about)
    assert (status, guest.u32_at(arguments[-1].raw[0])) == (Status.OK, 0)


# What is told later -----------------------------------------------------------------------------


def started(guest: WholeGuest, about: str) -> int:
    """The handle of what the call began."""
    status, arguments = ask(guest, about)
    assert status == Status.OK
    return guest.u32_at(arguments[-1].raw[0])


@pytest.mark.parametrize("name", ["lookup_wait", "lookup_wait_v2"])
def test_a_lookup_without_a_value_tells_that_and_gives_nothing(name: str) -> None:
    guest = WholeGuest()
    handle = started(guest, "kv_store.lookup:key")
    body, size, generation, error = (guest.put(b"\xab" * 8)[0] for _ in range(4))
    raw = (handle, body, guest.room(100), 100, size, generation, error)
    assert guest.do(f"kv_store.{name}", *raw) == Status.OK
    assert guest.u32_at(error) == KvError.NOT_FOUND
    assert all(guest.bytes_at(at, 8) == b"\xab" * 8 for at in (body, size, generation))
    assert guest.do(f"kv_store.{name}", *raw) == Status.BADF, "it was consumed"


def test_a_deletion_of_nothing_is_ok_in_one_module_and_none_in_the_other() -> None:
    guest = WholeGuest()
    error = guest.room(4)
    handle = started(guest, "kv_store.delete:key")
    assert guest.do("kv_store.delete_wait", handle, error) == Status.OK
    assert guest.u32_at(error) == KvError.OK
    handle = started(guest, "object_store.delete_async:key")
    assert guest.do("object_store.pending_delete_wait", handle) == Status.NONE
    assert guest.do("object_store.pending_delete_wait", handle) == Status.BADF


def test_an_object_that_is_not_there_leaves_the_guests_handle_alone() -> None:
    guest = WholeGuest()
    body = guest.put(b"\xab" * 4)[0]
    store = guest.opened("object_store", b"cart")
    assert guest.do("object_store.lookup", store, *guest.put(NOWHERE), body) == Status.OK
    assert guest.bytes_at(body, 4) == b"\xab" * 4
    handle = started(guest, "object_store.lookup_async:key")
    assert guest.do("object_store.pending_lookup_wait", handle, body) == Status.OK
    assert guest.bytes_at(body, 4) == b"\xab" * 4


def test_addresses_of_which_nothing_is_known() -> None:
    guest = WholeGuest()
    address = guest.put(bytes([198, 51, 100, 1]))
    body, error = guest.room(4), guest.room(4)
    acl = guest.opened("acl", b"blocked")
    assert guest.do("acl.lookup", acl, *address, body, error) == Status.OK
    assert (guest.u32_at(body), guest.u32_at(error)) == (INVALID_HANDLE, 2)
    assert guest.text("geo.lookup", *address) == b""
