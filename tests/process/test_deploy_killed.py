"""The whole server is killed again and again while it deploys: what it acknowledged is served."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.deploys import HELLO, call, deploy, program, said
from tests.support.server import Server, config_of, server, service

pytestmark = pytest.mark.process

KILLS = 40
STOPS = 5
NAMES = [f"program {n}" for n in range(6)]
HOST = "shop.localhost"


@dataclass
class Client:
    """Deploys and rolls back until the server is gone; knows what may be served now."""

    number: int = 0  # of the version that was acknowledged last
    text: str = ""
    acknowledged: int = 0
    texts: dict[int, str] = field(default_factory=dict)  # what each version says, as acknowledged
    doubtful: bool = False  # the last request got no answer: it was done or not

    def run(self, running: Server, choose: random.Random) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                self.doubtful = True
                if self.acknowledged > 3 and choose.random() < 0.3:
                    answer = call(running, "POST", "/v1/services/shop/rollback")
                else:
                    text = choose.choice(NAMES)
                    answer = call(running, "PUT", "/v1/services/shop?activate=true", program(text))
                    if answer.status in (200, 201):
                        self.texts[answer.json["version"]] = text
                self.doubtful = False
                if answer.status == 503:  # it is stopping
                    return
                assert answer.status in (200, 201), answer
                self.number = answer.json.get("version", answer.json.get("number"))
                self.text = self.texts.get(self.number, "")
                self.acknowledged += 1


def test_whatever_was_acknowledged_is_served_after_a_kill_and_nothing_is_half_done(
    tmp_path: Path,
) -> None:
    choose = random.Random(20)
    config = config_of(service("filed", HELLO))
    client = Client()
    for kill in range(KILLS + 1):
        running = Server(tmp_path, config)
        try:
            running.wait_until_ready()
            if kill == 0:
                for text in NAMES:  # compiled once; what follows is about the rest
                    client.texts[deploy(running, "shop", text)["version"]] = text
                client.number, client.text = len(NAMES), NAMES[-1]
            else:
                _check(running, client)
            thread = threading.Thread(target=client.run, args=(running, choose))
            thread.start()
            thread.join(choose.uniform(0.0, 0.25))
            running.process.kill()
            thread.join()
        finally:
            running.close()
    assert client.acknowledged > KILLS, "too little was done for the kills to hit anything"


def test_a_deploy_under_way_when_the_server_stops_is_done_or_refused_and_never_half(
    tmp_path: Path,
) -> None:
    choose = random.Random(21)
    config = config_of(service("filed", HELLO))
    client = Client()
    for stop in range(STOPS + 1):
        with server(tmp_path, config) as running:
            if stop == 0:
                client.texts[deploy(running, "shop", NAMES[0])["version"]] = NAMES[0]
                client.number = 1
            else:
                _check(running, client)
            thread = threading.Thread(target=client.run, args=(running, choose))
            thread.start()
            thread.join(choose.uniform(0.1, 0.4))
            assert running.stop() == 0
            thread.join()


def _check(running: Server, client: Client) -> None:
    record = call(running, "GET", "/v1/services/shop").json
    active = record["active"]
    served = [v for v in running.status()["services"] if v["name"] == "shop"]
    assert [(v["version"], v["state"]) for v in served] == [(active, "loaded")]
    version = call(running, "GET", f"/v1/services/shop/versions/{active}").json
    assert version["locked"]
    if not client.doubtful:
        assert active == client.number
    answer = said(running, HOST)
    if active in client.texts:
        assert answer == client.texts[active]
    else:
        assert client.doubtful
        assert answer in NAMES
        client.texts[active] = answer
    client.number, client.text, client.doubtful = active, answer, False
