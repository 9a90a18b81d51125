"""Services in a document, and services deployed at run time: what is read and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import ConfigError, Problem
from edge.model.limits import DEFAULT_CEILINGS
from edge.model.parse import parse_config, parse_service
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Family, Service, UnknownImports

BASE = Path("/etc/edge")
FILES = {BASE / "key": b"from a file\n", BASE / "big": bytes(65537), Path("/dos"): b"line\r\n"}


def read_file(path: Path) -> bytes:
    try:
        return FILES[path]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", str(path)) from None


def services(text: str, **env: str) -> tuple[Service, ...]:
    body = "services:\n" + "\n".join(f"  {line}" for line in text.splitlines())
    config = parse_config(body, source="test", base=BASE, env=env, read_file=read_file)
    return config.services


def service(keys: str, **env: str) -> Service:
    (only,) = services(f"a: {{module: a.wasm, routes: [{{}}], {keys}}}", **env)
    return only


def problem(keys: str, **env: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        service(keys, **env)
    (only,) = caught.value.problems
    return only


def test_the_least_service_has_a_module_and_a_route() -> None:
    assert service("") == Service("a", BASE / "a.wasm", (Route("*", "/"),))


def test_every_key_of_a_service_is_read() -> None:
    found = service(
        "env: {A_1: '', B: 1.10}, config_stores: {one: {k: off}}, dictionaries: {two: {k: v}}, "
        "secret_stores: {s: {t: plain, e: {env: KEY}, f: {file: key}, d: {file: /dos}}}, "
        "log_endpoints: [audit, my log], family: wasi, unknown_imports: trap, server_timing: true",
        KEY="from the environment",
    )
    assert found.env == {"A_1": "", "B": "1.10"}
    assert found.config_stores == {"one": {"k": "off"}, "two": {"k": "v"}}
    assert {key: secret.reveal() for key, secret in found.secret_stores["s"].items()} == {
        "t": b"plain",
        "e": b"from the environment",
        "f": b"from a file",
        "d": b"line",
    }
    assert found.log_endpoints == ("audit", "my log")
    assert (found.family, found.unknown_imports) == (Family.WASI, UnknownImports.TRAP)
    assert found.server_timing


def test_secrets_are_not_in_any_repr() -> None:
    found = service("secret_stores: {s: {t: hunter2}}")
    assert "hunter2" not in repr(found)
    assert "hunter2" not in f"{found.secret_stores}"
    assert found.secret_stores["s"]["t"] == Secret(b"hunter2")
    assert found.secret_stores["s"]["t"] != Secret(b"hunter3")


@pytest.mark.parametrize(
    ("keys", "path", "said"),
    [
        ("modul: x", "services.a.modul", "did you mean module?"),
        ("limits: {cpu: 31s}", "services.a.limits.cpu", "31s is above the operator's ceiling"),
        ("limits: {cpus: 1s}", "services.a.limits.cpus", "did you mean cpu?"),
        ("env: {'A=B': x}", "services.a.env.A=B", "not the name of an environment variable"),
        ("env: {A: }", "services.a.env.A", "has no value"),
        ("env: {A: [x]}", "services.a.env.A", "one value, not a list"),
        ('env: {A: "x\\0y"}', "services.a.env.A", "NUL"),
        ("env: {A: '${EDGE_ADMIN_TOKEN}'}", "services.a.env.A", "server's own"),
        ("config_stores: [x]", "services.a.config_stores", "must be a mapping"),
        ("config_stores: {' ': {}}", "services.a.config_stores", "is not a name"),
        (
            "config_stores: {x: {}}, dictionaries: {x: {}}",
            "services.a.dictionaries.x",
            "also one of config_stores",
        ),
        ("secret_stores: {s: {k: {env: NOWHERE}}}", "services.a.secret_stores.s.k", "not set"),
        (
            "secret_stores: {s: {k: {env: EDGE_ADMIN_TOKEN}}}",
            "services.a.secret_stores.s.k",
            "server's own",
        ),
        (
            "secret_stores: {s: {k: {file: gone}}}",
            "services.a.secret_stores.s.k",
            "cannot read /etc/edge/gone: No such file",
        ),
        ("secret_stores: {s: {k: {file: big}}}", "services.a.secret_stores.s.k", "64KiB"),
        ("secret_stores: {s: {k: {vault: x}}}", "services.a.secret_stores.s.k", "{env: NAME}"),
        ("secret_stores: {s: {k: [hunter2]}}", "services.a.secret_stores.s.k", "must be text"),
        ("family: spin", "services.a.family", "not one of auto, fastly, wasi"),
    ],
)
def test_a_mistake_in_a_service_is_named(keys: str, path: str, said: str) -> None:
    found = problem(keys, EDGE_ADMIN_TOKEN="hunter2")
    assert (found.path, found.line) == (path, 2)
    assert said in found.message
    assert "hunter2" not in found.message


@pytest.mark.parametrize(
    ("routes", "path", "said"),
    [
        ("{}", "services.a.routes", "must be a list"),
        ("[]", "services.a.routes", "nothing would reach"),
        ("[x]", "services.a.routes[0]", "must be a mapping"),
        ("[{hots: x}]", "services.a.routes[0].hots", "did you mean host?"),
        ("[{host: 'a:1'}]", "services.a.routes[0].host", "port"),
        ("[{path: x}]", "services.a.routes[0].path", "begin with /"),
        ("[{path: {exakt: /x}}]", "services.a.routes[0].path.exakt", "did you mean exact?"),
        ("[{path: {exact: x}}]", "services.a.routes[0].path.exact", "begin with /"),
        ("[{}, {host: '*', path: /}]", "services.a.routes[1]", "services.a.routes[0]"),
    ],
)
def test_a_mistake_in_a_route_is_named(routes: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        services(f"a: {{module: m, routes: {routes}}}")
    assert any(
        found.path == path and said in found.message and found.line == 2
        for found in caught.value.problems
    )


def test_routes_are_read_in_both_forms() -> None:
    (found,) = services("a: {module: m, routes: [{host: A.example}, {path: {exact: /x}}]}")
    assert found.routes == (Route("a.example", "/"), Route("*", "/x", exact=True))


def test_two_services_cannot_have_the_same_route() -> None:
    with pytest.raises(ConfigError) as caught:
        services(
            "a: {module: m, routes: [{host: x.example, path: /y/}]}\n"
            "b:\n  module: m\n  routes:\n  - {host: z.example}\n  - {host: X.example, path: /y}"
        )
    (found,) = caught.value.problems
    assert (found.path, found.line) == ("services.b.routes[1]", 7)
    assert "services.a.routes[0]" in found.message


@pytest.mark.parametrize("name", ["_none", "-a", "a/b", "a b", "x" * 64, "é"])
def test_a_service_name_is_fit_for_urls_and_labels(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a service name"):
        services(f"'{name}': {{module: m, routes: [{{}}]}}")


def test_a_deployed_service_is_read_like_one_in_the_document() -> None:
    found = parse_service(
        "shop",
        {
            "routes": [{"host": "Shop.example", "path": "/x"}],
            "limits": {"cpu": "10ms"},
            "env": {"A": "${HOME}"},
        },
        module=Path("/var/lib/edge/shop.wasm"),
    )
    assert found.module == Path("/var/lib/edge/shop.wasm")
    assert found.routes == (Route("shop.example", "/x"),)
    assert found.limits.cpu == 0.01
    assert found.env == {"A": "${HOME}"}  # nothing is expanded for a deployer


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limits": {"memory": "2GiB"}}, "above the operator's ceiling of 1GiB"),
        ({"limits": {"memory": "128"}}, "has no unit"),
        ({"module": "/etc/passwd"}, "cannot be chosen"),
        ({"secret_stores": {"s": {"k": {"file": "/etc/shadow"}}}}, "cannot be read from a file"),
        ({"secret_stores": {"s": {"k": {"env": "HOME"}}}}, "HOME is not set"),
        ({"route": []}, "did you mean routes?"),
    ],
)
def test_a_deployer_reaches_neither_files_nor_environment_nor_past_ceilings(
    fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_service("a", {"routes": [{}], **fields}, module=Path("/m"), ceilings=DEFAULT_CEILINGS)
    (found,) = caught.value.problems
    assert said in found.message
