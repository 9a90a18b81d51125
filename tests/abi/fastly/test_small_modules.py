"""`fastly_abi`, `fastly_compute_runtime`, `fastly_uap` and the names in `env`."""

from __future__ import annotations

import pytest

from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from tests.support.fastly_guest import FastlyGuest


def test_only_version_1_of_the_abi_is_spoken() -> None:
    guest = FastlyGuest()
    assert guest.do("abi.init", 1) == Status.OK
    for version in (0, 2, 1 << 32 | 1):
        assert guest.do("abi.init", version) == Status.ERROR


def test_cpu_time_is_told_in_whole_milliseconds() -> None:
    guest = FastlyGuest()
    guest.made.meter.cpu = 7_999_999
    assert guest.get("compute_runtime.get_vcpu_ms", width=8) == 7


def test_memory_is_rounded_up_and_counts_what_we_hold_for_the_guest() -> None:
    guest = FastlyGuest()
    guest.made.meter.memory = 2 << 20
    assert guest.get("compute_runtime.get_heap_mib") == 2
    guest.body(b"x")
    assert guest.get("compute_runtime.get_heap_mib") == 3


PRODUCTS = ("domain_inspector", "image_optimizer", "origin_inspector")


@pytest.mark.parametrize("product", PRODUCTS)
def test_no_product_is_here(product: str) -> None:
    guest = FastlyGuest()
    out = guest.put(b"\xab" * 8)[0]
    assert guest.do(f"compute_runtime.has_{product}", out) == Status.OK
    assert guest.bytes_at(out, 8) == bytes(4) + b"\xab" * 4


@pytest.mark.parametrize("product", PRODUCTS)
def test_whether_a_product_is_here_is_written_inside_the_guest_only(product: str) -> None:
    guest = FastlyGuest()
    for outside in (guest.size - 3, guest.size, 0xFFFF_FFFF):
        assert guest.do(f"compute_runtime.has_{product}", outside) == Status.INVAL


def test_the_image_optimizer_is_not_here_as_long_as_it_answers_unsupported() -> None:
    module = next(m for m in FASTLY_MODULES if m.name == "fastly_image_optimizer")
    assert all(call.unsupported for call in module.hostcalls.values())


def parse(guest: FastlyGuest, agent: bytes, room: int) -> tuple[Status, list[int], list[bytes]]:
    outs = [(guest.room(64), guest.room(4)) for _ in range(4)]
    raw = [number for buffer, size in outs for number in (buffer, room, size)]
    status = guest.do("uap.parse", *guest.put(agent), *raw)
    sizes = [guest.u32_at(size) for _, size in outs]
    return status, sizes, [guest.bytes_at(outs[i][0], sizes[i]) for i in range(4)]


def test_a_user_agent_is_taken_apart() -> None:
    agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0"
    status, _, parts = parse(FastlyGuest(), agent, 64)
    assert (status, parts) == (Status.OK, [b"Firefox", b"121", b"0", b""])


def test_a_user_agent_that_does_not_fit_tells_all_its_sizes() -> None:
    status, sizes, _ = parse(FastlyGuest(), b"VeryLongName/12.345.6", 1)
    assert status == Status.BUFLEN
    assert sizes == [12, 2, 3, 1]


def test_a_user_agent_over_8_kib_is_refused() -> None:
    status, _, _ = parse(FastlyGuest(), b"x" * 8193, 64)
    assert status == Status.INVAL


def test_hello_world_in_the_oldest_names() -> None:
    guest = FastlyGuest()
    out = guest.room(16)
    for name, raw in (
        ("env.xqd_init", [1]),
        ("env.xqd_req_body_downstream_get", [out, out + 4]),
        ("env.xqd_resp_new", [out]),
        ("env.xqd_resp_status_set", [3, 418]),
        ("env.xqd_body_new", [out]),
        ("env.xqd_body_write", [4, *guest.put(b"old"), 0, out]),
        ("env.xqd_resp_send_downstream", [3, 4, 1]),
        ("env.xqd_body_close_downstream", [4]),
    ):
        assert guest.call(name, *raw) == Status.OK, name
    assert guest.client.response is not None
    assert guest.client.response.status == 418
    assert guest.client.sent == b"old"
