"""The official CLI starts `edge-dev` in place of Viceroy: `fastly compute serve --viceroy-path`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support import toolchain
from tests.support.edge_dev import ROOT, EdgeDev
from tests.support.guests import build
from tests.support.origins import free_port

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

MANIFEST = """
manifest_version = 3
name = "demo"
language = "other"

[scripts]
build = "true"

[local_server]
viceroy_version = "0.20.1"

# What only edge-dev knows must not trouble the CLI, which reads the same file.
[local_server.limits]
cpu = "1s"

[local_server.backends.origin]
url = "http://127.0.0.1:1"
inject = { latency_ms = 5, error_rate = 0.5 }

[local_server.kv_stores]
cart = [{ key = "a", data = "seed" }]

[local_server.services.api]
file = "bin/main.wasm"
hosts = ["api.localhost"]
"""


def test_the_official_cli_serves_with_edge_dev(tmp_path: Path) -> None:
    (tmp_path / "fastly.toml").write_text(MANIFEST)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "main.wasm").write_bytes(build("js/stores").read_bytes())
    # The installed script is this line and no more; a test must not depend on an installation.
    script = tmp_path / "edge-dev"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from edge.dev.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    port = free_port()
    options = ["compute", "serve", "--skip-build", f"--viceroy-path={script}", "--verbose"]
    with EdgeDev(
        tmp_path, [*options, f"--addr=127.0.0.1:{port}"], command=[toolchain.fastly_cli()]
    ) as cli:
        cli.wait_for("the egress policy is open")  # the CLI says where it listens before we do
        cli.port = port
        assert cli.get("/kv/a") == (200, b"seed")
        cli.wait_for("GET /kv/a 200 ok")
        assert cli.get("/kv/a", host="api.localhost")[0] == 200
        cli.wait_for("[api] GET /kv/a 200 ok")
        cli.end(signal.SIGINT)
    assert not any("unknown flag" in line for line in cli.lines)
