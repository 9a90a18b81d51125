"""Guests that lie: every function, with numbers that point nowhere and name nothing.

A hostcall may answer what it likes, but it must answer: an exception that is not a `HostcallError`
would be a fault of ours, and the fake guest raises it.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.sandboxes import make_service

CALLS = [
    (f"{module.name}.{name}", call.signature)
    for module in FASTLY_MODULES
    for name, call in module.hostcalls.items()
]


@pytest.mark.parametrize(("name", "signature"), CALLS)
@pytest.mark.parametrize("lie", [0xFFFF_FFFF, 0xFFFF_FFF0, INVALID, 0x8000_0000, 1 << 20])
def test_nothing_succeeds_with_arguments_that_are_all_out_of_range(
    name: str, signature: str, lie: int
) -> None:
    guest = FastlyGuest()
    status = guest.start(name, *[lie] * len(signature))
    assert status not in (None, Status.OK)
    assert not guest.client.responded


@pytest.mark.parametrize(("name", "signature"), CALLS)
def test_nothing_faults_on_small_numbers_in_any_combination(name: str, signature: str) -> None:
    asyncio.run(_try_many(name, signature))


async def _try_many(name: str, signature: str) -> None:
    chance = random.Random(name)
    guest = FastlyGuest(size=4096)
    guest.downstream()
    for number in (1, 2, 3):
        guest.get("http_resp.new")
        guest.body(bytes([number]))
    numbers = (0, 1, 2, 3, 4, 7, 60, 103, 300, 4080, 4095, 4096, 0xFFFF, INVALID, 0xFFFF_FFFF)
    for _ in range(60):
        if guest.start(name, *(chance.choice(numbers) for _ in signature)) is None:
            guest.cancel()
    guest.made.box.close()
    assert guest.made.account.held >= 0


@pytest.mark.parametrize(("name", "signature"), CALLS)
def test_out_pointers_are_checked_before_anything_is_done(name: str, signature: str) -> None:
    guest = FastlyGuest()
    before = guest.bytes_at(0, guest.size)
    guest.start(name, *[0] * (len(signature) - 1), guest.size - 1)
    assert guest.bytes_at(guest.size - 1, 1) == b"\0"
    assert guest.bytes_at(64, guest.size - 64) == before[64:]


NOT_UTF8 = b"\xff\xfe"


@pytest.mark.parametrize(
    "name",
    ["log.endpoint_get", "dictionary.open", "config_store.open", "secret_store.open"],
)
def test_names_must_be_utf8(name: str) -> None:
    guest = FastlyGuest()
    assert guest.do(name, *guest.put(NOT_UTF8), guest.room(4)) == Status.INVAL


def test_a_user_agent_must_be_utf8() -> None:
    guest = FastlyGuest()
    outs = [guest.room(8) for _ in range(4)]
    raw = [number for out in outs for number in (out, 8, out)]
    assert guest.do("uap.parse", *guest.put(NOT_UTF8), *raw) == Status.INVAL


KINDS = {
    "request": "http_req.method_get",
    "response": "http_resp.status_get",
    "body": "http_body.known_length",
    "endpoint": "log.write",
    "config store": "dictionary.get",
    "secret store": "secret_store.get",
    "secret": "secret_store.plaintext",
    "promise": "http_downstream.next_request_abandon",
}


def test_handles_of_one_kind_are_bad_handles_for_every_other() -> None:
    service = make_service(config_stores={"c": {}}, secret_stores={"s": {}})
    guest = FastlyGuest(service=service)
    handles = {
        "request": guest.get("http_req.new"),
        "response": guest.get("http_resp.new"),
        "body": guest.body(b"x"),
        "endpoint": guest.get("log.endpoint_get", *guest.put(b"e")),
        "config store": guest.get("config_store.open", *guest.put(b"c")),
        "secret store": guest.get("secret_store.open", *guest.put(b"s")),
        "secret": guest.get("secret_store.from_bytes", *guest.put(b"x")),
        "promise": guest.get("http_downstream.next_request", 0, 0),
    }
    assert len(set(handles.values())) == len(handles)
    name = guest.put(b"name")
    for kind, handle in handles.items():
        for wanted, call in KINDS.items():
            rest = [64] * (len(guest._calls[f"fastly_{call}"].signature) - 1)
            if "store" in wanted:
                rest[:2] = name
            status = guest.do(call, handle, *rest) if kind != wanted else Status.BADF
            assert status == Status.BADF, (kind, call)
        waits = guest.do("async_io.is_ready", handle, 64)
        assert waits == (Status.OK if kind in ("body", "promise") else Status.BADF), kind
