"""One story with every command that the documentation names: from an empty server to a JavaScript

service with stores of every kind, answered through the public port, and to an empty server again.
"""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.support.fastly_cli import FastlyCli, write_project
from tests.support.guests import build
from tests.support.server import DEADLINE, ROOT, Server, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

CONFIG = """
server: {listen: "127.0.0.1:0", workers: 2, drain: 5s}
admin: {listen: "127.0.0.1:0"}
pool: {slots: 20}
"""
HOST = "shop.example.com"
SETUP = """
[setup.backends.origin]
address = "127.0.0.1"
port = 8123
[setup.config_stores.flags.items.banner]
value = "blue"
[setup.kv_stores.cart.items.apples]
value = "3"
[setup.secret_stores.keys]
"""
TALKER = """
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\09\\00\\00\\00")
  (data (i32.const 16) "watch me\\n")
  (func (export "_start")
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""
OWN_KEY = {"FASTLY_USE_API_SIGNING_KEY": "1"}
_COMMAND = re.compile(r"^\| `fastly ([a-z -]+)` \|", re.MULTILINE)


@dataclass(slots=True)
class Story:
    """The CLI, the server, and which commands have been run."""

    fastly: FastlyCli
    running: Server
    ran: set[str] = field(default_factory=set)
    service: str = ""

    def __call__(
        self, command: str, *flags: str, given: bytes = b"", env: Mapping[str, str] | None = None
    ) -> str:
        """What a command prints; it must succeed."""
        self.ran.add(command)
        return self.fastly(*command.split(), *flags, given=given, env=env)

    def json(self, command: str, *flags: str) -> Any:
        self.ran.add(command)
        return self.fastly.json(*command.split(), *flags)

    def on(self, version: int | str) -> tuple[str, str]:
        """Flags that name a version of the service."""
        return f"--service-id={self.service}", f"--version={version}"

    @property
    def of(self) -> str:
        return f"--service-id={self.service}"

    def get(self, path: str, host: str = HOST) -> tuple[int, bytes]:
        return self.running.get(path, host=host)[:2]

    def wait_until(self, path: str, wanted: bytes) -> None:
        """Ask again and again, until every worker must have heard of a change."""
        deadline = time.monotonic() + DEADLINE
        right = 0
        while right < 20:  # connections go to either of two workers
            right = right + 1 if self.get(path)[1] == wanted else 0
            assert time.monotonic() < deadline, f"{path} is still not {wanted!r}"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    folder, work = tmp_path / "server", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    with server(folder, CONFIG, workers=2) as running:
        token = (running.state_dir / "admin.token").read_text().strip()
        yield Story(FastlyCli(work, f"http://127.0.0.1:{running.admin_port}", token), running)


def test_every_command_of_the_documentation(story: Story) -> None:
    chapters: tuple[Callable[[Story], None], ...] = (
        the_caller, the_first_deploy, config_stores, kv_stores, secret_stores, links_and_acls,
        domains, backends, health_checks, dictionaries, service_acls, versions, later_deploys,
        watching, purging, services,
    )  # fmt: skip
    for chapter in chapters:
        chapter(story)
    documented = set(_COMMAND.findall((ROOT / "docs" / "fastly-cli.md").read_text()))
    assert story.ran == documented


def the_caller(story: Story) -> None:
    assert "bootstrap" in story("whoami")
    assert "bootstrap" in story("auth-token describe")
    printed = story("auth-token create", "--password=x", "--name=second", "--scope=global")
    assert "second" in story("auth-token list")
    made = re.findall(r"id: (\w+)", printed)[0]
    story("auth-token delete", f"--id={made}")
    assert "second" not in story("auth-token list")


def the_first_deploy(story: Story) -> None:
    write_project(story.fastly.folder, build("js/stores").read_bytes(), name="shop", setup=SETUP)
    story("compute build", "-i", "--metadata-disable")
    story("compute validate", "--package=pkg/shop.tar.gz")
    story("compute hash-files", "--package=pkg/shop.tar.gz")
    assert story.get("/config/banner")[0] == 421
    deploy = ("-i", "--status-check-off", "--metadata-disable", f"--domain={HOST}")
    story("compute publish", *deploy, env=OWN_KEY)
    manifest = tomllib.loads((story.fastly.folder / "fastly.toml").read_text())
    story.service = manifest["service_id"]
    assert story.get("/config/banner") == (200, b'"blue"')
    assert story.get("/kv/apples") == (200, b"3")
    assert story.get("/secret/api")[0] == 404


def config_stores(story: Story) -> None:
    flags = story.json("config-store list")[0]
    assert flags["name"] == "flags"
    store = f"--store-id={flags['id']}"
    story("config-store-entry create", store, "--key=size", "--value=large")
    story.wait_until("/config/size", b'"large"')
    story("config-store-entry update", store, "--key=size", "--value=small")
    story.wait_until("/config/size", b'"small"')
    assert "small" in story("config-store-entry describe", store, "--key=size")
    story("config-store-entry delete", store, "--key=size")
    story.wait_until("/config/size", b"")
    assert "banner" in story("config-store-entry list", store)
    assert "flags" in story("config-store describe", store)
    assert story.service in story("config-store list-services", store)
    spare = f"--store-id={story.json('config-store create', '--name=spare')['id']}"
    story("config-store update", spare, "--name=other")
    story("config-store delete", spare)


def kv_stores(story: Story) -> None:
    cart = story.json("kv-store list")["Data"][0]
    store = f"--store-id={cart['StoreID']}"
    assert "cart" in story("kv-store describe", store)
    story("kv-store-entry create", store, "--key=pears", "--value=5", "--metadata=fresh")
    assert story.get("/kv/pears") == (200, b"5")
    files = story.fastly.folder / "fruit"
    files.mkdir()
    (files / "plums").write_bytes(b"8")
    story("kv-store-entry create", store, "--dir=fruit")
    assert story.get("/kv/plums") == (200, b"8")
    assert story("kv-store-entry get", store, "--key=plums") == "8"
    assert "fresh" in story("kv-store-entry describe", store, "--key=pears")
    assert story.json("kv-store-entry list", store) == ["apples", "pears", "plums"]
    story("kv-store-entry delete", store, "--key=plums")
    assert story.get("/kv/plums")[0] == 404
    spare = f"--store-id={story.json('kv-store create', '--name=spare')['StoreID']}"
    story("kv-store delete", spare)


def secret_stores(story: Story) -> None:
    keys = next(one for one in story.json("secret-store list") if one["name"] == "keys")
    store = f"--store-id={keys['id']}"
    create = (store, "--name=api", "--stdin")
    story("secret-store-entry create", *create, given=b"hunter2", env=OWN_KEY)
    story.wait_until("/secret/api", secret("hunter2"))
    assert "hunter2" not in story("secret-store-entry describe", store, "--name=api")
    assert "api" in story("secret-store-entry list", store)
    story("secret-store-entry delete", store, "--name=api")
    story.wait_until("/secret/api", b"")
    assert "keys" in story("secret-store describe", store)
    spare = f"--store-id={story.json('secret-store create', '--name=spare')['id']}"
    story("secret-store delete", spare)


def secret(text: str) -> bytes:
    return json.dumps({"text": text, "bytes": list(text.encode())}, separators=(",", ":")).encode()


def links_and_acls(story: Story) -> None:
    acl = f"--acl-id={story.json('compute acl create', '--name=blocked')['id']}"
    story(
        "compute acl update", acl, "--operation=create", "--prefix=192.0.2.0/24", "--action=BLOCK"
    )
    assert "blocked" in story("compute acl describe", acl)
    assert "blocked" in story("compute acl list-acls")
    assert "192.0.2.0/24" in story("compute acl list-entries", acl)
    assert "BLOCK" in story("compute acl lookup", acl, "--ip=192.0.2.1")
    assert story.get("/acl/192.0.2.1")[0] == 500, "it is not linked yet"
    identity = acl.partition("=")[2]
    story("service version clone", *story.on("active"))
    draft = story.on("latest")
    story("service resource-link create", *draft, f"--resource-id={identity}", "--name=blocks")
    links = {one["name"]: one["id"] for one in story.json("service resource-link list", *draft)}
    assert set(links) == {"blocks", "cart", "flags", "keys"}
    one = f"--id={links['blocks']}"
    story("service resource-link update", *draft, one, "--name=blocked")
    assert "blocked" in story("service resource-link describe", *draft, one)
    story("service resource-link delete", *draft, one)
    story("service resource-link create", *draft, f"--resource-id={identity}")
    story("service version activate", *draft)
    status, body = story.get("/acl/192.0.2.1")
    assert (status, json.loads(body)["action"]) == (200, "BLOCK")
    spare = f"--acl-id={story.json('compute acl create', '--name=spare')['id']}"
    story("compute acl delete", spare)


def domains(story: Story) -> None:
    story("service domain create", *story.on("active"), "--name=a.example.com", "--autoclone")
    draft = story.on("latest")
    story("service domain update", *draft, "--name=a.example.com", "--new-name=b.example.com")
    assert "b.example.com" in story("service domain list", *draft)
    assert "b.example.com" in story("service domain describe", *draft, "--name=b.example.com")
    assert story.get("/config/banner", "b.example.com")[0] == 421, "a draft is not served"
    story("service version activate", *draft)
    assert story.get("/config/banner", "b.example.com")[0] == 200
    assert "b.example.com" in story("service domain validate", *draft, "--all")
    story("service version clone", *story.on("active"))
    story("service domain delete", *story.on("latest"), "--name=b.example.com")
    story("service version activate", *story.on("latest"))
    assert story.get("/config/banner", "b.example.com")[0] == 421


def backends(story: Story) -> None:
    story(
        "service backend create", *story.on("active"), "--autoclone", "--name=spare",
        "--address=127.0.0.1", "--port=443",
    )  # fmt: skip
    draft = story.on("latest")
    story("service backend update", *draft, "--name=spare", "--connect-timeout=50")
    assert "50" in story("service backend describe", *draft, "--name=spare")
    assert "origin" in story("service backend list", *draft)
    story("service backend delete", *draft, "--name=spare")


def health_checks(story: Story) -> None:
    draft = story.on("latest")
    story("service healthcheck create", *draft, "--name=well", "--path=/healthz")
    story("service healthcheck update", *draft, "--name=well", "--window=8")
    assert "/healthz" in story("service healthcheck list", *draft)
    assert "/healthz" in story("service healthcheck describe", *draft, "--name=well")
    story("service backend update", *draft, "--name=origin", "--healthcheck=well")
    story("service version activate", *draft)
    assert story.get("/config/banner")[0] == 200
    story("service version clone", *story.on("active"))
    draft = story.on("latest")
    story("service healthcheck delete", *draft, "--name=well")


def dictionaries(story: Story) -> None:
    draft = story.on("latest")
    story("service dictionary create", *draft, "--name=colours")
    story("service dictionary update", *draft, "--name=colours", "--new-name=paints")
    found = story.json("service dictionary list", *draft)[0]
    assert "paints" in story("service dictionary describe", *draft, "--name=paints")
    which = (story.of, f"--dictionary-id={found.get('DictionaryID') or found['id']}")
    story("service dictionary-entry create", *which, "--key=sky", "--value=blue")
    story("service dictionary-entry update", *which, "--key=sky", "--value=grey")
    assert "grey" in story("service dictionary-entry list", *which)
    assert "grey" in story("service dictionary-entry describe", *which, "--key=sky")
    story("service dictionary-entry delete", *which, "--key=sky")
    story("service dictionary delete", *draft, "--name=paints")


def service_acls(story: Story) -> None:
    draft = story.on("latest")
    story("service acl create", *draft, "--name=office")
    story("service acl update", *draft, "--name=office", "--new-name=lab")
    found = story.json("service acl list", *draft)[0]
    assert "lab" in story("service acl describe", *draft, "--name=lab")
    which = (story.of, f"--acl-id={found.get('ACLID') or found['id']}")
    story("service acl-entry create", *which, "--ip=198.51.100.0", "--subnet=24")
    entry = story.json("service acl-entry list", *which)[0]
    one = f"--id={entry['EntryID']}"
    story("service acl-entry update", *which, one, "--comment=desks")
    assert "desks" in story("service acl-entry describe", *which, one)
    story("service acl-entry delete", *which, one)
    story("service acl delete", *draft, "--name=lab")


def versions(story: Story) -> None:
    draft = story.on("latest")
    story("service version update", *draft, "--comment=tidied")
    assert "names no health check" in story("service version validate", *draft)
    story("service backend update", *draft, "--name=origin", "--healthcheck=")
    assert "is valid" in story("service version validate", *draft)
    story("service version stage", *draft)
    found = {one["Number"]: one for one in story.json("service version list", story.of)}
    newest = max(found)
    assert (found[newest]["Staging"], found[newest]["Comment"]) == (True, "tidied")
    story("service version unstage", *story.on("staged"))
    story("service version clone", *story.on("latest"))
    story("service version lock", *story.on("latest"))
    story("service version activate", *story.on(1))
    assert story.get("/acl/192.0.2.1")[0] == 500, "the first version has no such link"
    story("service version activate", *story.on(2))
    assert story.get("/acl/192.0.2.1")[0] == 200
    story("service version deactivate", *story.on("active"))
    assert story.get("/config/banner")[0] == 421
    story("service version activate", *story.on(2))


def later_deploys(story: Story) -> None:
    """The program alone, and everything anew."""
    story("service version clone", *story.on("active"))
    draft = story.on("latest")
    write_project(story.fastly.folder, build("js/hello").read_bytes(), name="shop")
    story("compute build", "-i", "--metadata-disable")
    story("compute update", *draft, "--package=pkg/shop.tar.gz")
    assert story.get("/config/banner") == (200, b'"blue"')
    story("service version activate", *draft)
    assert story.get("/config/banner")[1] != b'"blue"'
    write_project(story.fastly.folder, build("js/stores").read_bytes(), name="shop")
    story("compute build", "-i", "--metadata-disable")
    story("compute deploy", story.of, "-i", "--comment=again")
    assert story.get("/config/banner") == (200, b'"blue"')


def watching(story: Story) -> None:
    """A second service, whose program prints a line and answers nothing."""
    service = story("service create", "--name=talker").split()[-1]
    of = (f"--service-id={service}", "--version=1")
    write_project(story.fastly.folder, bytes(wasmtime.wat2wasm(TALKER)), name="talker")
    story("compute build", "-i", "--metadata-disable")
    story("compute update", *of, "--package=pkg/talker.tar.gz")
    story("service version activate", *of)
    began = int(time.time())
    assert story.get("/", host="talker.localhost")[0] == 500
    # It ends once it is past the window, but prints only what has been in its buffer for a second.
    assert "watch me" in story("log-tail", of[0], f"--from={began}", f"--to={began + 4}")
    counted = story.json("stats historical", of[0])
    assert "requests" in str(counted).lower()
    for command in ("stats regions", "stats aggregate", "stats usage"):
        story(command)
    story("service delete", of[0], "--force")


def purging(story: Story) -> None:
    assert "ok" in story("service purge", story.of, "--all")
    assert "ok" in story("service purge", story.of, "--key=first")


def services(story: Story) -> None:
    assert "shop" in story("service list")
    assert story.service in story("service search", "--name=shop")
    story("service update", story.of, "--name=store", "--comment=renamed")
    assert "renamed" in story("service describe", story.of)
    spare = story("service create", "--name=spare").split()[-1]
    story("service delete", f"--service-id={spare}")
    story("service delete", story.of, "--force")
    assert story.get("/config/banner")[0] == 421
    assert story.fastly.json("service", "list") in ([], None)
