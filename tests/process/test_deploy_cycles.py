"""500 changes of what is served, under a constant load: no answer is wrong, nothing grows."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.deploying import GONE, Load, Moment, Timeline, program
from tests.support.deploys import HELLO, call, deploy
from tests.support.load import eager_threads
from tests.support.procfs import MIB, resident_anonymous
from tests.support.server import Server, config_of, server, service

pytestmark = [pytest.mark.process, pytest.mark.soak]

SOAK: Final = bool(os.environ.get("EDGE_SOAK"))
CYCLES: Final = 500
EARLY: Final = 100  # cycles, after which everything that is bounded is about full
FRESH: Final = 20 if not SOAK else 4  # one in so many cycles compiles a program of its own
KEEP: Final = 20  # versions
GROWTH: Final = 12 * MIB  # of one process; garbage that waits for its collection is part of it
DESCRIPTORS: Final = 400  # of one process
MAPPINGS: Final = 2000
SERIES: Final = 150  # more lines: versions that have just left
HOST: Final = "shop.localhost"
OTHER: Final = "other.localhost"
CONFIG: Final = config_of(
    service("filed", HELLO),
    workers=2,
    more=f'deploy: {{keep_versions: {KEEP}}}\nlog: {{access: "off"}}\n',
)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the server takes."""

    memory: tuple[int, ...]  # bytes, of the supervisor and of each worker
    descriptors: tuple[int, ...]
    mappings: tuple[int, ...]
    series: int  # lines of /metrics
    packages: int  # files
    artifacts: int
    catalogue: int  # bytes

    @classmethod
    def of(cls, running: Server) -> Footprint:
        """Now."""
        pids = [running.process.pid, *running.worker_pids()]
        state = running.state_dir
        return cls(
            tuple(resident_anonymous(pid) for pid in pids),
            tuple(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            tuple(Path(f"/proc/{pid}/maps").read_text().count("\n") for pid in pids),
            running.admin("/metrics")[1].count(b"\n"),
            len(list((state / "packages").glob("??/*"))),
            len(list((state / "artifacts").iterdir())),
            sum(path.stat().st_size for path in state.glob("catalogue.sqlite3*")),
        )

    def __str__(self) -> str:
        memory = ", ".join(f"{size / MIB:.1f}" for size in self.memory)
        return (
            f"{memory} MiB; descriptors {self.descriptors}; mappings {self.mappings}; "
            f"{self.series} series; {self.packages} packages; {self.artifacts} artifacts; "
            f"catalogue {self.catalogue / 1024:.0f} KiB"
        )


@dataclass
class Developer:
    """Changes a service in every way there is, and knows what it may answer at any instant."""

    running: Server
    load: Load
    other: Load
    choose: random.Random = field(default_factory=lambda: random.Random(500))
    texts: dict[int, str] = field(default_factory=dict)  # by version
    served: list[int] = field(default_factory=list)  # versions, in the order of their activation
    programs: list[str] = field(default_factory=list)  # that were compiled
    periods: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def active(self) -> int:
        return self.served[-1]

    def begin(self) -> None:
        """The first version, with its store."""
        self._call("PUT", "/v1/config-stores/flags")
        self.load.timeline.newest = 1
        self._call("PUT", "/v1/config-stores/flags/items/item", b"1")
        self._call("PUT", "/v1/services/shop", program(self._new_program()))
        self._call(
            "PUT", "/v1/services/shop/versions/1/definition", {"config_stores": {"flags": "flags"}}
        )
        self.texts[1] = self.programs[0]
        self._becomes(1, lambda: self._call("POST", "/v1/services/shop/versions/1/activate"))
        for _ in range(3):
            self.deploy_new()

    def cycle(self, number: int) -> None:
        """One of the ways."""
        ways: tuple[Callable[[], None], ...] = (
            self.deploy_known,
            self.roll_back,
            self.activate_older,
            self.change_store,
            self.run_canary,
            self.roll_back,
            self.stage,
            self.activate_older,
            self.deploy_known,
            self.come_and_go,
        )
        way = self.deploy_new if number % FRESH == FRESH - 1 else ways[number % len(ways)]
        began = time.perf_counter()
        way()
        self.seconds.setdefault(way.__name__, []).append(time.perf_counter() - began)

    # Ways -------------------------------------------------------------------------------------

    def deploy_new(self) -> None:
        """A program that nobody has compiled."""
        self._deploy(self._new_program())

    def deploy_known(self) -> None:
        """A program that another version had."""
        self._deploy(self.choose.choice([t for t in self.programs if t != self._active_text]))

    def roll_back(self) -> None:
        """To the version that served before."""
        number = next(n for n in reversed(self.served) if n != self.active)
        done = self._becomes(number, lambda: self._call("POST", "/v1/services/shop/rollback"))
        assert done["version"] == number

    def activate_older(self) -> None:
        """One of those that are kept."""
        number = self.choose.choice([n for n in list(self.texts)[-KEEP // 2 :] if n != self.active])
        path = f"/v1/services/shop/versions/{number}/activate"
        self._becomes(number, lambda: self._call("POST", path))

    def change_store(self) -> None:
        """And wait until it is seen by whoever comes."""
        timeline = self.load.timeline
        value = timeline.newest = timeline.newest + 1
        self._call("PUT", "/v1/config-stores/flags/items/item", str(value).encode())
        while True:
            status, body, _ = self.running.get(host=HOST)
            assert status == 200, body
            if int(body[8:]) == value:
                return

    def run_canary(self) -> None:
        """Begin it, give it more clients, and end it in one way or the other."""
        timeline = self.load.timeline
        number = self.choose.choice(
            [n for n in list(self.texts)[-KEEP // 2 :] if self.texts[n] != self._active_text]
        )
        text = self.texts[number]
        path = f"/v1/services/shop/versions/{number}/activate"
        both = timeline.now.texts | {text}
        self.periods += 1
        timeline.turn(replace(timeline.now, texts=both))
        for percent in (10, 90):  # few of the clients, then most
            self._call("POST", path, {"percent": percent})
            timeline.turn(Moment(both, timeline.newest, text, self.periods))
            self.load.wait_for_answers(20)
        if self.choose.random() < 0.5:
            self._becomes(number, lambda: self._call("POST", path, {"percent": 100}))
        else:
            self._becomes(self.active, lambda: self._call("POST", "/v1/services/shop/rollback"))

    def stage(self) -> None:
        """Load another version, which no client gets, and unload it."""
        number = self.choose.choice([n for n in list(self.texts)[-KEEP // 2 :] if n != self.active])
        path = f"/v1/services/shop/versions/{number}"
        self._call("POST", f"{path}/stage")
        assert self._call("GET", "/v1/services/shop")["staged"] == number
        self._call("POST", f"{path}/unstage")

    def come_and_go(self) -> None:
        """A service of another name is deleted and made anew."""
        timeline = self.other.timeline
        text = self.choose.choice(self.programs[:2])
        for there in (timeline.now.texts == {GONE}, timeline.now.texts != {GONE}):
            timeline.turn(Moment(timeline.now.texts | {GONE, text}))
            if there:
                done = deploy(self.running, "other", text)
                assert done["version"] == 1
            else:
                self._call("DELETE", "/v1/services/other?force=true")
            timeline.turn(Moment(frozenset({text if there else GONE})))

    # Parts ------------------------------------------------------------------------------------

    @property
    def _active_text(self) -> str:
        return self.texts[self.active]

    def _new_program(self) -> str:
        self.programs.append(f"p{len(self.programs)}")
        return self.programs[-1]

    def _deploy(self, text: str) -> None:
        number = max(self.texts)
        if self.texts[number] != text:  # the newest is cloned, or is it already
            number += 1
            self.texts[number] = text
        done = self._becomes(
            number,
            lambda: self._call("PUT", "/v1/services/shop?activate=true", program(text)),
            text,
        )
        assert (done["version"], done["active"]) == (number, True)

    def _becomes(self, number: int, work: Callable[[], Any], text: str = "") -> Any:
        """Have `work` make a version the active one; from its reply on there is no other."""
        timeline, text = self.load.timeline, text or self.texts[number]
        before, known = timeline.now, timeline.newest
        timeline.turn(Moment(before.texts | {text} - {GONE}, before.floor))
        done = work()
        timeline.turn(Moment(frozenset({text}), known))
        if not self.served or number != self.active:
            self.served.append(number)
        self.load.changed()
        return done

    def _call(self, method: str, path: str, body: bytes | object | None = None) -> Any:
        answer = call(self.running, method, path, body)
        assert answer.status in (200, 201, 204), (path, answer)
        return answer.json if answer.body else None


def test_500_changes_under_load_give_no_wrong_answer_and_nothing_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path, CONFIG, workers=2) as running:
        load = Load(running.port, HOST, Timeline(GONE))
        other = Load(running.port, OTHER, Timeline(GONE))
        developer = Developer(running, load, other)

        def cycles() -> list[Footprint]:
            found = []
            developer.begin()
            with load.press(clients=6, streams=2), other.press(clients=1):
                for number in range(1, CYCLES + 1):
                    developer.cycle(number)
                    if number in (EARLY, CYCLES):
                        found.append(Footprint.of(running))
                    if load.failures or other.failures:
                        break
            return found

        workers = running.worker_pids()
        began = time.perf_counter()
        with eager_threads():
            found = running.discard_log_while(cycles)
        seconds = time.perf_counter() - began
        with capsys.disabled():
            print(f"\n{CYCLES} cycles in {seconds:.1f} s")
            for way, took in developer.seconds.items():
                print(f"  {way}: {len(took)}, median {sorted(took)[len(took) // 2] * 1e3:.0f} ms")
            print(
                f"{load.answers} and {other.answers} answers, {load.streams} streams, "
                f"{load.canaries} of canaries and {load.others} beside them"
            )
            for each in found:
                print(each)
        assert not load.failures + other.failures
        assert min(load.streams, load.canaries, load.others) > CYCLES // 10
        assert running.worker_pids() == workers
        early, late = found
        for before, after in zip(early.memory, late.memory, strict=True):
            assert after - before <= GROWTH
        assert max(late.descriptors) <= DESCRIPTORS
        assert max(late.mappings) <= MAPPINGS
        assert late.series <= early.series + SERIES
        # Modules that were put lately are kept for a while, and machine code while there is room.
        programs = 2 * len(developer.programs) + 1  # of both services, and the file's
        assert late.packages <= programs
        assert late.artifacts <= 2 * programs
        assert late.catalogue - early.catalogue <= MIB
        assert running.stop() == 0
    with server(tmp_path, CONFIG, workers=2) as running:
        status, body, _ = running.get(host=HOST)
        assert (status, body[:8].decode().strip()) == (200, developer.texts[developer.active])
        versions = call(running, "GET", "/v1/services/shop/versions?limit=1000").json["items"]
        assert len(versions) <= KEEP + 2  # the active one, and what a rollback returns to
        assert Footprint.of(running).packages <= len(versions) + 1
