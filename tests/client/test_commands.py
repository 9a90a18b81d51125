"""Every command sends what it says and shows what came back."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from edge.client.cli import root
from edge.client.commands.observe import log_line
from tests.support.fake_api import FakeApi

Run = Callable[..., int]
SERVICE = {
    "name": "app", "id": "A" * 22, "owner": "api", "active": 2, "staged": None, "latest": 3,
    "canary": {"version": 3, "percent": 5.0}, "updated_at": "2020-01-01T00:00:00Z",
    "url": "http://app.localhost/", "domains": ["app.localhost"],
}  # fmt: skip
VERSION = {
    "version": 1, "locked": True, "active": False, "staged": False, "comment": "first",
    "created_at": "2020-01-01T00:00:00Z",
    "package": {"sha256": "ab" * 32, "size": 2048, "language": "rust"},
}  # fmt: skip
ACTIVATED = {"service": "app", "version": 2, "previous": 1, "percent": 100, "activation_ms": 3.5}


def test_lists_are_put_together_from_their_pages(
    run: Run, api: FakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    pages: dict[str, tuple[list[object], str | None]] = {
        "": ([{"name": "a"}], "a"), "a": ([{"name": "b"}], None),
    }  # fmt: skip
    api.on_page("GET /v1/services", pages)
    assert run("services", "--json") == 0
    assert json.loads(capfd.readouterr().out) == {
        "items": [{"name": "a"}, {"name": "b"}],
        "next": None,
    }


def test_a_server_whose_pages_go_in_a_circle_is_not_asked_for_ever(
    run: Run, api: FakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    api.on_page("GET /v1/services", {"": ([], "x"), "x": ([], "x")})
    assert run("services") == 0
    assert len(api.asked) == 2


def test_services_are_a_table(run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /v1/services", {"items": [SERVICE], "next": None})
    assert run("services") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "ACTIVE", "CANARY", "STAGED", "LATEST", "CHANGED", "OWNER"]
    assert row.split()[:6] == ["app", "2", "3", "(5", "%)", "-"]


def test_a_description_has_what_serves_and_what_it_opens(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/services/app", SERVICE)
    history = {"version": 2, "at": "2020-01-01T00:00:00Z", "actor": "me", "reason": "activate"}
    api.on("GET /v1/services/app/activations", {"items": [history]})
    definition = {"kv_stores": {"cart": "all"}, "backends": {"o": {"url": "https://x"}}}
    api.on("GET /v1/services/app/versions/2/definition", definition)
    assert run("describe", "app") == 0
    printed = capsys.readouterr().out
    assert "cart (all)" in printed
    assert "o https://x" in printed
    assert "me" in printed


def test_versions_and_their_states_are_listed(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/services/app/versions", {"items": [VERSION], "next": None})
    assert run("versions", "app") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:2] == ["1", "locked"]
    assert "2.0 KiB" in row
    assert "abababababab" in row


def test_activation_says_what_served_before(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /v1/services/app/versions/2/activate", ACTIVATED)
    api.on("POST /v1/services/app/rollback", {**ACTIVATED, "version": 1, "previous": 2})
    words = ("--percent", "5", "--max-error-rate", "0.1", "--min-requests", "7")
    assert run("activate", "app", "2", *words) == 0
    assert api.asked[0].document == {"percent": 5.0, "max_error_rate": 0.1, "min_requests": 7}
    assert run("rollback", "app") == 0
    assert capsys.readouterr().out.splitlines() == [
        "app version 2 is served; before it was 1 (3.5 ms)",
        "app version 1 is served; before it was 2 (3.5 ms)",
    ]


@pytest.mark.parametrize("verb", ["deactivate", "stage", "unstage"])
def test_verbs_of_a_version_are_posted(run: Run, api: FakeApi, verb: str) -> None:
    api.on(f"POST /v1/services/app/versions/2/{verb}", None, 204)
    assert run(verb, "app", "2") == 0


def test_a_link_is_a_new_version_that_is_served(run: Run, api: FakeApi) -> None:
    api.on("GET /v1/services/app", SERVICE)
    api.on("POST /v1/services/app/versions", {"version": 4}, 201)
    path = "/v1/services/app/versions/4"
    api.on(f"GET {path}/definition", {"kv_stores": {"a": "b"}, "env": {"X": "1"}})
    api.on(f"PUT {path}/definition", {})
    api.on(f"POST {path}/activate", ACTIVATED)
    assert run("link", "app", "kv", "carts", "--as", "cart") == 0
    assert api.asked[1].document == {"from": 3}
    assert api.asked[3].document == {"kv_stores": {"a": "b", "cart": "carts"}, "env": {"X": "1"}}
    assert api.calls[-1] == f"POST {path}/activate"


def test_a_definition_is_printed_and_set(
    run: Run, api: FakeApi, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/services/app", SERVICE)
    api.on("GET /v1/services/app/versions/2/definition", {"env": {"A": "1"}})
    api.on("PUT /v1/services/app/versions/3/definition", {"env": {}})
    assert run("definition", "app") == 0
    assert json.loads(capfd.readouterr().out) == {"env": {"A": "1"}}
    (home / "d.json").write_text('{"env": {}}')
    assert run("definition", "app", "3", "--set", home / "d.json") == 0
    assert api.asked[-1].document == {"env": {}}
    (home / "d.json").write_text("{")
    assert run("definition", "app", "3", "--set", home / "d.json") == 2


def test_a_service_is_renamed_and_deleted(run: Run, api: FakeApi) -> None:
    api.on("PATCH /v1/services/app", {**SERVICE, "name": "shop"})
    api.on("DELETE /v1/services/app", None, 204)
    assert run("rename", "app", "shop") == 0
    assert api.asked[0].document == {"name": "shop"}
    assert run("delete", "app", "--force") == 0
    assert api.asked[1].query == {"force": ["true"]}


def test_names_are_segments_of_a_path_whatever_is_in_them(run: Run, api: FakeApi) -> None:
    run("describe", "../../v1/tokens?x#y")
    assert api.calls == ["GET /v1/services/..%2F..%2Fv1%2Ftokens%3Fx%23y"]


def test_validation_exits_by_its_finding(
    run: Run, api: FakeApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "a.wasm").write_bytes(b"x")
    api.on("POST /v1/validate", {"ok": False, "problems": ["imports env.nope"], "size": 1})
    assert run("validate", home / "a.wasm") == 1
    assert "imports env.nope" in capsys.readouterr().out
    api.on("POST /v1/validate", {"ok": True, "size": 1})
    assert run("validate", home / "a.wasm", "--unknown-imports", "trap") == 0
    assert api.asked[-1].query == {"unknown_imports": ["trap"]}


@pytest.mark.parametrize(
    ("group", "path"),
    [
        ("kv", "/v1/kv"),
        ("config", "/v1/config-stores"),
        ("secret", "/v1/secret-stores"),
        ("acl", "/v1/acls"),
    ],
)
def test_stores_of_every_kind_are_listed_made_and_deleted(
    run: Run, api: FakeApi, group: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on(f"GET {path}", {"items": [{"name": "one", "entries": 5}], "next": None})
    api.on(f"PUT {path}/a%2Fb", {}, 201)
    api.on(f"DELETE {path}/a%2Fb", None, 204)
    assert run(group, "list") == 0
    assert "one" in capsys.readouterr().out
    assert run(group, "create", "a/b") == 0
    assert "is created" in capsys.readouterr().out
    assert run(group, "delete", "a/b", "--force") == 0
    assert api.asked[-1].query == {"force": ["true"]}


def test_values_of_kv_stores_pass_byte_for_byte(
    run: Run,
    api: FakeApi,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    value = bytes(range(256))
    path = "/v1/kv/cart/keys/a%20b"
    api.answers[f"GET {path}"] = lambda _: httpx.Response(200, content=value)
    api.on(f"PUT {path}", {"generation": "7"})
    api.on(f"DELETE {path}", None, 204)
    assert run("kv", "get", "cart", "a b") == 0
    assert capfdbinary.readouterr().out == value
    assert run("kv", "get", "cart", "a b", "-o", home / "out") == 0
    assert (home / "out").read_bytes() == value
    assert (
        run("kv", "put", "cart", "a b", "--file", home / "out", "--ttl", "9", "--mode", "add") == 0
    )
    assert (api.asked[-1].body, api.asked[-1].query) == (value, {"ttl": ["9"], "mode": ["add"]})
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"piped\n")))
    assert run("kv", "put", "cart", "a b") == 0
    assert api.asked[-1].body == b"piped\n"
    assert run("kv", "put", "cart", "a b", "x", "--file", home / "out") == 2
    assert run("kv", "rm", "cart", "a b") == 0


def test_keys_are_listed_by_prefix(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/kv/cart/keys", {"items": ["a1", "a2"], "next": None})
    assert run("kv", "keys", "cart", "--prefix", "a") == 0
    assert api.asked[0].query["prefix"] == ["a"]
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["KEY", "a1", "a2"]


def test_config_items_and_entries_of_lists(run: Run, api: FakeApi) -> None:
    items = "/v1/config-stores/flags/items"
    api.on(f"GET {items}", {"items": [{"key": "a", "value": "b"}], "next": None})
    api.on(f"PUT {items}/a", {}, 201)
    api.on(f"DELETE {items}/a", None, 204)
    assert run("config", "items", "flags") == 0
    assert run("config", "put", "flags", "a", "b") == 0
    assert api.asked[-1].body == b"b"
    assert run("config", "rm", "flags", "a") == 0
    api.on("PATCH /v1/acls/bad/entries", {"changed": 2})
    assert run("acl", "add", "bad", "block", "192.0.2.0/24", "::1") == 0
    assert api.asked[-1].document == {
        "entries": [
            {"op": "upsert", "prefix": "192.0.2.0/24", "action": "BLOCK"},
            {"op": "upsert", "prefix": "::1", "action": "BLOCK"},
        ]
    }
    assert run("acl", "rm", "bad", "::1") == 0
    assert api.asked[-1].document == {"entries": [{"op": "delete", "prefix": "::1"}]}


def test_a_secret_comes_from_standard_input_and_is_never_an_argument(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("PUT /v1/secret-stores/keys/secrets/api", {}, 201)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hush")))
    assert run("secret", "put", "keys", "api") == 0
    assert api.asked[0].body == b"hush"
    assert run("secret", "put", "keys", "api", "hush") == 2
    assert "hush" not in capsys.readouterr().out


def test_the_text_of_a_new_token_is_alone_on_the_output(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /v1/tokens", {"id": "x", "token": "edge_abc"}, 201)
    assert run("tokens", "create", "ci", "--days", "2", "--service", "app") == 0
    assert capsys.readouterr().out == "edge_abc\n"
    assert api.asked[0].document == {
        "name": "ci", "scopes": ["deploy"], "service": "app", "expires_in": 172800.0,
    }  # fmt: skip
    api.on("DELETE /v1/tokens/x", None, 204)
    assert run("tokens", "revoke", "x") == 0


def test_the_audit_log_is_asked_for_no_more_than_is_shown(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"at": "t", "actor": "me", "action": "version.activate", "after": {"a": 1}}
    api.on("GET /v1/audit", {"items": [one], "next": "5"})
    assert run("audit", "-n", "1", "--actor", "me", "--subject", "services/app", "--full") == 0
    assert api.asked[0].query == {"limit": ["1"], "actor": ["me"], "subject": ["services/app"]}
    assert '{"a": 1}' in capsys.readouterr().out
    assert len(api.asked) == 1


TIME = "2026-01-01T10:00:00.123456Z"
LINES = [
    {"time": TIME, "stream": "stdout", "message": "hi\x1b[2J", "version": 2, "truncated_bytes": 9},
    {"time": TIME, "stream": "access", "method": "GET", "host": "a.example", "path": "/",
     "status": 500, "outcome": "trap", "cpu_us": 1500, "wall_us": 2000, "detail": "unreachable"},
    {},
    {"dropped": 7},
]  # fmt: skip


def test_log_lines_are_shown_as_they_come_and_move_no_cursor(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    content = "".join(json.dumps(line) + "\n" for line in LINES)
    api.answers["GET /v1/services/app/logs"] = lambda _: httpx.Response(200, text=content)
    assert run("logs", "-f", "app", "--stream", "stdout", "-n", "5", "--version", "2") == 0
    assert api.asked[0].query == {
        "recent": ["5"], "stream": ["stdout"], "version": ["2"], "follow": ["true"],
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.splitlines() == [
        "10:00:00.123 v2 stdout hi\\x1b[2J ... 9 bytes more",
        "10:00:00.123 access GET a.example/ 500 trap cpu 1.5ms wall 2.0ms detail=unreachable",
        "... 7 lines were dropped: too many to keep up",
    ]


def test_log_lines_as_json_are_the_servers_own(
    run: Run, api: FakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    content = "".join(json.dumps(line) + "\n" for line in LINES)
    api.answers["GET /v1/services/app/logs"] = lambda _: httpx.Response(200, text=content)
    assert run("logs", "app", "--json") == 0
    shown = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert shown == [line for line in LINES if line]


def test_lines_of_all_services_name_theirs(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"time": TIME, "service": "app", "version": 1, "stream": "stdout", "message": "x"}
    api.answers["GET /v1/logs"] = lambda _: httpx.Response(200, json=line)
    assert run("logs") == 0
    assert capsys.readouterr().out == "10:00:00.123 app v1 stdout x\n"


def test_a_log_line_of_markup_is_text() -> None:
    assert log_line({"message": "[red]x[/red]"}).plain.endswith("[red]x[/red]")


STATS = {
    "service": "app", "version": None, "requests": 10, "in_flight": 1,
    "by_code": {"2xx": 9, "5xx": 1}, "by_outcome": {"ok": 9, "trap": 1},
    "wall_ms": {"p50": 1.25, "p99": 9.0}, "cpu_ms": {"p99": 2.0}, "memory_bytes": {"p99": 1048576},
    "backends": {"origin": {"requests": 3}},
}  # fmt: skip


def test_statistics_of_all_services_leave_out_what_was_deleted_meanwhile(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/services", {"items": [{"name": "app"}, {"name": "draft"}], "next": None})
    api.on("GET /v1/services/app/stats", STATS)
    assert run("stats") == 0
    (_, row) = capsys.readouterr().out.splitlines()
    assert row.split() == [
        "app", "10", "1", "9", "0", "1", "1", "1.2", "ms", "9.0", "ms", "2.0", "ms", "1.0", "MiB",
    ]  # fmt: skip


def test_statistics_of_one_service_are_facts(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /v1/services/app/versions/2/stats", STATS)
    assert run("stats", "app", "--version", "2") == 0
    assert run("stats", "--version", "2") == 2
    assert "requests 3" in capsys.readouterr().out


def test_a_live_table_shows_rates_between_two_looks(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    requests = iter((10, 30))

    def sleep(seconds: float) -> None:
        if clock[0] > 100:
            raise KeyboardInterrupt
        clock[0] += seconds

    def answer(_: object) -> httpx.Response:
        return httpx.Response(200, json={**STATS, "requests": next(requests)})

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    api.answers["GET /v1/services/app/stats"] = answer
    assert run("stats", "app", "--watch", "--interval", "4") == 130
    assert "5.0" in capsys.readouterr().out.split()


def test_an_invocation_is_described_and_its_body_shown(
    run: Run, api: FakeApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    logged = {"time": TIME, "stream": "stderr", "message": "oh"}
    body = base64.b64encode(b"\x00answer").decode()
    answer = {"status": 201, "headers": [["a", "b"]], "body_base64": body, "logs": [logged]}
    ending = {"outcome": "trap", "detail": "unreachable"}
    api.on("POST /v1/services/app/versions/7/invoke", {**answer, **ending})
    words = ("--host", "a.example", "-X", "PUT", "-H", "X: y:z", "-d", "sent", "-i")
    assert run("invoke", "app", "7", "/path?q=1", *words) == 0
    assert api.asked[0].document == {
        "method": "PUT", "path": "/path?q=1", "host": "a.example", "headers": [["X", "y:z"]],
        "body_base64": base64.b64encode(b"sent").decode(),
    }  # fmt: skip
    printed = capfdbinary.readouterr()
    assert printed.out == b"201\na: b\n\n\x00answer\n"
    assert printed.err.splitlines() == [
        b"10:00:00.123 stderr oh", b"warning: the sandbox ended with trap: unreachable",
    ]  # fmt: skip
    assert run("invoke", "app", "7", "path") == 2


def test_an_invocation_without_a_number_goes_to_what_is_served(run: Run, api: FakeApi) -> None:
    api.on("GET /v1/services/app", SERVICE)
    api.on("POST /v1/services/app/versions/2/invoke", {"status": 200, "body": "x"})
    assert run("invoke", "app") == 0
    assert api.asked[1].document == {"method": "GET", "path": "/", "headers": []}


def test_other_calls(run: Run, api: FakeApi, capfd: pytest.CaptureFixture[str]) -> None:
    api.on("POST /v1/purge", {"purged": 0, "detail": "there is no cache"})
    assert run("purge", "app", "--key", "a") == 0
    assert api.asked[0].document == {"service": "app", "keys": ["a"]}
    assert run("purge") == 0
    assert api.asked[1].document == {"all": True}
    api.on("GET /v1/status", {"ready": True, "workers": [{"slot": 0, "pid": 1}]})
    capfd.readouterr()
    assert run("status") == 0
    printed = capfd.readouterr().out.splitlines()
    assert [line.split() for line in printed if line] == [
        ["ready", "yes"], ["SLOT", "PID", "PHASE", "GENERATION"], ["0", "1", "-", "-"],
    ]  # fmt: skip
    assert run("api", "/v1/status") == 0
    assert '"ready": true' in capfd.readouterr().out
    assert run("api", "v1/status") == 2


def test_options_may_stand_before_and_behind_a_command(run: Run, api: FakeApi) -> None:
    api.on("GET /v1/kv", {"items": [], "next": None})
    assert run("--token", "a", "kv", "--server", "http://127.0.0.1:7", "list") == 0
    assert run("kv", "list", "--token", "b") == 0
    assert [one.headers["authorization"] for one in api.asked] == ["Bearer a", "Bearer b"]
    assert api.asked[0].headers["host"] == "127.0.0.1:7"


def test_every_command_says_what_it_does() -> None:
    def check(command: object, path: str) -> None:
        assert getattr(command, "help", None), path
        for name, one in getattr(command, "commands", {}).items():
            check(one, f"{path} {name}")

    check(root, "edge")


def test_dev_passes_its_words_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def start(words: list[str]) -> int:
        given.append(words)
        return 7

    monkeypatch.setattr("edge.dev.cli.main", start)
    assert run("dev", "run", "app.wasm", "-C", "fastly.toml", "--help", "--", "x") == 7
    assert given == [["run", "app.wasm", "-C", "fastly.toml", "--help", "--", "x"]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(run: Run, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    assert "_EDGE_COMPLETE" in capsys.readouterr().out


def test_names_are_completed_from_the_server(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_EDGE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        with pytest.raises(SystemExit):
            run()
        return [found.partition(",")[2] for found in capsys.readouterr().out.split()]

    api.on("GET /v1/services", {"items": [{"name": "shop"}, {"name": "app"}], "next": None})
    api.on("GET /v1/kv", {"items": [{"name": "cart"}], "next": None})
    assert complete("edge describe s") == ["shop"]
    assert complete("edge --token t kv keys c") == ["cart"]
    assert api.asked[-1].headers["authorization"] == "Bearer t"
    assert "services" in complete("edge ser")
    api.on_refused("GET /v1/services", "unauthorized", "no")
    assert complete("edge describe s") == []
