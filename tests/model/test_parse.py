"""The document as a whole: strictness, expansion, lines, and every problem at once."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from edge.errors import ConfigError, Problem
from edge.model.limits import DEFAULT_LIMITS
from edge.model.parse import Config, parse_config
from edge.settings import AccessLog, Listen, Settings

BASE = Path("/etc/edge")


def parse(text: str, **env: str) -> Config:
    return parse_config(text, source="edge.yaml", base=BASE, env=env)


def problems(text: str, **env: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, **env)
    return list(caught.value.problems)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "server:\nlimits:\n", "---\n"])
def test_an_empty_document_means_the_defaults(text: str) -> None:
    assert parse(text) == Config(Settings(state_dir=BASE / "var"))


def test_every_kind_of_setting_is_read() -> None:
    settings = parse("""
        server:
          listen: ["127.0.0.1:80", {address: "[::1]:443", proxy_protocol: true}]
          workers: 3
          timeouts: {head: 5s}
          connections: {max: 100}
          trusted_proxies: [10.0.0.0/8, 192.0.2.1]
        admin: {hosts: [Edge.Internal, localhost]}
        log: {access: off, file: logs/access.log}
        metrics: {listen: "127.0.0.1:9100", code: exact}
        pool: {slots: 10, memory_share: 50%}
        wasm: {exceptions: true, clock_resolution: 1ms}
        state_dir: /var/lib/edge
    """).settings
    assert settings.server.listen == (
        Listen("127.0.0.1", 80),
        Listen("::1", 443, proxy_protocol=True),
    )
    assert (settings.server.workers, settings.server.connections.max) == (3, 100)
    assert (settings.server.timeouts.head, settings.server.timeouts.body_idle) == (5.0, 30.0)
    assert settings.server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1"))
    assert settings.admin.hosts == ("edge.internal", "localhost")
    assert (settings.log.access, settings.log.file) == (AccessLog.OFF, BASE / "logs/access.log")
    assert settings.metrics.listen == Listen("127.0.0.1", 9100)
    assert (settings.pool.slots, settings.pool.memory_share) == (10, 0.5)
    assert (settings.wasm.exceptions, settings.wasm.clock_resolution) == (True, 0.001)
    assert settings.state_dir == Path("/var/lib/edge")


def test_the_words_for_nothing_are_read_as_none() -> None:
    settings = parse(
        "{server: {workers: auto}, log: {file: stdout}, metrics: {listen: none}}"
    ).settings
    assert settings.server.workers is None
    assert settings.log.file is None
    assert settings.metrics.listen is None


def test_limits_are_defaults_for_services_under_the_ceilings() -> None:
    config = parse("""
        limits: {cpu: 10ms}
        ceilings: {cpu: 1s}
        services:
          a: {module: a.wasm, routes: [{host: a.example}], limits: {wall: 1s}}
    """)
    limits = config.services[0].limits
    assert (limits.cpu, limits.wall, limits.memory) == (0.01, 1.0, DEFAULT_LIMITS.memory)


BAD = [
    ("severs: {}", "severs", 1, "did you mean server?"),
    ("xyzzy: 1", "xyzzy", 1, "known are: server, admin"),
    ("server:\n  lissten: x", "server.lissten", 2, "did you mean listen?"),
    ("server: {timeouts: {heads: 1s}}", "server.timeouts.heads", 1, "did you mean head?"),
    ("log: {access: jsn}", "log.access", 1, "did you mean json?"),
    ("server: {workers: many}", "server.workers", 1, "not a whole number"),
    ("server: {workers: 0}", "server.workers", 1, "below the least, 1"),
    ("server: {workers: }", "server.workers", 1, "has no value"),
    ("server: {workers: [1]}", "server.workers", 1, "one value, not a list"),
    ("server: []", "server", 1, "must be a mapping"),
    ("server: x", "server", 1, "must be a mapping"),
    ("[]", "", 1, "must be a mapping"),
    ("server: {listen: 8080}", "server.listen", 1, "no IP address"),
    ("server: {listen: 127.0.0.1}", "server.listen", 1, "no port"),
    ('server: {listen: "localhost:80"}', "server.listen", 1, "not an IP address"),
    ('server: {listen: "127.0.0.1:70000"}', "server.listen", 1, "'70000' is not a port"),
    ('server: {listen: "::1:80"}', "server.listen", 1, "brackets"),
    ('server: {listen: "[1.2.3.4]:80"}', "server.listen", 1, "brackets"),
    ("server: {listen: []}", "server.listen", 1, "nothing would be served"),
    ("server: {listen: [{}]}", "server.listen[0]", 1, "has no address"),
    ("server: {trusted_proxies: 10.0.0.1/8}", "server.trusted_proxies", 1, "10.0.0.0/8?"),
    ("server: {trusted_proxies: lb}", "server.trusted_proxies", 1, "not a network"),
    ("server: {drain: 30}", "server.drain", 1, "has no unit"),
    ("pool: {memory_share: 99%}", "pool.memory_share", 1, "above the most, 95%"),
    ("admin: {allow_plaintext: yes}", "admin.allow_plaintext", 1, "neither true nor false"),
    ('admin: {hosts: "*"}', "admin.hosts", 1, "wildcard"),
    ('admin:\n  listen: "0.0.0.0:1"', "admin.listen", 2, "admin.allow_plaintext"),
    (
        'server: {listen: {address: "127.0.0.1:1", proxy_protocol: true}}',
        "server.listen",
        1,
        "needs server.trusted_proxies",
    ),
    (
        'server: {listen: "127.0.0.1:8090"}',
        "server.listen[0]",
        1,
        "already the address of admin.listen",
    ),
    ("limits: {cpu: 1us}", "limits.cpu", 1, "below the least, 1ms"),
    ("limits: {memory: 8GiB}", "limits.memory", 1, "above the most, 4GiB"),
    ("limits: {cpu: 31s}", "limits.cpu", 1, "above the ceiling"),
    ("ceilings: {cpu: 10ms}", "ceilings.cpu", 1, "above the ceiling"),
    ('state_dir: ""', "state_dir", 1, "not a path"),
    ("log:\n  level: info\n  level: error", "log.level", 3, "the first is on line 2"),
    ("state_dir: !!python/name:os.system x", "state_dir", 1, "tag"),
    ("state_dir: ${NOWHERE}", "state_dir", 1, "NOWHERE is not set"),
    ("state_dir: ${NOWHERE", "state_dir", 1, "is not ${NAME}"),
    ("state_dir: ${EDGE_ADMIN_TOKEN}", "state_dir", 1, "server's own"),
    ("? [a]\n: 1", "", 1, "plain text"),
    ("'': 1", "", 1, "plain text"),
]


@pytest.mark.parametrize(("text", "path", "line", "said"), BAD)
def test_a_mistake_is_named_with_its_path_and_line(
    text: str, path: str, line: int, said: str
) -> None:
    (problem,) = problems(text, EDGE_ADMIN_TOKEN="hunter2")
    assert (problem.path, problem.line) == (path, line)
    assert said in problem.message
    assert "hunter2" not in problem.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("a: \x07", "not YAML"),
        ("a: \ud800", "not YAML"),
        ("a: 1\n b: 2", "not YAML"),
        ("services: {a: {routes: [{host: *}]}}", "must be quoted"),
        ("a: &x 1\nb: *x", "anchor"),
        ("a: *x", "alias"),
        ("a: 1\n---\nb: 1", "second document"),
        ("[" * 40 + "]" * 40, "nested deeper"),
        ("x: " + "y" * 2**20, "larger than"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_in_words(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert said in str(problem)


def test_all_mistakes_are_reported_at_once_in_the_order_of_their_lines() -> None:
    found = problems("""\
server:
  listen: nowhere
  worker: 1
log: {access: maybe}
services:
  shop: {module: a.wasm, routes: [{host: "a:80", path: x}], limits: {cpu: 1h}}
  bad name: {}
limits: {wall: fast}
""")
    assert [(problem.line, problem.path) for problem in found] == [
        (2, "server.listen"),
        (3, "server.worker"),
        (4, "log.access"),
        (6, "services.shop.routes[0].host"),
        (6, "services.shop.routes[0].path"),
        (6, "services.shop.limits.cpu"),
        (7, "services.bad name"),
        (7, "services.bad name.module"),
        (7, "services.bad name.routes"),
        (8, "limits.wall"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("x${A}y${B:-two}", "xoneytwo"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY:-}x", "x"),
        ("$${A}", "${A}"),
        ("$A $", "$A $"),
        ("${LOOP}", "${A}"),
        ("${TRICK}", "x, y: {z}\nw: 1"),
    ],
)
def test_variables_are_expanded_in_values_and_cannot_inject_structure(
    text: str, value: str
) -> None:
    config = parse(
        f'services: {{a: {{module: m, routes: [{{}}], env: {{V: "{text}"}}}}}}',
        A="one",
        EMPTY="",
        LOOP="${A}",
        TRICK="x, y: {z}\nw: 1",
    )
    assert config.services[0].env == {"V": value}


def test_variables_are_not_expanded_in_keys() -> None:
    (problem,) = problems('"${A}": 1', A="server")
    assert problem.path == "${A}"


def test_a_message_never_shows_what_a_variable_holds() -> None:
    found = problems(
        "limits: {cpu: '${A}'}\n"
        "server: {listen: ['${A}'], trusted_proxies: ['${A}'], workers: '${A}'}\n"
        "services: {a: {module: m, routes: [{host: '${A}:1', path: '${A}'}]}}\n",
        A="hunter2",
    )
    assert len(found) == 6
    assert "hunter2" not in "".join(str(problem) for problem in found)
    assert found[0].message == "${A} does not give a valid value"


def test_an_expanded_number_is_read_as_one() -> None:
    assert parse("server: {workers: '${N}'}", N="4").settings.server.workers == 4
