"""`edge deploy`: what is uploaded, under which name, and what `[setup]` adds to it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from edge.client.failures import Refused
from edge.client.project import find_project, service_name
from edge.client.sending import send
from edge.client.session import Session
from tests.support.fake_api import Asked, FakeApi
from tests.support.packages import EMPTY_MODULE

Run = Callable[..., int]
DONE = {
    "service": "app", "version": 3, "active": True, "url": "http://app.localhost/", "size": 8,
    "domains": ["app.localhost"], "sha256": "ab", "compile_ms": 1.5, "warnings": ["slow backend"],
}  # fmt: skip


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(EMPTY_MODULE)
    return path


def project(home: Path, manifest: str = 'name = "My App!"\n') -> Path:
    folder = home / "project"
    program(folder / "bin" / "main.wasm")
    (folder / "fastly.toml").write_text(manifest)
    return folder


def test_one_file_is_one_call(
    run: Run, api: FakeApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("PUT /v1/services/app", DONE, 201)
    assert run("deploy", program(home / "app.wasm"), "--token", "t") == 0
    (asked,) = api.asked
    assert asked.body == EMPTY_MODULE
    assert asked.query == {"activate": ["true"]}
    assert asked.headers["content-length"] == "8"
    printed = capsys.readouterr().out
    assert "app version 3 is served" in printed
    assert "http://app.localhost/" in printed
    assert "warning: slow backend" in printed


def test_json_is_what_the_server_said(
    run: Run, api: FakeApi, home: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    api.on("PUT /v1/services/app", DONE, 201)
    assert run("deploy", program(home / "app.wasm"), "--json") == 0
    assert capfdbinary.readouterr() == (json.dumps(DONE, indent=2).encode() + b"\n", b"")


def test_options_become_parameters(run: Run, api: FakeApi, home: Path) -> None:
    api.on("PUT /v1/services/shop", DONE)
    file = program(home / "app.wasm")
    words = ("--service", "shop", "--domain", "a.example", "--domain", "b.example/x")
    assert run("deploy", file, *words, "--percent", "5", "--comment", "hi there") == 0
    assert api.asked[0].query == {
        "domain": ["a.example", "b.example/x"], "activate": ["true"], "percent": ["5"],
        "comment": ["hi there"],
    }  # fmt: skip
    assert run("deploy", file, "--service", "shop", "--no-activate", "--dry-run") == 0
    assert api.asked[1].query == {"dry_run": ["true"]}
    assert run("deploy", file, "--no-activate", "--percent", "5") == 2


def test_the_name_comes_from_the_project_or_the_file(home: Path) -> None:
    assert find_project(project(home)).name == "my-app"
    (home / "project" / "fastly.toml").unlink()
    assert find_project(home / "project").name == "project"
    assert find_project(program(home / "some.thing.wasm")).name == "some.thing"
    assert find_project(program(home / "packed.tar.gz")).name == "packed"
    assert service_name("!!!") == ""
    assert service_name("x" * 80) == "x" * 63


def test_the_newer_of_program_and_package_is_taken(home: Path) -> None:
    folder = project(home)
    wasm, package = folder / "bin" / "main.wasm", program(folder / "pkg" / "my-app.tar.gz")
    program(folder / "pkg" / "package.tar.gz")
    os.utime(wasm, (2000, 2000))
    os.utime(package, (1000, 1000))
    assert find_project(folder).file == wasm
    os.utime(package, (2000, 2000))
    assert find_project(folder).file == package


def test_a_directory_with_nothing_built_is_refused(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", home) == 2
    assert "bin/main.wasm" in capsys.readouterr().err
    (home / "notes.txt").write_text("")
    assert run("deploy", home / "notes.txt") == 2
    assert run("deploy", home / "absent.wasm") == 2


def test_a_manifest_with_mistakes_is_refused_before_anything_is_sent(
    run: Run, api: FakeApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", project(home, "name = [")) == 2
    assert "fastly.toml is not TOML" in capsys.readouterr().err
    assert api.calls == []


SETUP = """
name = "app"
[setup.backends.origin]
address = "example.com"
[setup.backends.local]
address = "192.0.2.1"
port = 8080
[setup.config_stores.flags.items.banner]
value = "blue"
[setup.kv_stores.cart.items.seed]
file = "seed.txt"
[setup.secret_stores.keys.entries.api]
description = "of the shop"
"""


def with_setup(api: FakeApi, *, locked: bool = False) -> None:
    for path in ("config-stores/flags", "kv/cart", "secret-stores/keys"):
        api.on(f"PUT /v1/{path}", {}, 201)
    api.on("PUT /v1/config-stores/flags/items/banner", {}, 201)
    api.on("PUT /v1/kv/cart/keys/seed", {})
    api.on("PUT /v1/services/app", {**DONE, "active": False}, 201)
    api.on("POST /v1/services/app/versions", {"version": 4}, 201)
    for number in (3, 4):
        path = f"/v1/services/app/versions/{number}"
        api.on(f"GET {path}", {"locked": locked})
        api.on(f"GET {path}/definition", {"backends": {"local": {"url": "http://kept"}}})
        api.on(f"PUT {path}/definition", {})
        api.on(f"POST {path}/activate", {"version": number, "percent": 100, "activation_ms": 2.5})


def test_setup_creates_what_is_missing_then_links_then_serves(
    run: Run, api: FakeApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_setup(api)
    folder = project(home, SETUP)
    (folder / "seed.txt").write_bytes(b"\x00seed")
    assert run("deploy", folder) == 0
    assert api.calls == [
        "PUT /v1/config-stores/flags",
        "PUT /v1/config-stores/flags/items/banner",
        "PUT /v1/kv/cart",
        "PUT /v1/kv/cart/keys/seed",
        "PUT /v1/secret-stores/keys",
        "GET /v1/secret-stores/keys/secrets/api",
        "PUT /v1/services/app",
        "GET /v1/services/app/versions/3/definition",
        "GET /v1/services/app/versions/3",
        "PUT /v1/services/app/versions/3/definition",
        "POST /v1/services/app/versions/3/activate",
    ]
    assert api.asked[1].body == b"blue"
    assert api.asked[3].body == b"\x00seed"
    assert api.asked[6].query == {}
    assert api.asked[9].document == {
        "backends": {"local": {"url": "http://kept"}, "origin": {"url": "https://example.com"}},
        "config_stores": {"flags": "flags"},
        "kv_stores": {"cart": "cart"},
        "secret_stores": {"keys": "keys"},
    }
    printed = capsys.readouterr()
    assert "edge secret put keys api" in printed.err
    assert "app version 3 is served" in printed.out


def test_a_store_that_is_there_is_left_as_it_is(run: Run, api: FakeApi, home: Path) -> None:
    with_setup(api)
    for path in ("config-stores/flags", "kv/cart", "secret-stores/keys"):
        api.on(f"PUT /v1/{path}", {}, 200)
    api.on("GET /v1/secret-stores/keys/secrets/api", {"name": "api"})
    assert run("deploy", project(home, SETUP)) == 0
    assert not any("items/" in call or "PUT /v1/kv/cart/keys" in call for call in api.calls)


def test_a_version_that_cannot_change_is_cloned_for_its_links(
    run: Run, api: FakeApi, home: Path
) -> None:
    with_setup(api, locked=True)
    (project(home, SETUP) / "seed.txt").write_text("")
    assert run("deploy", home / "project", "--percent", "10") == 0
    assert "PUT /v1/services/app/versions/4/definition" in api.calls
    assert api.asked[-1].path == "/v1/services/app/versions/4/activate"
    assert api.asked[-1].document == {"percent": 10.0}


def test_progress_is_shown_while_the_server_works(home: Path, api: FakeApi) -> None:
    events: list[dict[str, object]] = [
        {"event": "received", "bytes": 8}, {"event": "working"}, {"event": "compiling"},
        {"event": "activated"}, {"event": "done", **DONE},
    ]  # fmt: skip
    session, shown = watched(api, events)
    answer = send(session, "/v1/services/app", program(home / "a.wasm"), 8, {})
    assert answer.value == DONE
    assert "uploading" in shown.getvalue()
    assert api.asked[0].headers["accept"] == "application/x-ndjson"
    assert api.asked[0].body == EMPTY_MODULE


def test_a_refusal_within_progress_is_a_refusal(home: Path, api: FakeApi) -> None:
    events = [{"event": "received"}, {"event": "refused", "code": "limit", "detail": "too many"}]
    session, _ = watched(api, events)
    with pytest.raises(Refused, match="too many"):
        send(session, "/v1/services/app", program(home / "a.wasm"), 8, {})


def watched(api: FakeApi, events: Sequence[Mapping[str, object]]) -> tuple[Session, io.StringIO]:
    """A session on a terminal, and what is written to it."""

    def answer(_: Asked) -> httpx.Response:
        content = "".join(json.dumps(event) + "\n" for event in events)
        return httpx.Response(200, text=content)

    api.answers["PUT /v1/services/app"] = answer
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    session = _Watched({}, api.transport, err=console)
    return session, shown


class _Watched(Session):
    is_interactive = True
