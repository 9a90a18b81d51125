"""Reading a `fastly.toml`: Viceroy's shapes, ours, and every mistake at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from textwrap import dedent

import pytest

from edge.dev.manifest import LOCAL_LIMITS, Manifest, read_manifest
from edge.errors import ConfigError
from edge.local.faults import Fault
from edge.local.world import Seed
from edge.model.backend import MockHealth
from edge.model.service import Service
from edge.settings import ShieldSite
from edge.upstream.fetch import Cause

PEM = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, text: str, env: Mapping[str, str] | None = None) -> Manifest:
    (folder / "fastly.toml").write_text(dedent(text))
    return read_manifest(folder / "fastly.toml", folder / "app.wasm", env or {})


def service(folder: Path, text: str, env: Mapping[str, str] | None = None) -> Service:
    """The one service of a manifest."""
    (only,) = read(folder, text, env).world.services
    return only


def problems(folder: Path, text: str, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, env)
    return [str(problem) for problem in caught.value.problems]


def test_no_manifest_is_an_empty_one(tmp_path: Path) -> None:
    manifest = read_manifest(None, tmp_path / "app.wasm", {})
    (only,) = manifest.world.services
    assert (only.name, only.module) == ("app", tmp_path / "app.wasm")
    assert only.limits == LOCAL_LIMITS
    assert manifest.files == {tmp_path / "app.wasm"}
    assert str(manifest.world.settings.egress.allow[0]) == "*"
    assert manifest.world.settings.egress.private_networks


def test_the_project_gives_the_service_its_name_if_it_can(folder: Path) -> None:
    assert service(folder, 'name = "my-shop"').name == "my-shop"
    assert service(folder, 'name = "my shop!"').name == "app"


@pytest.mark.parametrize("version", ["1", "2", "3", '"0.1.0"'])
def test_manifests_up_to_version_3_are_read(folder: Path, version: str) -> None:
    assert read(folder, f"manifest_version = {version}").world.services


def test_a_newer_manifest_is_refused(folder: Path) -> None:
    assert problems(folder, "manifest_version = 4") == [
        "manifest_version: 4 is newer than 3, the newest that is understood"
    ]


def test_a_backend_has_all_that_viceroy_reads(folder: Path) -> None:
    (folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n")
    text = f"""
        [local_server.backends.origin]
        url = "https://Origin.example.com:8443/base/"
        override_host = "www.example.com"
        cert_host = "cert.example.com"
        use_sni = false
        grpc = true
        first_byte_timeout_ms = 1500
        between_bytes_timeout_ms = 250
        health = "unhealthy"
        ca_certificate = ["{PEM}", {{ value = "{PEM}" }}]
        client_certificate = {{ certificate = "{PEM}", key_file = "key.pem" }}
    """
    backend = service(folder, text).backends["origin"]
    assert str(backend.url) == "https://origin.example.com:8443/base"
    assert (backend.override_host, backend.cert_host) == ("www.example.com", "cert.example.com")
    assert (backend.use_sni, backend.grpc) == (False, True)
    assert (backend.first_byte_timeout, backend.between_bytes_timeout) == (1.5, 0.25)
    assert backend.health is MockHealth.UNHEALTHY
    assert backend.ca_certificate is not None
    assert backend.ca_certificate.count("BEGIN CERTIFICATE") == 2
    assert backend.client_certificate is not None
    assert backend.client_certificate.key.reveal().startswith(b"-----BEGIN PRIVATE KEY")
    assert folder / "key.pem" in read(folder, text).files


def test_a_backend_of_the_manifest_is_the_developers_word(folder: Path) -> None:
    text = '[local_server.backends.here]\nurl = "http://127.0.0.1:8080"'
    backend = service(folder, text).backends["here"]
    assert not backend.dynamic
    assert (backend.url.tls, backend.url.port) == (False, 8080)


def test_everything_wrong_is_said_at_once_with_its_path(folder: Path) -> None:
    found = problems(
        folder,
        """
        [local_server.backends.a]
        urll = "http://x"
        use_sni = "yes"
        [local_server.backends.b]
        url = "ftp://x"
        first_byte_timeout_ms = -1
        override_host = " "
        [local_server.config_stores.c]
        format = "yaml"
        [local_server.kv_stores]
        d = [{ key = "k" }, { data = "v" }, { key = "k", file = "absent.bin" }]
        [local_server.limits]
        cpu = "fast"
        """,
    )
    where = [line.partition(": ")[0] for line in found]
    assert where == [
        "local_server.backends.a.urll",
        "local_server.backends.a.url",
        "local_server.backends.a.use_sni",
        "local_server.backends.b.url",
        "local_server.backends.b.override_host",
        "local_server.backends.b.first_byte_timeout_ms",
        "local_server.config_stores.c.format",
        "local_server.kv_stores.d[0]",
        "local_server.kv_stores.d[1].key",
        "local_server.kv_stores.d[2].file",
        "local_server.limits.cpu",
    ]
    assert "did you mean url?" in found[0]


@pytest.mark.parametrize("table", ["config_stores", "dictionaries"])
def test_config_stores_are_inline_or_json(folder: Path, table: str) -> None:
    (folder / "b.json").write_text('{"x": "y"}')
    text = f"""
        [local_server.{table}.a]
        format = "inline-toml"
        [local_server.{table}.a.contents]
        "a.b" = "c"
        [local_server.{table}.b]
        format = "json"
        file = "b.json"
    """
    assert service(folder, text).config_stores == {"a": {"a.b": "c"}, "b": {"x": "y"}}
    assert folder / "b.json" in read(folder, text).files


def test_a_config_store_keeps_to_the_limits_of_the_platform(folder: Path) -> None:
    (folder / "b.json").write_text(json.dumps({"k" * 257: "v", "long": "v" * 8001, "n": 1}))
    found = problems(folder, '[local_server.config_stores.b]\nformat = "json"\nfile = "b.json"')
    assert [line.rpartition(": ")[2] for line in found] == [
        "a key has at most 256 characters",
        "a value has at most 8000 characters",
        "must be text",
    ]


def test_one_store_under_two_spellings_is_a_mistake(folder: Path) -> None:
    text = """
        [local_server.config_stores.a]
        format = "inline-toml"
        contents = {}
        [local_server.dictionaries.a]
        format = "inline-toml"
        contents = {}
    """
    assert problems(folder, text) == ["local_server.dictionaries.a: is also one of config_stores"]


@pytest.mark.parametrize("table", ["kv_stores", "object_stores", "object_store"])
def test_kv_stores_have_seeds(folder: Path, table: str) -> None:
    (folder / "value.bin").write_bytes(b"\x00\xff")
    (folder / "more.json").write_text(
        '{"p": "q", "o": {"data": "d", "metadata": "m"}, "f": {"file": "value.bin"}}'
    )
    manifest = read(
        folder,
        f"""
        [local_server.{table}]
        one = [
          {{ key = "a", data = "b", metadata = "m" }},
          {{ key = "c", file = "value.bin" }},
          {{ key = "d", path = "value.bin" }},
        ]
        two = {{ file = "more.json", format = "json" }}
        empty = []
        """,
    )
    assert manifest.world.seeds == {
        "one": {"a": Seed(b"b", b"m"), "c": Seed(b"\x00\xff"), "d": Seed(b"\x00\xff")},
        "two": {"p": Seed(b"q"), "o": Seed(b"d", b"m"), "f": Seed(b"\x00\xff")},
        "empty": {},
    }
    assert set(manifest.world.services[0].kv_stores) == {"one", "two", "empty"}
    assert {folder / "value.bin", folder / "more.json"} < manifest.files


def test_secrets_come_from_text_files_and_the_environment(folder: Path) -> None:
    (folder / "secret.bin").write_bytes(b"\x01\n")
    (folder / "all.json").write_text('{"j": "k"}')
    text = """
        [local_server.secret_stores]
        keys = [
          { key = "text", data = "plain" },
          { key = "mixed", data = "Bearer ${TOKEN}" },
          { key = "file", file = "secret.bin" },
          { key = "env", env = "TOKEN" },
          { key = "unset", env = "NOBODY" },
        ]
        more = { file = "all.json", format = "json" }
    """
    manifest = read(folder, text, {"TOKEN": "t0ken"})
    stores = manifest.world.services[0].secret_stores
    assert {key: secret.reveal() for key, secret in stores["keys"].items()} == {
        "text": b"plain",
        "mixed": b"Bearer t0ken",
        "file": b"\x01\n",
        "env": b"t0ken",
        "unset": b"",
    }
    assert stores["more"]["j"].reveal() == b"k"
    assert len(manifest.warnings) == 1
    assert "NOBODY is not set" in manifest.warnings[0]
    assert "t0ken" not in repr(manifest)


def test_no_message_about_a_secret_quotes_it(folder: Path) -> None:
    found = problems(
        folder,
        """
        [local_server.secret_stores]
        keys = [
          { key = "a", data = "s3cret", env = "X" },
          { key = "b c", data = "s3cret" },
          { key = "d", data = "s3cret ${NOBODY}" },
        ]
        """,
    )
    assert len(found) == 3
    assert "s3cret" not in " ".join(found)
    assert "NOBODY is not set" in found[2]


def test_the_servers_own_token_is_not_handed_on(folder: Path) -> None:
    text = """
        [local_server.secret_stores]
        keys = [{ key = "a", data = "${EDGE_ADMIN_TOKEN}" }]
    """
    assert "is not set" in problems(folder, text, {"EDGE_ADMIN_TOKEN": "x"})[0]


def test_places_devices_and_shields_are_read(folder: Path) -> None:
    manifest = read(
        folder,
        """
        [local_server.geolocation]
        use_default_loopback = false
        format = "inline-toml"
        [local_server.geolocation.addresses."2001:DB8::1"]
        city = "Paris"
        as_number = 64496
        latitude = 48.9
        [local_server.device_detection]
        format = "inline-toml"
        [local_server.device_detection.user_agents."My Phone"]
        device = { is_mobile = true }
        [local_server.shielding_sites]
        here = "local"
        there = { encrypted = "https://t.example/", unencrypted = "http://t.example/" }
        """,
    )
    world = manifest.world
    assert not world.default_loopback
    place = json.loads(world.settings.geolocation.addresses["2001:db8::1"])
    assert place == {"city": "Paris", "as_number": 64496, "latitude": 48.9}
    agents = world.settings.device_detection.user_agents
    assert json.loads(agents["My Phone"]) == {"device": {"is_mobile": True}}
    assert world.settings.shielding_sites == {
        "here": ShieldSite(local=True),
        "there": ShieldSite(False, "https://t.example", "http://t.example"),
    }


def test_places_come_from_json_too(folder: Path) -> None:
    (folder / "geo.json").write_text('{"192.0.2.1": {"city": "Lund"}, "nowhere": {}}')
    found = problems(folder, '[local_server.geolocation]\nformat = "json"\nfile = "geo.json"')
    assert found == [
        "local_server.geolocation.nowhere: 'nowhere' does not appear to be an IPv4 or IPv6 address"
    ]


@pytest.mark.parametrize("value", ['"acl.json"', '{ file = "acl.json" }'])
def test_access_lists_come_from_files(folder: Path, value: str) -> None:
    (folder / "acl.json").write_text('{"entries": [{"prefix": "192.0.2.0/24", "action": "BLOCK"}]}')
    (entry,) = service(folder, f"[local_server.acls]\nbad = {value}").acls["bad"]
    assert (entry.prefix, entry.action) == (ip_network("192.0.2.0/24"), "BLOCK")


def test_keys_that_count_as_valid_are_listed(folder: Path) -> None:
    text = '[local_server]\nfake_valid_fastly_keys = ["a", "b"]'
    assert read(folder, text).world.valid_keys == {"a", "b"}


# What Viceroy cannot be told ---------------------------------------------------------------


def test_limits_are_those_of_an_edge_yaml(folder: Path) -> None:
    text = """
        [local_server.limits]
        cpu = "50ms"
        memory = "128MiB"
        subrequests = 3
    """
    limits = service(folder, text).limits
    assert (limits.cpu, limits.memory, limits.subrequests) == (0.05, 128 * 1024**2, 3)
    assert limits.wall == LOCAL_LIMITS.wall


def test_backends_can_be_told_to_be_ill(folder: Path) -> None:
    text = """
        [local_server.backends.slow]
        url = "http://127.0.0.1:1"
        inject = { latency_ms = 100, jitter_ms = 50, error_rate = 0.5 }
        [local_server.backends.dead]
        url = "http://127.0.0.1:1"
        inject = { cause = "dns_error" }
        [local_server.backends.well]
        url = "http://127.0.0.1:1"
    """
    assert read(folder, text).world.faults == {
        "app": {
            "slow": Fault(0.1, 0.05, 0.5),
            "dead": Fault(0, 0, 1.0, Cause.DNS_ERROR),
        }
    }


def test_several_services_share_what_they_do_not_have_of_their_own(folder: Path) -> None:
    world = read(
        folder,
        """
        name = "main"
        [local_server.backends.origin]
        url = "http://127.0.0.1:1"
        inject = { error_rate = 1 }
        [local_server.kv_stores]
        shared = []
        [local_server.services.api]
        file = "api.wasm"
        hosts = ["api.localhost", "*.api.localhost"]
        path = "/v1"
        [local_server.services.other]
        file = "other.wasm"
        hosts = ["other.localhost"]
        [local_server.services.other.backends.mine]
        url = "http://127.0.0.1:2"
        [local_server.services.other.kv_stores]
        own = []
        """,
    ).world
    main, api, other = world.services
    assert [service.name for service in world.services] == ["main", "api", "other"]
    assert [str(route) for route in main.routes] == ["* /"]
    assert [str(route) for route in api.routes] == ["api.localhost /v1", "*.api.localhost /v1"]
    assert api.module == folder / "api.wasm"
    assert set(api.backends) == {"origin"}
    assert set(other.backends) == {"mine"}
    assert api.kv_stores == {"shared": "shared"}
    assert other.kv_stores == {"own": "other.own"}
    assert {name: set(faults) for name, faults in world.faults.items()} == {
        "main": {"origin"}, "api": {"origin"}, "other": set(),
    }  # fmt: skip


def test_services_that_cannot_be_told_apart_are_refused(folder: Path) -> None:
    found = problems(
        folder,
        """
        [local_server.services.a]
        file = "a.wasm"
        hosts = ["x.localhost"]
        [local_server.services.b]
        file = "b.wasm"
        hosts = ["X.localhost"]
        [local_server.services.app]
        file = "c.wasm"
        """,
    )
    assert found == [
        'local_server.services.app.hosts: is missing; write hosts = ["api.localhost"]',
        "local_server.services.b: x.localhost / already leads to a",
    ]


def test_what_is_not_known_is_left_alone_with_a_word(folder: Path) -> None:
    manifest = read(
        folder,
        """
        [local_server]
        viceroy_version = "0.20.1"
        [local_server.pushpin]
        enable = true
        [local_server.novelty]
        x = 1
        """,
    )
    assert manifest.warnings == (
        "local_server.pushpin is left alone: there is no Pushpin here",
        "local_server.novelty is not a key that is known here",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "is not TOML"),
        ("local_server = 1", "local_server: must be a table, not a number"),
        ("[local_server]\nbackends = []", "local_server.backends: must be a table, not a list"),
        ("x = " + "[" * 5000, "nests too deep"),
        ("[local_server]\nkv_stores = {a = 5}", "must be a list of items"),
    ],
)
def test_hostile_and_broken_documents_are_refused(folder: Path, text: str, said: str) -> None:
    assert any(said in problem for problem in problems(folder, text))


def test_an_absent_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "fastly.toml", tmp_path / "app.wasm", {})
