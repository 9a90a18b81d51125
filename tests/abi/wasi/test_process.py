"""Arguments, environment, clocks, randomness and the end of a program."""

from __future__ import annotations

import os

import pytest

from edge.abi.wasi import clocks
from edge.abi.wasi.environment import MAX_PREPARED, service_block
from edge.abi.wasi.errno import Errno
from tests.support.fake_guest import Left
from tests.support.wasi_box import HandMeter, WasiGuest

OUTSIDE = 0xFFFF_FFF0


def test_there_is_one_argument() -> None:
    assert WasiGuest().strings("args") == [b"compute-app"]


def test_the_environment_is_the_services_and_fastlys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ADMIN_TOKEN", "do-not-tell")
    guest = WasiGuest(env={"GREETING": "hällo", "FASTLY_POP": "FRA"})
    assert sorted(guest.strings("environ")) == [
        b"FASTLY_CACHE_GENERATION=0",
        b"FASTLY_CUSTOMER_ID=" + b"0" * 22,
        b"FASTLY_HOSTNAME=localhost",
        b"FASTLY_IS_STAGING=0",
        b"FASTLY_POP=FRA",
        b"FASTLY_REGION=Somewhere",
        b"FASTLY_SERVICE_ID=shop",
        b"FASTLY_SERVICE_VERSION=7",
        b"FASTLY_TRACE_ID=0123456789abcdef0123456789abcdef",
        "GREETING=hällo".encode(),
    ]
    assert "EDGE_ADMIN_TOKEN" in os.environ


def test_a_service_of_the_catalogue_has_its_id_and_a_staged_version_knows_that_it_is() -> None:
    guest = WasiGuest()
    guest.box.service_id = "vI4vgZcLKKnNwrPPANhBzJ"
    before = guest.strings("environ")
    assert b"FASTLY_SERVICE_ID=shop" not in before
    assert {b"FASTLY_SERVICE_ID=vI4vgZcLKKnNwrPPANhBzJ", b"FASTLY_IS_STAGING=0"} <= set(before)
    guest.box.staged = True  # the same service and version, beside the one above
    assert b"FASTLY_IS_STAGING=1\0" in service_block(guest.box, fastly=True).data


def test_the_operators_trace_id_wins_and_is_there_once() -> None:
    found = WasiGuest(env={"FASTLY_TRACE_ID": "mine"}).strings("environ")
    assert [line for line in found if b"TRACE" in line] == [b"FASTLY_TRACE_ID=mine"]


def test_the_fixed_part_is_built_once_for_each_version() -> None:
    guest = WasiGuest(env={"A": "1"})
    block = service_block(guest.box, fastly=True)
    assert service_block(guest.box, fastly=True) is block
    guest.box.version += 1
    assert b"FASTLY_SERVICE_VERSION=8\0" in service_block(guest.box, fastly=True).data


def test_prepared_environments_of_versions_that_are_gone_do_not_pile_up() -> None:
    from edge.abi.wasi import environment

    for _ in range(MAX_PREPARED + 10):
        service_block(WasiGuest().box, fastly=True)
    assert len(environment._prepared) <= MAX_PREPARED


def test_a_nul_in_a_value_cannot_hide_or_shift_a_variable() -> None:
    found = WasiGuest(env={"A": "1\0B=2", "C": "3"}).strings("environ")
    assert b"A=1B=2" in found
    assert b"C=3" in found


@pytest.mark.parametrize("name", ["args", "environ"])
def test_blocks_that_do_not_fit_into_memory_are_faults(name: str) -> None:
    guest = WasiGuest()
    room = guest.room(400)
    assert guest.call(f"{name}_get", OUTSIDE, room) == Errno.FAULT
    assert guest.call(f"{name}_get", room, OUTSIDE) == Errno.FAULT
    assert guest.call(f"{name}_get", room, guest.size - 5) == Errno.FAULT
    assert guest.call(f"{name}_sizes_get", room, guest.size - 2) == Errno.FAULT


def read_clock(guest: WasiGuest, clock: int) -> int:
    assert guest.call("clock_time_get", clock, 0, guest.out) == 0
    return guest.u64_at(guest.out)


def test_real_time_is_rounded_down_to_the_resolution() -> None:
    guest = WasiGuest(resolution_ns=1000)
    assert read_clock(guest, 0) == 1_700_000_000_123_456_000
    for clock in range(4):
        assert guest.call("clock_res_get", clock, guest.out) == 0
        assert guest.u64_at(guest.out) == 1000


@pytest.mark.parametrize("resolution_ns", [1, 1000, 10_000_000_000])
def test_monotonic_time_is_each_sandboxs_own_and_never_zero(resolution_ns: int) -> None:
    guest = WasiGuest(resolution_ns=resolution_ns)
    start = read_clock(guest, 1)
    assert start == max(1_000_000_000, resolution_ns)
    guest.clocks.advance(3 * resolution_ns)
    assert read_clock(guest, 1) == start + 3 * resolution_ns


@pytest.mark.parametrize("clock", [2, 3])
def test_cpu_clocks_read_the_meter(clock: int) -> None:
    guest = WasiGuest(resolution_ns=1000)
    meter = guest.box.meter
    assert isinstance(meter, HandMeter)
    meter.cpu = 1_234_567
    assert read_clock(guest, clock) == 1_234_000


def test_other_clocks_and_bad_pointers_are_refused() -> None:
    guest = WasiGuest()
    assert guest.call("clock_time_get", 4, 0, guest.out) == Errno.INVAL
    assert guest.call("clock_res_get", 4, guest.out) == Errno.INVAL
    assert guest.call("clock_time_get", 0, 0, guest.size - 7) == Errno.FAULT
    assert guest.call("clock_res_get", 0, OUTSIDE) == Errno.FAULT


def test_random_bytes_fill_a_small_buffer_without_suspending() -> None:
    guest = WasiGuest()
    at = guest.room(64)
    assert guest.start("random_get", at, 32) == 0
    assert guest.bytes_at(at, 32) != bytes(32)
    assert guest.bytes_at(at + 32, 32) == bytes(32)
    assert guest.start("random_get", at, 0) == 0


def test_a_large_random_buffer_is_filled_over_several_turns() -> None:
    guest = WasiGuest()
    size = clocks.RANDOM_PIECE * 3 + 17
    at = guest.room(size + 1)
    assert guest.start("random_get", at, size) is None, "gives the thread back between pieces"
    guest.cancel()
    assert guest.call("random_get", at, size) == 0
    assert guest.bytes_at(at + size - 16, 17)[:16] != bytes(16)
    assert guest.bytes_at(at + size, 1) == b"\0"


def test_random_bytes_outside_memory_are_a_fault() -> None:
    guest = WasiGuest()
    assert guest.call("random_get", 16, 0xFFFF_FFFF) == Errno.FAULT
    assert guest.call("random_get", OUTSIDE, 32) == Errno.FAULT


@pytest.mark.parametrize(("raw", "code"), [(0, 0), (3, 3), (255, 255), (0xFFFF_FFFF, -1)])
def test_proc_exit_ends_the_program_with_its_code(raw: int, code: int) -> None:
    with pytest.raises(Left) as left:
        WasiGuest().call("proc_exit", raw)
    assert left.value.code == code


def test_signals_are_not_supported() -> None:
    assert WasiGuest().call("proc_raise", 6) == Errno.NOTSUP


def test_sched_yield_gives_the_thread_back() -> None:
    guest = WasiGuest()
    assert guest.start("sched_yield") is None
    guest.cancel()
    assert guest.call("sched_yield") == 0
