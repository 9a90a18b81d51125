"""The official CLI's commands for stores of every kind and for links to them.

They change what is in a real catalogue and a real KV engine; nothing is served here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.admin.fastly import routes
from edge.catalogue import entries
from tests.support.api_server import ApiServer, api_server
from tests.support.fastly_cli import FastlyCli

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

# Off Fastly the CLI has to be told to ask for the key that signs client keys.
OWN_KEY = {"FASTLY_USE_API_SIGNING_KEY": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("state"), make_routes=routes) as running:
        yield running


@pytest.fixture
def fastly(server: ApiServer, tmp_path: Path) -> FastlyCli:
    return FastlyCli(tmp_path, f"http://127.0.0.1:{server.port}", server.admin)


def made(fastly: FastlyCli, *words: str) -> str:
    """The id of a new store."""
    found = fastly.json(*words)
    return str(found.get("id") or found.get("ID") or found["StoreID"])


def named(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in found if one.get("name", one.get("Name")) == name]


# Config stores --------------------------------------------------------------------------------


def test_config_stores_are_made_listed_described_renamed_and_deleted(fastly: FastlyCli) -> None:
    store = made(fastly, "config-store", "create", "--name=flags")
    assert "flags" in fastly.refused("config-store", "create", "--name=flags")
    assert named(fastly.json("config-store", "list"), "flags")[0]["id"] == store
    described = fastly.json("config-store", "describe", f"--store-id={store}", "--metadata")
    assert described["name"] == "flags"
    assert fastly.json("config-store", "list-services", f"--store-id={store}") == []
    fastly("config-store", "update", f"--store-id={store}", "--name=switches")
    assert not named(fastly.json("config-store", "list"), "flags")
    fastly("config-store", "delete", f"--store-id={store}")
    assert "404" in fastly.refused("config-store", "describe", f"--store-id={store}")


def test_config_items_are_made_updated_listed_and_deleted(
    fastly: FastlyCli, server: ApiServer
) -> None:
    store = made(fastly, "config-store", "create", "--name=items")
    where = f"--store-id={store}"
    server.control.changed_stores.clear()
    fastly("config-store-entry", "create", where, "--key=a/b c", "--value=blue é")
    refused = fastly.refused("config-store-entry", "create", where, "--key=a/b c", "--value=x")
    assert "409" in refused
    assert server.control.changed_stores == [store]
    described = fastly.json("config-store-entry", "describe", where, "--key=a/b c")
    assert (described["item_key"], described["item_value"]) == ("a/b c", "blue é")
    fastly("config-store-entry", "update", where, "--key=a/b c", "--stdin", given=b"green")
    absent = ("config-store-entry", "update", where, "--key=new", "--value=1")
    assert "404" in fastly.refused(*absent)
    fastly(*absent, "--upsert")
    listed = fastly.json("config-store-entry", "list", where)
    assert {one["item_key"]: one["item_value"] for one in listed} == {"a/b c": "green", "new": "1"}
    fastly("config-store-entry", "delete", where, "--key=new")
    for number in range(30):
        fastly_batch(server, store, number)
    fastly("config-store-entry", "delete", where, "--all", "--batch-size=7", "-y")
    assert fastly.json("config-store-entry", "list", where) == []


def fastly_batch(server: ApiServer, store: str, number: int) -> None:
    item = {"op": "upsert", "item_key": f"k{number}", "item_value": "v"}
    answer = server.ask("PATCH", f"/resources/stores/config/{store}/items", {"items": [item]})
    assert answer.json == {"status": "ok"}


# KV stores ------------------------------------------------------------------------------------


def test_kv_stores_are_made_listed_described_and_deleted(
    fastly: FastlyCli, server: ApiServer
) -> None:
    store = made(fastly, "kv-store", "create", "--name=cart", "--location=EU")
    assert "409" in fastly.refused("kv-store", "create", "--name=cart")
    assert named(fastly.json("kv-store", "list")["Data"], "cart")[0]["StoreID"] == store
    for word in ("describe", "get"):
        assert fastly.json("kv-store", word, f"--store-id={store}")["Name"] == "cart"
    fastly("kv-store-entry", "create", f"--store-id={store}", "--key=k", "--value=v")
    assert "not empty" in fastly.refused("kv-store", "delete", f"--store-id={store}")
    fastly("kv-store", "delete", f"--store-id={store}", "--all", "-y")
    assert "404" in fastly.refused("kv-store", "describe", f"--store-id={store}")
    assert store in server.control.deleted_stores


def test_kv_values_are_put_one_by_one_and_many_at_once(fastly: FastlyCli) -> None:
    store = made(fastly, "kv-store", "create", "--name=values")
    where = f"--store-id={store}"
    entry = "kv-store-entry"
    fastly(entry, "create", where, "--key=a/1", "--value=one", "--metadata=é=1", "--add")
    refused = fastly.refused(entry, "create", where, "--key=a/1", "--value=x", "--add")
    assert "412" in refused
    assert fastly(entry, "get", where, "--key=a/1") == "one"
    described = fastly.json(entry, "describe", where, "--key=a/1")
    lowered = {name.lower(): value for name, value in described.items()}
    assert lowered["metadata"] == "é=1"
    generation = lowered["generation"]
    fastly(
        entry, "create", where, "--key=a/1", "--value=two", "--append",
        f"--if-generation-match={generation}",
    )  # fmt: skip
    stale = (f"--if-generation-match={generation}",)
    assert "412" in fastly.refused(entry, "create", where, "--key=a/1", "--value=x", *stale)
    assert "412" in fastly.refused(entry, "delete", where, "--key=a/1", *stale)
    fastly(entry, "create", where, "--key=a/1", "--value=zero", "--prepend", "--background-fetch")
    assert fastly(entry, "get", where, "--key=a/1") == "zeroonetwo"

    files = fastly.folder / "files"
    files.mkdir()
    (files / "f1").write_bytes(b"\x00\xff")
    (files / "f2").write_bytes(b"")
    fastly(entry, "create", where, "--dir=files", "--dir-concurrency=2")
    lines = b'{"key":"j1","value":"b25l"}\n{"key":"j2","value":"dHdv","metadata":"m"}\n'
    (fastly.folder / "lines.json").write_bytes(lines)
    fastly(entry, "create", where, "--file=lines.json")
    fastly(entry, "create", where, "--stdin", given=b'{"key":"j3","value":"dGhyZWU="}\n')
    bad = fastly.run(entry, "create", where, "--stdin", given=b'{"key":"j4","value":"?"}\n')
    assert (bad.code != 0, "base64" in bad.output) == (True, True), bad
    keys = fastly.json(entry, "list", where)
    assert keys == ["a/1", "f1", "f2", "j1", "j2", "j3"]
    assert fastly.json(entry, "list", where, "--prefix=j") == ["j1", "j2", "j3"]
    assert fastly(entry, "get", where, "--key=j2") == "two"

    fastly(entry, "delete", where, "--key=a/1")
    assert "404" in fastly.refused(entry, "get", where, "--key=a/1")
    assert "404" in fastly.refused(entry, "delete", where, "--key=a/1")
    fastly(entry, "delete", where, "--key=a/1", "--force")
    fastly(entry, "delete", where, "--prefix=j", "-y")
    assert fastly.json(entry, "list", where) == ["f1", "f2"]
    fastly(entry, "delete", where, "--all", "-y")
    assert not fastly.json(entry, "list", where)


def test_more_keys_than_a_page_has_are_listed_and_deleted(fastly: FastlyCli) -> None:
    store = made(fastly, "kv-store", "create", "--name=many")
    lines = "".join(json.dumps({"key": f"k{n:04}", "value": ""}) + "\n" for n in range(250))
    fastly(
        "kv-store-entry", "create", f"--store-id={store}", "--stdin", given=lines.encode()
    )  # fmt: skip
    keys = fastly.json("kv-store-entry", "list", f"--store-id={store}")
    assert keys == [f"k{n:04}" for n in range(250)]
    fastly("kv-store", "delete", f"--store-id={store}", "--all", "-y")


# Secret stores --------------------------------------------------------------------------------


def test_secret_stores_are_made_listed_described_and_deleted(fastly: FastlyCli) -> None:
    store = made(fastly, "secret-store", "create", "--name=keys")
    assert "409" in fastly.refused("secret-store", "create", "--name=keys")
    assert named(fastly.json("secret-store", "list"), "keys")[0]["id"] == store
    assert fastly.json("secret-store", "describe", f"--store-id={store}")["name"] == "keys"
    fastly("secret-store", "delete", f"--store-id={store}")
    assert "404" in fastly.refused("secret-store", "describe", f"--store-id={store}")


def test_secrets_are_sealed_on_their_way_and_never_come_back(
    fastly: FastlyCli, server: ApiServer
) -> None:
    store = made(fastly, "secret-store", "create", "--name=sealed")
    where, entry = f"--store-id={store}", "secret-store-entry"
    (fastly.folder / "value").write_bytes(b"hunter2")
    create = (entry, "create", where, "--name=api")
    fastly(*create, "--file=value", env=OWN_KEY)
    assert revealed(server, store) == {"api": b"hunter2"}
    again = fastly.run(*create, "--file=value", env=OWN_KEY)
    assert (again.code != 0, "409" in again.output) == (True, True)
    fastly(*create, "--stdin", "--recreate", env=OWN_KEY, given=b"changed")
    assert revealed(server, store) == {"api": b"changed"}
    other = (entry, "create", where, "--name=other", "--stdin")
    absent = fastly.run(*other, "--recreate", env=OWN_KEY, given=b"x")
    assert (absent.code != 0, "404" in absent.output) == (True, True)
    fastly(*other, "--recreate-allow", env=OWN_KEY, given=b"x")
    described = fastly("secret-store-entry", "describe", where, "--name=api")
    listed = fastly.json("secret-store-entry", "list", where)
    assert [one["name"] for one in listed["data"]] == ["api", "other"]
    assert "changed" not in described + str(listed)
    fastly("secret-store-entry", "delete", where, "--name=api")
    assert revealed(server, store) == {"other": b"x"}


def revealed(server: ApiServer, store: str) -> dict[str, bytes]:
    return server.run(
        lambda: server.around.catalogue.read(lambda tx: dict(entries.reveal(tx, store)))
    )


# ACLs -----------------------------------------------------------------------------------------


def test_compute_acls_are_made_changed_looked_up_and_deleted(fastly: FastlyCli) -> None:
    acl = made(fastly, "compute", "acl", "create", "--name=blocked")
    where = f"--acl-id={acl}"
    assert "409" in fastly.refused("compute", "acl", "create", "--name=blocked")
    assert named(fastly.json("compute", "acl", "list-acls")["data"], "blocked")[0]["id"] == acl
    assert fastly.json("compute", "acl", "describe", where)["name"] == "blocked"
    fastly(
        "compute", "acl", "update", where,
        "--operation=create", "--prefix=192.0.2.0/24", "--action=BLOCK",
    )  # fmt: skip
    changes = {
        "entries": [
            {"op": "create", "prefix": "192.0.2.7/32", "action": "ALLOW"},
            {"op": "create", "prefix": "2001:db8::/32", "action": "BLOCK"},
        ]
    }
    (fastly.folder / "batch.json").write_text(json.dumps(changes))
    fastly("compute", "acl", "update", where, "--file=batch.json")
    found = fastly.json("compute", "acl", "lookup", where, "--ip=192.0.2.7")
    assert found == {"prefix": "192.0.2.7/32", "action": "ALLOW"}
    found = fastly.json("compute", "acl", "lookup", where, "--ip=192.0.2.8")
    assert found == {"prefix": "192.0.2.0/24", "action": "BLOCK"}
    assert "192.0.3.1" in fastly("compute", "acl", "lookup", where, "--ip=192.0.3.1")
    listed = fastly.json("compute", "acl", "list-entries", where, "--limit=1")
    prefixes = [one["prefix"] for one in listed]
    assert prefixes == ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"]
    fastly("compute", "acl", "delete", where)
    assert "404" in fastly.refused("compute", "acl", "describe", where)


# What a version of a service has --------------------------------------------------------------


def made_service(fastly: FastlyCli, name: str) -> tuple[str, str]:
    """Flags that name a new service and its first version."""
    service = fastly("service", "create", "--name", name).split()[-1]
    return f"--service-id={service}", "--version=1"


def test_dictionaries_and_their_items(fastly: FastlyCli) -> None:
    service, version = made_service(fastly, "with-dictionaries")
    of = ("service", "dictionary")
    fastly(*of, "create", service, version, "--name=colours")
    assert "409" in fastly.refused(*of, "create", service, version, "--name=colours")
    assert "501" in fastly.refused(*of, "create", service, version, "--name=w", "--write-only")
    listed = named(fastly.json(*of, "list", service, version), "colours")
    dictionary = f"--dictionary-id={listed[0].get('DictionaryID') or listed[0]['id']}"
    assert "colours" in fastly(*of, "describe", service, version, "--name=colours")
    item = ("service", "dictionary-entry")
    fastly(*item, "create", service, dictionary, "--key=sky/1", "--value=blue")
    fastly(*item, "update", service, dictionary, "--key=sky/1", "--value=grey")
    fastly(*item, "update", service, dictionary, "--key=sea", "--value=green")
    described = fastly(*item, "describe", service, dictionary, "--key=sky/1")
    assert "grey" in described
    batch = {"items": [{"op": "delete", "item_key": "sea"},
                       {"op": "upsert", "item_key": "sun", "item_value": "gold"}]}  # fmt: skip
    (fastly.folder / "batch.json").write_text(json.dumps(batch))
    fastly(*item, "update", service, dictionary, "--file=batch.json")
    text = fastly(*item, "list", service, dictionary, "--per-page=1")
    assert ("sky/1" in text, "sun" in text, "sea" in text) == (True, True, False)
    fastly(*item, "delete", service, dictionary, "--key=sun")
    fastly(*of, "update", service, version, "--name=colours", "--new-name=paints")
    assert "grey" in fastly(*item, "list", service, dictionary)
    described = fastly("--verbose", *of, "describe", service, version, "--name=paints")
    assert "paints" in described
    fastly(*of, "delete", service, version, "--name=paints")
    assert "404" in fastly.refused(*item, "list", service, dictionary)


def test_service_acls_and_their_entries(fastly: FastlyCli) -> None:
    service, version = made_service(fastly, "with-acls")
    of, entry = ("service", "acl"), ("service", "acl-entry")
    fastly(*of, "create", service, version, "--name=blocked")
    listed = named(fastly.json(*of, "list", service, version), "blocked")
    acl = f"--acl-id={listed[0].get('ACLID') or listed[0]['id']}"
    assert "blocked" in fastly(*of, "describe", service, version, "--name=blocked")
    fastly(*entry, "create", service, acl, "--ip=192.0.2.0", "--subnet=24", "--comment=the lab")
    fastly(*entry, "create", service, acl, "--ip=192.0.2.7", "--negated")
    found = fastly.json(*entry, "list", service, acl)
    by_address = {one["IP"]: one for one in found}
    assert by_address["192.0.2.0"]["Subnet"] == 24
    assert by_address["192.0.2.0"]["Comment"] == "the lab"
    assert by_address["192.0.2.7"]["Negated"] is True
    network = f"--id={by_address['192.0.2.0']['EntryID']}"
    fastly(*entry, "update", service, acl, network, "--comment=the office")
    described = fastly(*entry, "describe", service, acl, network)
    assert ("the office" in described, "24" in described) == (True, True)
    batch = {"entries": [{"op": "create", "ip": "198.51.100.0", "subnet": 24},
                         {"op": "delete", "id": by_address["192.0.2.7"]["EntryID"]}]}  # fmt: skip
    (fastly.folder / "batch.json").write_text(json.dumps(batch))
    fastly(*entry, "update", service, acl, "--file=batch.json")
    text = fastly(*entry, "list", service, acl, "--per-page=1")
    assert ("198.51.100.0" in text, "192.0.2.7" in text) == (True, False)
    fastly(*entry, "delete", service, acl, network)
    fastly(*of, "update", service, version, "--name=blocked", "--new-name=barred")
    assert "barred" in fastly(*of, "list", service, version)
    fastly(*of, "delete", service, version, "--name=barred")
    assert "404" in fastly.refused(*entry, "list", service, acl)


def test_resource_links(fastly: FastlyCli) -> None:
    service, version = made_service(fastly, "with-links")
    kv = made(fastly, "kv-store", "create", "--name=linked-kv")
    config = made(fastly, "config-store", "create", "--name=linked-config")
    link = ("service", "resource-link")
    fastly(*link, "create", service, version, f"--resource-id={kv}", "--name=cart")
    fastly(*link, "create", service, version, f"--resource-id={config}")
    found = fastly.json(*link, "list", service, version)
    kinds = {one["name"]: (one["resource_type"], one["resource_id"]) for one in found}
    assert kinds == {"cart": ("kv-store", kv), "linked-config": ("config", config)}
    one = next(item["id"] for item in found if item["name"] == "cart")
    assert kv in fastly(*link, "describe", service, version, f"--id={one}")
    fastly(*link, "update", service, version, f"--id={one}", "--name=basket")
    assert "basket" in fastly(*link, "list", service, version)
    services = fastly.json("config-store", "list-services", f"--store-id={config}")
    assert len(services) == 1
    fastly(*link, "delete", service, version, f"--id={one}")
    assert "basket" not in fastly(*link, "list", service, version)
    unknown = fastly.refused(*link, "create", service, version, "--resource-id=nothing")
    assert "404" in unknown
