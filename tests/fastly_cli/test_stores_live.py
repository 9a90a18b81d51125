"""Stores that the official CLI changes, as a running service sees them: without a deploy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.fastly_cli import FastlyCli, write_project
from tests.support.guests import build
from tests.support.server import DEADLINE, Server, config_of, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

HOST = "stores.example.com"
OWN_KEY = {"FASTLY_USE_API_SIGNING_KEY": "1"}


@dataclass(frozen=True, slots=True)
class Shop:
    """A running service with a store of every kind."""

    running: Server
    fastly: FastlyCli
    service: str
    stores: dict[str, str]  # flags that name them, by the name that the program uses

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and document of an answer of the service."""
        status, body, _ = self.running.get(path, host=HOST)
        return status, json.loads(body) if status == 200 else body

    def comes_to(self, path: str, wanted: object) -> None:
        """Ask, on both workers, until the answer is what is wanted."""
        deadline, times = time.monotonic() + DEADLINE, 0
        while times < 8:
            found = self.ask(path)
            times = times + 1 if found == (200, wanted) or found[0] == wanted else 0
            assert time.monotonic() < deadline, (path, wanted, found)

    def versions(self) -> int:
        """How many there are."""
        return len(self.fastly.json("service", "version", "list", self.service))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, work = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("work")
    config = config_of("  {}\n", workers=2).replace("services:\n  {}\n", "services: {}\n")
    with server(folder, config, workers=2) as running:
        token = (running.state_dir / "admin.token").read_text().strip()
        fastly = FastlyCli(work, f"http://127.0.0.1:{running.admin_port}", token)
        yield begun(running, fastly)


def begun(running: Server, fastly: FastlyCli) -> Shop:
    """Deploy it, as somebody does who does it step by step."""
    service = f"--service-id={fastly('service', 'create', '--name=stores').split()[-1]}"
    first = (service, "--version=1")
    stores = {}
    for name, flag, words in (
        ("cart", "--store-id", ("kv-store",)),
        ("flags", "--store-id", ("config-store",)),
        ("keys", "--store-id", ("secret-store",)),
        ("blocked", "--acl-id", ("compute", "acl")),
    ):
        made = fastly.json(*words, "create", f"--name=the-{name}")
        store = str(made.get("id") or made["StoreID"])
        fastly(
            "service", "resource-link", "create", *first, f"--resource-id={store}", f"--name={name}"
        )
        stores[name] = f"{flag}={store}"
    fastly("service", "domain", "create", *first, f"--name={HOST}")
    write_project(fastly.folder, build("js/stores").read_bytes(), name="stores")
    fastly("compute", "build", "--non-interactive", "--metadata-disable")
    fastly("compute", "update", *first, "--package=pkg/stores.tar.gz")
    fastly("service", "version", "activate", *first)
    return Shop(running, fastly, service, stores)


def test_kv_values_go_both_ways(shop: Shop) -> None:
    store = shop.stores["cart"]
    shop.fastly("kv-store-entry", "create", store, "--key=k", "--value=from outside")
    assert shop.running.get("/kv/k", host=HOST)[1] == b"from outside"
    connection = shop.running.get("/kv/none", host=HOST)
    assert connection[0] == 404
    assert shop.ask("/many")[0] == 200  # the service writes twenty values
    keys = shop.fastly.json("kv-store-entry", "list", store, "--prefix=many-")
    assert len(keys) == 20
    assert shop.fastly("kv-store-entry", "get", store, "--key=many-7") == "value of many-7"
    shop.fastly("kv-store-entry", "delete", store, "--all", "-y")
    assert shop.running.get("/kv/k", host=HOST)[0] == 404


def test_config_items_are_seen_without_a_deploy(shop: Shop) -> None:
    store, before = shop.stores["flags"], shop.versions()
    assert shop.ask("/config/banner")[0] == 404
    shop.fastly("config-store-entry", "create", store, "--key=banner", "--value=blue")
    shop.comes_to("/config/banner", "blue")
    shop.fastly("config-store-entry", "update", store, "--key=banner", "--value=green")
    shop.comes_to("/config/banner", "green")
    shop.fastly("config-store-entry", "delete", store, "--key=banner")
    shop.comes_to("/config/banner", 404)
    assert shop.versions() == before


def test_secrets_are_seen_without_a_deploy(shop: Shop) -> None:
    create = ("secret-store-entry", "create", shop.stores["keys"], "--name=api", "--stdin")
    shop.fastly(*create, env=OWN_KEY, given=b"hunter2")
    shop.comes_to("/secret/api", {"text": "hunter2", "bytes": list(b"hunter2")})
    shop.fastly(*create, "--recreate", env=OWN_KEY, given=b"other")
    shop.comes_to("/secret/api", {"text": "other", "bytes": list(b"other")})
    shop.fastly("secret-store-entry", "delete", shop.stores["keys"], "--name=api")
    shop.comes_to("/secret/api", 404)
    for path in shop.running.state_dir.iterdir():
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_acl_entries_are_seen_without_a_deploy(shop: Shop) -> None:
    acl = ("compute", "acl", "update", shop.stores["blocked"])
    update = (*acl, "--prefix=192.0.2.0/24")
    assert shop.ask("/acl/192.0.2.1")[0] == 404
    shop.fastly(*update, "--operation=create", "--action=BLOCK")
    shop.comes_to("/acl/192.0.2.1", {"action": "BLOCK", "prefix": "192.0.2.0/24"})
    shop.fastly(*update, "--operation=update", "--action=ALLOW")
    shop.comes_to("/acl/192.0.2.1", {"action": "ALLOW", "prefix": "192.0.2.0/24"})
    gone = {"entries": [{"op": "delete", "prefix": "192.0.2.0/24"}]}  # only a batch deletes
    shop.fastly(*acl, f"--file={json.dumps(gone)}")
    shop.comes_to("/acl/192.0.2.1", 404)


def test_a_store_that_is_used_is_not_deleted(shop: Shop) -> None:
    for words, name in (
        (("config-store",), "flags"),
        (("secret-store",), "keys"),
        (("compute", "acl"), "blocked"),
        (("kv-store",), "cart"),
    ):
        assert "409" in shop.fastly.refused(*words, "delete", shop.stores[name]), name


def test_a_dictionary_and_an_acl_of_the_service_take_the_place_of_links(shop: Shop) -> None:
    fastly, service = shop.fastly, shop.service
    fastly("service", "version", "clone", service, "--version=1")
    draft = (service, f"--version={shop.versions()}")
    links = fastly.json("service", "resource-link", "list", *draft)
    for link in links:
        if link["name"] in ("flags", "blocked"):
            fastly("service", "resource-link", "delete", *draft, f"--id={link['id']}")
    fastly("service", "dictionary", "create", *draft, "--name=flags")
    fastly("service", "acl", "create", *draft, "--name=blocked")
    made = fastly.json("service", "dictionary", "list", *draft)[0]
    dictionary = f"--dictionary-id={made.get('DictionaryID') or made['id']}"
    acl = f"--acl-id={fastly.json('service', 'acl', 'list', *draft)[0]['ACLID']}"
    item = ("service", "dictionary-entry", "create", service, dictionary, "--key=banner")
    fastly(*item, "--value=red")
    assert shop.ask("/config/banner")[0] == 404
    fastly("service", "version", "activate", *draft)
    shop.comes_to("/config/banner", "red")
    fastly(
        "service", "dictionary-entry", "update", service, dictionary, "--key=banner",
        "--value=gold",
    )  # fmt: skip
    shop.comes_to("/config/banner", "gold")
    entry = ("service", "acl-entry", "create", service, acl)
    fastly(*entry, "--ip=198.51.100.0", "--subnet=24")
    shop.comes_to("/acl/198.51.100.9", {"action": "BLOCK", "prefix": "198.51.100.0/24"})
    fastly("service", "version", "activate", service, "--version=1")
    shop.comes_to("/config/banner", 404)
