"""`fastly compute publish`, `deploy` and `update` against a whole server, answered by the guest."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fastly_cli import FastlyCli, write_project
from tests.support.guests import build
from tests.support.server import Server, server

CONFIG = """
server: {listen: "127.0.0.1:0", workers: 2, drain: 5s}
admin: {listen: "127.0.0.1:0"}
pool: {slots: 20}
"""
PUBLISH = (
    "compute", "publish", "--non-interactive", "--status-check-off", "--metadata-disable",
)  # fmt: skip
DEPLOY = ("compute", "deploy", "--non-interactive", "--status-check-off")
BUILD = ("compute", "build", "--non-interactive", "--metadata-disable")

pytestmark = [pytest.mark.process, pytest.mark.toolchain]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    with server(folder, CONFIG, workers=2) as started:
        yield started


@pytest.fixture
def fastly(running: Server, tmp_path: Path) -> FastlyCli:
    work = tmp_path / "work"
    work.mkdir()
    token = (running.state_dir / "admin.token").read_text().strip()
    return FastlyCli(work, f"http://127.0.0.1:{running.admin_port}", token)


def service_id(fastly: FastlyCli) -> str:
    """What the CLI wrote into the manifest."""
    found = tomllib.loads((fastly.folder / "fastly.toml").read_text())["service_id"]
    assert re.fullmatch(r"[0-9A-Za-z]{22}", found)
    return str(found)


def test_publish_makes_the_service_the_first_time_and_another_version_later(
    running: Server, fastly: FastlyCli
) -> None:
    setup = (
        '[setup.backends.origin]\naddress = "origin.example.com"\nport = 443\n'
        '[setup.backends.plain]\naddress = "127.0.0.1"\nport = 8123\n'
    )
    write_project(fastly.folder, build("js/hello").read_bytes(), setup=setup)
    printed = fastly(*PUBLISH, "--domain=hello.example.com", "--comment=the first")
    assert "Deployed package" in printed
    service = service_id(fastly)
    assert running.get("/", host="hello.example.com")[0] == 200
    backends = fastly.json("service", "backend", "list", "-s", service, "--version=active")
    assert [(one["Name"], one["Address"], one["Port"], one["UseSSL"]) for one in backends] == [
        ("origin", "origin.example.com", 443, True),
        ("plain", "127.0.0.1", 8123, False),
    ]
    assert versions(fastly, service) == [(1, True, "the first")]

    # The manifest is packed as well, and has the service's id by now.
    assert "Deployed package" in fastly(*PUBLISH, "--comment=the second")
    assert "identical" in fastly(*DEPLOY)
    assert versions(fastly, service) == [(1, False, "the first"), (2, True, "the second")]
    assert running.get("/", host="hello.example.com")[0] == 200


def test_a_service_without_any_domain_answers_on_its_name(
    running: Server, fastly: FastlyCli
) -> None:
    write_project(fastly.folder, build("wat/hello").read_bytes(), name="named")
    fastly(*BUILD)
    fastly(*DEPLOY, "--no-default-domain")
    assert running.get("/", host="named.localhost")[0] == 200


def test_defaults_make_a_domain(running: Server, fastly: FastlyCli) -> None:
    write_project(fastly.folder, build("wat/hello").read_bytes())
    fastly(*BUILD)
    printed = fastly("compute", "deploy", "--accept-defaults", "--auto-yes", "--status-check-off")
    domain = re.findall(r"https://(\S+\.edgecompute\.app)", printed)[0]
    assert running.get("/", host=domain)[0] == 200


def test_a_program_that_cannot_be_served_leaves_nothing_behind(
    running: Server, fastly: FastlyCli
) -> None:
    bad = b"\0asm\x01\0\0\0\xff\xff"
    write_project(fastly.folder, bad)
    fastly(*BUILD)
    refused = fastly.refused(*DEPLOY, "--domain=hello.example.com")
    assert "The program cannot be served" in refused
    assert "Cleaning up service" in refused
    assert fastly.json("service", "list") in ([], None)
    assert running.get("/", host="hello.example.com")[0] == 421
    assert not [path for path in (running.state_dir / "packages").rglob("*") if path.is_file()]


def test_the_version_before_serves_on_when_the_next_cannot(
    running: Server, fastly: FastlyCli
) -> None:
    write_project(fastly.folder, build("wat/hello").read_bytes())
    fastly(*BUILD)
    fastly(*DEPLOY, "--domain=hello.example.com")
    service = service_id(fastly)
    before = running.get("/", host="hello.example.com")
    (fastly.folder / "built.wasm").write_bytes(b"\0asm\x01\0\0\0\xff\xff")
    assert "The program cannot be served" in fastly.refused(*PUBLISH)
    assert running.get("/", host="hello.example.com")[1] == before[1]
    assert [one[:2] for one in versions(fastly, service)] == [(1, True), (2, False)]


def test_a_token_of_one_service_deploys_that_service(running: Server, fastly: FastlyCli) -> None:
    write_project(fastly.folder, build("wat/hello").read_bytes())
    fastly(*BUILD)
    fastly(*DEPLOY, "--domain=hello.example.com")
    printed = fastly(
        "auth-token", "create", "--password=x", "--name=ci", "--scope=global",
        f"--services={service_id(fastly)}",
    )  # fmt: skip
    limited = FastlyCli(fastly.folder, fastly.endpoint, re.findall(r"edge_\w{40}", printed)[0])
    (fastly.folder / "built.wasm").write_bytes(build("wat/echo").read_bytes())
    limited(*BUILD)
    limited(*DEPLOY, "--comment=from CI")
    assert [one[:2] for one in versions(limited, service_id(fastly))] == [(1, False), (2, True)]
    assert "403" in limited.refused("service", "create", "--name=another")


def test_what_was_deployed_serves_after_the_server_was_killed(
    running: Server, fastly: FastlyCli
) -> None:
    write_project(fastly.folder, build("wat/hello").read_bytes())
    fastly(*BUILD)
    fastly(*DEPLOY, "--domain=hello.example.com")
    before = running.get("/", host="hello.example.com")[1]
    running.process.kill()
    running.process.wait()
    with server(running.folder, CONFIG, workers=2) as again:
        assert again.get("/", host="hello.example.com")[:2] == (200, before)
        later = FastlyCli(fastly.folder, f"http://127.0.0.1:{again.admin_port}", fastly.token)
        assert [one[:2] for one in versions(later, service_id(fastly))] == [(1, True)]


def versions(fastly: FastlyCli, service: str) -> list[tuple[int, bool, str]]:
    found = fastly.json("service", "version", "list", "-s", service)
    return [(one["Number"], one["Active"], one["Comment"]) for one in found]
