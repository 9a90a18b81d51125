"""Hundreds of deploys under load: every answer is of a version that served then, and nothing grows."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.deploys import HELLO, call, deploy
from tests.support.procfs import MIB, resident_anonymous
from tests.support.server import DEADLINE, Server, config_of, server, service

pytestmark = [pytest.mark.process, pytest.mark.soak]

CYCLES = 500
CLIENTS = 4
HOST = "shop.localhost"
KEPT = 20  # versions
TEXTS = [f"program {n}" for n in range(8)]


@dataclass
class History:
    """What may be served: everything from the last acknowledged change to the last begun one."""

    texts: list[str] = field(default_factory=list)
    acknowledged: int = 0
    failures: list[str] = field(default_factory=list)
    answers: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def begin(self, text: str) -> None:
        self.texts.append(text)

    def acknowledge(self) -> None:
        self.acknowledged = len(self.texts) - 1

    def ask(self, running: Server) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE)
        while not self.over.is_set() and not self.failures:
            earliest = self.acknowledged
            connection.request("GET", "/", headers={"host": HOST})
            response = connection.getresponse()
            answer = response.read().decode().strip()
            allowed = self.texts[earliest:]
            if response.status != 200 or answer not in allowed:
                self.failures.append(f"{response.status} {answer!r}, and not one of {allowed}")
            self.answers += 1
        connection.close()


def change(running: Server, history: History, cycle: int) -> None:
    """One of: a deploy, an activation of an older version, a rollback."""
    match cycle % 3:
        case 0:
            text = TEXTS[cycle // 3 % len(TEXTS)]
            history.begin(text)
            deploy(running, "shop", text)
        case 1:
            items = call(running, "GET", "/v1/services/shop/versions?limit=1000").json["items"]
            number = items[-2]["version"]
            text = next(t for t in TEXTS if _sha(t) == items[-2]["sha256"])
            history.begin(text)
            path = f"/v1/services/shop/versions/{number}/activate"
            assert call(running, "POST", path).status == 200
        case _:
            history.begin(history.texts[-2])
            assert call(running, "POST", "/v1/services/shop/rollback").status == 200
    history.acknowledge()


def _sha(text: str) -> str:
    import hashlib

    from tests.support.deploys import program

    return hashlib.sha256(program(text)).hexdigest()


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_500_cycles_under_load_answer_nothing_wrong_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    config = config_of(
        service("filed", HELLO), workers=2,
        more=f"log: {{access: off}}\ndeploy: {{keep_versions: {KEPT}}}\n",
    )  # fmt: skip
    with server(tmp_path, config, workers=2) as running:
        history = History()
        for text in TEXTS:
            history.begin(text)
            deploy(running, "shop", text)
            history.acknowledge()
        clients = [
            threading.Thread(target=history.ask, args=(running,), name=f"client-{n}")
            for n in range(CLIENTS)
        ]

        def cycles(begin: int, end: int) -> None:
            for cycle in range(begin, end):
                change(running, history, cycle)
                assert not history.failures, history.failures

        for client in clients:
            client.start()
        try:
            running.discard_log_while(lambda: cycles(0, CYCLES // 5))
            pids = [running.process.pid, *running.worker_pids()]
            memory, disk = [resident_anonymous(pid) for pid in pids], _disk(running.state_dir)
            running.discard_log_while(lambda: cycles(CYCLES // 5, CYCLES))
        finally:
            history.over.set()
            for client in clients:
                client.join()
        assert not history.failures, history.failures
        assert history.answers > CYCLES
        assert [running.process.pid, *running.worker_pids()] == pids
        for pid, before in zip(pids, memory, strict=True):
            assert resident_anonymous(pid) < before + 16 * MIB
        assert _disk(running.state_dir) < disk + 4 * MIB
        versions = call(running, "GET", "/v1/services/shop/versions?limit=1000").json["items"]
        assert len(versions) <= KEPT + 2
        assert running.metric("edge_service_series", state="used") < KEPT
