"""The example with a backend and a KV store, from its own files: in the server, in edge-dev."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge_dev import EdgeDev
from tests.support.guests import build_source
from tests.support.origins import Exchange, Origin, origin
from tests.support.sdk import COMPILE_SECONDS, state_directory
from tests.support.server import DEADLINE, ROOT, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

EXAMPLE = ROOT / "docs" / "examples" / "cart"
PRICES = {"tea": b"3", "green-tea": b"4"}


def catalogue(exchange: Exchange) -> None:
    name = exchange.seen.target.removeprefix("/prices/")
    if name == "ill":
        exchange.reply(b"", 500)
    else:
        exchange.reply(PRICES.get(name, b"no"), 200 if name in PRICES else 404)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example's own files, with what its build makes."""
    shutil.copytree(EXAMPLE, tmp_path / "cart")
    (tmp_path / "cart" / "bin").mkdir()
    shutil.copy(build_source(EXAMPLE / "src" / "index.js"), tmp_path / "cart" / "bin" / "main.wasm")
    return tmp_path / "cart"


@pytest.fixture
def prices() -> Iterator[Origin]:
    with origin() as running:
        for path in ("/prices/tea", "/prices/green-tea", "/prices/none", "/prices/ill"):
            running.on(path, catalogue)
        yield running


def ask(port: int, method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_server_serves_it_and_keeps_carts(folder: Path, prices: Origin) -> None:
    with state_directory() as state:
        config = (folder / "edge.yaml").read_text().replace("127.0.0.1:8080", "127.0.0.1:0")
        config += f'admin: {{listen: "127.0.0.1:0"}}\nstate_dir: {state}\n'
        env = {"CATALOGUE_URL": prices.url}
        with server(folder, config, env=env, seconds=COMPILE_SECONDS) as running:
            assert ask(running.port, "PUT", "/cart/bert/tea") == (200, '{"tea":1}')
            assert ask(running.port, "PUT", "/cart/bert/tea")[1] == '{"tea":2}'
            assert ask(running.port, "PUT", "/cart/bert/green-tea")[0] == 200
            status, text = ask(running.port, "GET", "/cart/bert")
            assert (status, json.loads(text)["total"]) == (200, 10)
            assert ask(running.port, "PUT", "/cart/bert/none")[0] == 404
            assert ask(running.port, "PUT", "/cart/bert/ill")[0] == 503
            for path in ("/cart/No!", "/cart/bert/%2e%2e"):
                assert ask(running.port, "PUT", path)[0] == 404
            assert ask(running.port, "DELETE", "/cart/bert")[0] == 200
            assert ask(running.port, "DELETE", "/cart/bert")[0] == 200
            assert json.loads(ask(running.port, "GET", "/cart/bert")[1]) == {
                "lines": [],
                "total": 0,
            }


def test_edge_dev_serves_it_from_its_fastly_toml(
    folder: Path, prices: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGUE_URL", prices.url)
    with EdgeDev(folder, ["bin/main.wasm", "-C", "fastly.toml", "--addr", "127.0.0.1:0"]) as dev:
        dev.wait_until_listening()
        status, body = dev.get("/cart/anna")
        assert (status, json.loads(body)["total"]) == (200, 6)
        prices.close()
        assert dev.get("/cart/anna")[0] == 503
        dev.wait_for("backend catalogue")
