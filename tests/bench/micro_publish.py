"""What publishing costs: `python -m tests.bench.micro_publish`.  One thread, no sockets.

A world of many services of which one changes, beside a world that is all new to its worker: packing
in the supervisor, reading and equipping in a worker.  Modules are left out: a changed one is mapped
either way.  Judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop

from edge.control import Prepare, decode_to_worker
from edge.dispatch import Dispatcher
from edge.hostmodules import HOST_MODULES
from edge.model.backend import Backend
from edge.model.backend_reader import read_origin
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.runtime.driver import Runtime
from edge.settings import Settings
from edge.supervisor.world import World, empty_world
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.layout import OTHER_BLOCK
from edge.telemetry.log_sink import LogSink
from edge.telemetry.shared import SharedCells
from edge.transfer import Delivery, Receiver, Sender
from tests.support.runtime import SMALL_POOL

ROUNDS = 15


def version(number: int, *, revision: int = 1) -> Version:
    """A service as developers have them: two routes, three backends, a small config store.

    It is refused: what is measured is everything but its module.
    """
    name = f"service-{number}"
    service = Service(
        name,
        Path(f"/var/lib/edge/packages/{number}"),
        (Route(f"{name}.example"), Route(f"www.{name}.example", "/shop")),
        config_stores={"flags": {f"flag_{n}": "on" for n in range(40)}},
        backends={
            f"origin_{n}": Backend(f"origin_{n}", read_origin(f"https://o{n}.{name}.example"))
            for n in range(3)
        },
    )
    return Version(service, revision, refused="measured", series=OTHER_BLOCK, id=name)


def median_ms(act: Callable[[], object]) -> float:
    """Of some rounds, each in milliseconds."""
    samples = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        samples.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(samples), 2)


def measure(dispatcher: Dispatcher, count: int) -> list[tuple[str, float, float]]:
    """Steps with their milliseconds: one of `count` changed, all of them new."""
    world = empty_world(Settings())
    for number in range(count):
        world = world.with_service(f"service-{number}", (version(number),), {})
    world = world.numbered(1)
    sender = Sender()
    first = sender.pack(world.snapshot, {}, frozenset())
    receiver = Receiver()
    delivery = receiver.unpack(_order(first.frame))
    receiver.commit(delivery)
    dispatcher.commit(dispatcher.prepare(delivery.snapshot, str))

    def changed() -> World:
        return world.with_service("service-7", (version(7, revision=2),), {}).numbered(2)

    following = changed()
    second = sender.pack(following.snapshot, {}, first.digests)
    after = receiver.unpack(_order(second.frame))
    fresh = Receiver()

    def commit(what: Delivery, *, keep: bool) -> None:
        dispatcher.commit(dispatcher.prepare(what.snapshot, str, keep=keep))
        dispatcher.commit(dispatcher.prepare(delivery.snapshot, str, keep=keep))

    return [
        ("supervisor: the world without one service's old version", median_ms(changed), 0.0),
        (
            "supervisor: pack",
            median_ms(lambda: sender.pack(changed().snapshot, {}, first.digests)),
            median_ms(lambda: Sender().pack(world.snapshot, {}, frozenset())),
        ),
        ("frame, bytes", len(second.frame), len(first.frame)),
        (
            "worker: read",
            median_ms(lambda: receiver.unpack(_order(second.frame))),
            median_ms(lambda: fresh.unpack(_order(first.frame))),
        ),
        (
            "worker: equip and swap, twice",
            median_ms(lambda: commit(after, keep=True)),
            median_ms(lambda: commit(after, keep=False)),
        ),
    ]


def _order(frame: bytes) -> Prepare:
    order = decode_to_worker(frame[4:])
    assert isinstance(order, Prepare)
    return order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=500)
    arguments = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    cells = SharedCells.create(1)
    worker = cells.worker(0)
    worker.begin(os.getpid())
    runtime = Runtime(replace(SMALL_POOL), HOST_MODULES, loop)
    null = LogSink(os.open(os.devnull, os.O_WRONLY))
    dispatcher = Dispatcher(
        runtime=runtime,
        cells=worker,
        access=AccessLog("off", null),
        guest_log=GuestLog("json", null),
        loop=loop,
        memory_budget=1 << 40,
    )
    print(f"| step, of {arguments.services} services | one changed, ms | all new, ms |")
    print("|---|---|---|")
    for step, one, every in measure(dispatcher, arguments.services):
        print(f"| {step} | {one:g} | {every:g} |")
    dispatcher.close()
    runtime.close()
    cells.close()
    loop.close()


if __name__ == "__main__":
    main()
