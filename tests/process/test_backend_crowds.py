"""A thousand requests to backends at once, and requests under way while the world changes."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.backends_h1 import Peer
from tests.support.faulty import (
    Faulty,
    Puppet,
    ask,
    await_equal,
    faulty,
    held,
    last,
    leaving_nothing,
    puppet_service,
    told,
)
from tests.support.server import DEADLINE, Server, config_of, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def origin() -> Iterator[Faulty]:
    with faulty() as running:
        running.says("fine", FINE)
        running.holds("stall")
        yield running


@pytest.fixture(scope="module")
def config(origin: Faulty) -> str:
    patient = "first_byte_timeout: 60s, connect_timeout: 10s, keep_alive: 0s"
    patient = f'url: "http://127.0.0.1:{origin.port}", {patient}'
    backends = {"patient": patient, "narrow": f"{patient}, max_connections: 100"}
    return config_of(puppet_service(backends, "{cpu: 2s, wall: 20s, subrequests: 1000}"))


@pytest.fixture
def edge(tmp_path: Path, origin: Faulty, config: str) -> Iterator[Server]:
    with server(tmp_path, config) as running, leaving_nothing(running):
        yield running
        origin.wait_for_end()


# Many at once -----------------------------------------------------------------------------------


def _many(edge: Server, backend: str) -> list[str]:
    """10 guests with 100 requests each, all under way before the first is answered."""
    puppet = Puppet()
    for _ in range(100):
        puppet.asking("gated", backend).all("a")
    puppet.all("y" * 100)
    with ThreadPoolExecutor(10) as threads:
        return list(threads.map(lambda _: ask(edge, puppet).text, range(10)))


def test_a_thousand_requests_are_under_way_at_once(edge: Server, origin: Faulty) -> None:
    gate, first = origin.gate(), origin.accepted

    async def script(peer: Peer, head: bytes) -> None:
        if origin.accepted - first == 1000:
            gate.open()
        await gate.wait()
        await peer.send(FINE)

    origin.on("gated", script)
    texts = _many(edge, "patient")
    got = [each for text in texts for each in told(text) if each.letter == "y"]
    assert [each.status for each in got] == [0] * 1000


def test_of_a_thousand_requests_those_over_the_limit_fail_at_once(
    edge: Server, origin: Faulty
) -> None:
    gate, first = origin.gate(), origin.accepted

    async def script(peer: Peer, head: bytes) -> None:
        await gate.wait()
        await peer.send(FINE)

    origin.on("gated", script)
    refused = "edge_backend_failures_total", "connection_limit_reached"
    before = edge.metric(refused[0], cause=refused[1])
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(_many, edge, "narrow")
        await_equal(before + 900, lambda: edge.metric(refused[0], cause=refused[1]))
        assert origin.accepted - first <= 100
        gate.open()
        texts = asking.result(DEADLINE)
    got = [each for text in texts for each in told(text) if each.letter == "y"]
    assert sorted(each.number for each in got) == [1] * 100 + [10] * 900


# Reload and drain -------------------------------------------------------------------------------


def test_requests_in_flight_outlive_a_reload(tmp_path: Path, origin: Faulty, config: str) -> None:
    gate = origin.gate()

    async def script(peer: Peer, head: bytes) -> None:
        await gate.wait()
        await peer.send(FINE)

    origin.on("gated", script)
    with server(tmp_path, config) as running, leaving_nothing(running):
        before = origin.accepted
        with ThreadPoolExecutor(2) as threads:
            puppets = [Puppet().asking("gated", "patient").all(steps) for steps in ("ap", "sP")]
            asking = [threads.submit(ask, running, puppet) for puppet in puppets]
            origin.wait_until(lambda: origin.accepted == before + 2, "they were not asked")
            without = "\n".join(line for line in config.splitlines() if "patient:" not in line)
            running.reload(without.replace("cpu: 2s", "cpu: 3s") + "\n")
            running.wait_for("reloaded")
            assert last(ask(running, Puppet().asking("fine", "patient").all("s")).text, "s") == (
                last("s=2:4 ", "s")  # the version of now has no such backend
            )
            gate.open()
            assert [each.result(DEADLINE).body for each in asking] == [b"ok", b"ok"]


def test_a_drain_waits_for_requests_in_flight(tmp_path: Path, origin: Faulty, config: str) -> None:
    gate = origin.gate()

    async def script(peer: Peer, head: bytes) -> None:
        await gate.wait()
        await peer.send(FINE)

    origin.on("gated", script)
    with server(tmp_path, config) as running, ThreadPoolExecutor(1) as thread:
        before = origin.accepted
        asking = thread.submit(ask, running, Puppet().asking("gated", "patient").all("ap"))
        origin.wait_until(lambda: origin.accepted > before, "it was not asked")
        running.process.terminate()
        running.wait_for("draining")
        gate.open()
        assert asking.result(DEADLINE).body == b"ok"
        assert running.finish() == 0


def test_a_drain_that_is_over_gives_requests_up(
    tmp_path: Path, origin: Faulty, config: str
) -> None:
    hasty = config.replace("drain: 5s", "drain: 200ms")
    with server(tmp_path, hasty) as running, ThreadPoolExecutor(2) as threads:
        before = origin.accepted
        puppets = [Puppet().asking("stall", "patient").all(steps) for steps in ("ap", "s")]
        asking = [threads.submit(_status, running, puppet) for puppet in puppets]
        origin.wait_until(lambda: origin.accepted == before + 2, "they were not asked")
        assert running.stop() == 0
        assert all(each.result(DEADLINE) in (None, 502, 503) for each in asking)
        origin.wait_for_end()


def _status(running: Server, puppet: Puppet) -> int | None:
    """None: the connection ended without an answer."""
    try:
        return ask(running, puppet).status
    except (ConnectionError, http.client.HTTPException):
        return None


def test_idle_connections_are_kept_for_their_time_and_no_longer(
    tmp_path: Path, origin: Faulty
) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(FINE)
        await peer.gone()

    origin.on("keeps", script)
    kept = f'url: "http://127.0.0.1:{origin.port}", keep_alive: 500ms'
    with server(tmp_path, config_of(puppet_service({"origin": kept}))) as running:
        before = held(running)
        ask(running, Puppet().asking("keeps").all("s"))
        await_equal(before, lambda: held(running))
