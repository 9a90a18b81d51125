"""What somebody new does: start the server as it is shipped, deploy with one `curl`, ask it."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from tests.support.deploys import HELLO, call, deploy
from tests.support.server import ROOT, Server
from tests.support.toolchain import MissingTool

pytestmark = pytest.mark.process

README = ROOT / "README.md"  # the commands are those that it gives
SECONDS = 5.0  # for the deploy and the first answer together, as README promises
WARM = 20  # activations
WARM_MS = 100.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    """The server with the configuration that it is shipped with, on ports of the kernel's choice.

    Its state is that of a first start: no token, no key, nothing compiled.
    """
    folder = tmp_path / "config"
    shutil.copytree(ROOT / "config", folder, ignore=shutil.ignore_patterns("var"))
    config = (folder / "edge.yaml").read_text()
    for address in ("0.0.0.0:8080", "127.0.0.1:8090"):
        assert address in config
        config = config.replace(address, "127.0.0.1:0")
    server = Server(folder, config)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


def test_one_curl_deploys_and_the_service_answers_on_its_host_within_5_seconds(
    running: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("curl") is None:
        raise MissingTool("curl, with which README deploys: apt-get install curl")
    (tmp_path / "hello.wasm").write_bytes(wasmtime.wat2wasm(HELLO.read_text()))
    found = re.search(r"```sh\n(curl .*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    commands = found[1].replace(":8090/", f":{running.admin_port}/")
    commands = commands.replace(":8080/", f":{running.port}/")
    began = time.monotonic()
    done = subprocess.run(
        ["/bin/sh", "-euc", commands],
        cwd=tmp_path,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    seconds = time.monotonic() - began
    reply = done.stdout.decode()
    facts, end = json.JSONDecoder().raw_decode(reply)
    assert reply[end:] == "\nhello from wasm\n"
    assert (facts["active"], facts["version"]) == (True, 1)
    assert facts["url"] == f"http://first.localhost:{running.port}/"
    with capsys.disabled():
        print(
            f"\nthe first deploy: {seconds:.2f} s until its answer, of which compiling "
            f"{facts['compile_ms']} ms and activating {facts['activation_ms']} ms"
        )


def test_activating_what_is_compiled_takes_less_than_100_ms_on_all_workers(
    running: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("one", "two"):
        deploy(running, "first", text)
    took = []
    for turn in range(WARM):
        number = 1 + turn % 2
        done = call(running, "POST", f"/v1/services/first/versions/{number}/activate")
        assert (done.status, done.json["version"]) == (200, number)
        took.append(done.json["activation_ms"])
        assert running.get(host="first.localhost")[1].split() == [("one", "two")[turn % 2].encode()]
    with capsys.disabled():
        print(
            f"\n{WARM} activations of what is compiled: median {statistics.median(took):.1f} ms, "
            f"slowest {max(took):.1f} ms, on {len(running.worker_pids())} workers"
        )
    assert statistics.median(took) < WARM_MS, took
