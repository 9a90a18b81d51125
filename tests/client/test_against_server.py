"""`edge` against a real server: deploy, change, roll back, watch, delete; and what users see."""

from __future__ import annotations

import io
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from edge.client.cli import main
from tests.support.guests import build
from tests.support.packages import package
from tests.support.server import ROOT, Server, config_of, server, service

pytestmark = pytest.mark.process

Capture = pytest.CaptureFixture[str]
Edge = Callable[..., tuple[int, str]]
HELLO = build("wat/hello")
OTHER = HELLO.read_bytes().replace(b"hello from wasm", b"other from wasm")
MANIFEST = b"""
manifest_version = 3
name = "shop"
[setup.kv_stores.cart.items.seed]
value = "planted"
[setup.config_stores.flags.items.banner]
value = "blue"
[setup.backends.origin]
address = "example.com"
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = config_of(service("filed", HELLO, host="filed.test"))
    with server(tmp_path_factory.mktemp("server"), config) as found:
        yield found


@pytest.fixture
def edge(running: Server, home: Path, capfd: Capture) -> Edge:
    """Run `edge` on this server: exit status and standard output."""

    def run(*words: object) -> tuple[int, str]:
        address = f"http://127.0.0.1:{running.admin_port}"
        options = ["--server", address, "--state-dir", str(running.state_dir)]
        status = main([*options, *(str(word) for word in words)])
        return status, capfd.readouterr().out

    return run


def program(folder: Path, data: bytes, name: str = "app.wat") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_deploy_change_and_roll_back(running: Server, edge: Edge, home: Path) -> None:
    first, second = program(home, HELLO.read_bytes()), program(home, OTHER, "other.wat")
    status, printed = edge("deploy", first, "--service", "app", "--domain", "app.test")
    assert status == 0, printed
    assert running.get(host="app.test")[:2] == (200, b"hello from wasm\n")
    assert "is that program already" in edge("deploy", first, "--service", "app")[1]
    assert edge("deploy", second, "--service", "app", "--no-activate")[0] == 0
    assert running.get(host="app.test")[1] == b"hello from wasm\n"
    assert edge("activate", "app", 2)[0] == 0
    assert running.get(host="app.test")[1] == b"other from wasm\n"
    assert edge("rollback", "app")[0] == 0
    assert running.get(host="app.test")[1] == b"hello from wasm\n"
    assert edge("activate", "app", 2, "--percent", 50)[0] == 0
    assert json.loads(edge("describe", "app", "--json")[1])["canary"]["percent"] == 50
    assert "2 (50 %)" in edge("services")[1]
    assert edge("rollback", "app")[0] == 0
    assert json.loads(edge("describe", "app", "--json")[1])["canary"] is None
    rows = edge("versions", "app")[1].splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["1", "active"], ["2", "locked"]]
    assert "rollback" in edge("describe", "app")[1]
    assert "app.test" in edge("describe", "app")[1]
    assert edge("delete", "app")[0] == 1
    assert edge("delete", "app", "--force")[0] == 0
    assert running.get(host="app.test")[0] == 421


def test_a_project_is_deployed_with_what_its_setup_names(
    running: Server, edge: Edge, home: Path
) -> None:
    folder = home / "shop"
    (folder / "pkg").mkdir(parents=True)
    (folder / "fastly.toml").write_bytes(MANIFEST)
    (folder / "pkg" / "shop.tar.gz").write_bytes(package(HELLO.read_bytes(), MANIFEST))
    status, printed = edge("deploy", folder)
    assert status == 0, printed
    assert running.get(host="shop.localhost")[:2] == (200, b"hello from wasm\n")
    definition = json.loads(edge("definition", "shop")[1])
    assert definition == {
        "backends": {"origin": {"url": "https://example.com"}},
        "config_stores": {"flags": "flags"},
        "kv_stores": {"cart": "cart"},
    }
    assert edge("kv", "get", "cart", "seed") == (0, "planted")
    assert edge("config", "get", "flags", "banner") == (0, "blue\n")
    # once more: nothing is changed, and no version made
    assert edge("deploy", folder)[0] == 0
    assert len(json.loads(edge("versions", "shop", "--json")[1])["items"]) == 1


def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    edge: Edge, home: Path, running: Server
) -> None:
    memory = b'(memory (export "memory") 1) (func (export "_start"))'
    bad = program(home, b'(module (import "env" "nope" (func)) ' + memory + b")")
    status, printed = edge("validate", bad)
    assert status == 1
    assert "nope" in printed
    assert edge("deploy", bad, "--service", "bad")[0] == 1
    assert edge("describe", "bad")[0] == 1
    assert edge("deploy", HELLO, "--service", "filed")[0] == 1
    assert running.get(host="filed.test")[0] == 200


def test_tokens_open_what_they_say(
    edge: Edge, running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, text = edge("tokens", "create", "reader", "--scope", "read")
    assert status == 0
    assert edge("--token", text.strip(), "services")[0] == 0
    assert edge("--token", text.strip(), "deploy", HELLO, "--service", "x")[0] == 1
    listed = json.loads(edge("tokens", "list", "--json")[1])["items"]
    (identity,) = (one["id"] for one in listed if one["name"] == "reader")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["login", "--server", f"http://127.0.0.1:{running.admin_port}"]) == 0
    assert main(["services"]) == 0
    assert edge("tokens", "revoke", identity)[0] == 0
    assert main(["services"]) == 1


def test_stores_of_every_kind(edge: Edge, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edge("kv", "create", "data")[0] == 0
    value = program(home, bytes(range(256)) * 100, "value")
    assert edge("kv", "put", "data", "a/b c", "--file", value)[0] == 0
    assert edge("kv", "get", "data", "a/b c", "-o", home / "out")[0] == 0
    assert (home / "out").read_bytes() == value.read_bytes()
    assert "a/b c" in edge("kv", "keys", "data", "--prefix", "a/")[1]
    assert edge("kv", "rm", "data", "a/b c")[0] == 0
    assert edge("config", "create", "words")[0] == 0
    assert edge("config", "put", "words", "k", "v")[0] == 0
    assert "v" in edge("config", "items", "words")[1]
    assert edge("secret", "create", "hidden")[0] == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hush")))
    assert edge("secret", "put", "hidden", "api")[0] == 0
    assert "api" in edge("secret", "names", "hidden")[1]
    assert edge("acl", "create", "bad")[0] == 0
    assert edge("acl", "add", "bad", "BLOCK", "192.0.2.0/24")[0] == 0
    assert "192.0.2.0/24" in edge("acl", "entries", "bad")[1]
    assert edge("deploy", HELLO, "--service", "linked")[0] == 0
    assert edge("link", "linked", "kv", "data")[0] == 0
    assert edge("kv", "delete", "data")[0] == 1
    assert edge("kv", "delete", "data", "--force")[0] == 0
    subjects = edge("audit", "-n", "200")[1]
    assert "store.delete" in subjects
    assert "hush" not in subjects


def test_lines_are_followed_as_they_are_written(edge: Edge, running: Server) -> None:
    assert edge("deploy", HELLO, "--service", "followed", "--domain", "followed.test")[0] == 0
    words = [
        sys.executable, "-c", "import sys; from edge.client.cli import main; sys.exit(main())",
        "logs", "-f", "followed", "--json", "--state-dir", str(running.state_dir),
        "--server", f"http://127.0.0.1:{running.admin_port}",
    ]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as follower:
        try:
            assert follower.stdout is not None
            # records of requests that went well come to those who follow: from when on, nobody says
            for _ in range(200):
                assert running.get("/seen", host="followed.test")[0] == 200
                if select.select([follower.stdout], [], [], 0.1)[0]:
                    break
            record = json.loads(follower.stdout.readline())
        finally:
            follower.kill()
    assert (record["service"], record["path"], record["status"]) == ("followed", "/seen", 200)


def test_a_private_authority_is_trusted_when_it_is_named(
    tmp_path: Path, home: Path, capfd: Capture
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "key.pem").chmod(0o600)
    config = (
        'server: {listen: "127.0.0.1:0", workers: 1}\n'
        'admin: {listen: "127.0.0.1:0", tls: {certificate: cert.pem, key: key.pem}}\n'
    )
    with server(tmp_path, config) as running:
        address = f"https://127.0.0.1:{running.admin_port}"
        words = ["whoami", "--server", address, "--state-dir", str(running.state_dir)]
        assert main(words) == 3
        assert "name its authority with --ca" in capfd.readouterr().err
        words[2] = address.replace("https", "http")
        assert main(words) == 3
        assert "does it want https?" in capfd.readouterr().err
        words[2] = address
        assert main([*words, "--ca", str(tmp_path / "ca.pem")]) == 0
        assert "bootstrap" in capfd.readouterr().out


def test_what_services_do_can_be_watched(edge: Edge, running: Server, home: Path) -> None:
    assert edge("deploy", HELLO, "--service", "seen", "--domain", "seen.test")[0] == 0
    assert running.get(host="seen.test")[0] == 200
    found = json.loads(edge("stats", "seen", "--json")[1])
    assert found["service"] == "seen"
    assert "seen" in edge("stats")[1]
    other = program(home, OTHER)
    assert edge("deploy", other, "--service", "seen", "--no-activate")[0] == 0
    assert edge("invoke", "seen", 2, "/x") == (0, "other from wasm\n")
    assert edge("invoke", "seen") == (0, "hello from wasm\n")
    assert edge("logs", "seen")[0] == 0
    assert edge("nodes")[0] == 0
