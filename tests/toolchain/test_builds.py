"""Every guest below `tests/guests` builds with its real toolchain and is what it claims to be."""

from __future__ import annotations

import concurrent.futures
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.support import guests, rust, toolchain, wasm_sections
from tests.support.guests import Family

pytestmark = pytest.mark.toolchain

# The languages that the project promises to serve; a toolchain that vanishes must not go unnoticed.
EXPECTED = {
    "js/hello", "js/echo", "js/rewrite", "js/inspect",
    "js/fetch", "js/stores", "js/limiter", "js/reuse", "js/dynamic", "js/hints", "js/hono",
    "rust/platform", "rust/reuse",
    "as/hello", "as/pass",
    "c/cgi", "c/fastly", "c/preview1", "c/pass", "c/kvget", "c/fanout",
    "zig/cgi",
    "go/cgi", "go/platform",
    "wat/hello", "wat/echo",
}  # fmt: skip

WASI = "wasi_snapshot_preview1"
# What each guest must ask for; a build whose imports lost these tests nothing any more.
NEEDED = {
    "js/hello": {("fastly_http_req", "body_downstream_get"), (WASI, "poll_oneoff")},
    "as/hello": {("fastly_http_resp", "send_downstream"), (WASI, "fd_write")},
    "c/fastly": {("fastly_http_body", "read"), ("fastly_http_resp", "send_downstream")},
    "c/cgi": {(WASI, "environ_get"), (WASI, "fd_read"), (WASI, "fd_write")},
    "c/preview1": {(WASI, "poll_oneoff"), (WASI, "random_get"), (WASI, "sched_yield")},
    "c/kvget": {("fastly_kv_store", "lookup"), ("fastly_kv_store", "lookup_wait_v2")},
    "c/fanout": {("fastly_http_req", "send_async"), ("fastly_http_req", "pending_req_select")},
    "as/pass": {("fastly_http_req", "pending_req_wait"), ("fastly_dictionary", "get")},
    "rust/platform": {("fastly_abi", "init"), ("fastly_http_req", "send_async_streaming")},
    "go/platform": {("fastly_http_req", "send_v2"), ("fastly_kv_store", "insert")},
    "zig/cgi": {(WASI, "environ_get"), (WASI, "fd_pwrite")},
    "go/cgi": {(WASI, "poll_oneoff"), (WASI, "random_get")},
    "wat/hello": {("fastly_http_resp", "header_insert")},
}


def sections(name: str) -> wasm_sections.Sections:
    return wasm_sections.read(guests.build(name).read_bytes())


def test_every_promised_guest_is_there_and_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    built = {guest.name: guests.build(guest.name) for guest in guests.guests()}
    with capsys.disabled():
        print("\nbuilt guests:")
        for name, path in built.items():
            print(f"  {name:14} {path.stat().st_size:>10,} bytes")
    assert set(built) >= EXPECTED


@pytest.mark.parametrize("guest", guests.guests(), ids=lambda guest: guest.name)
def test_a_guest_is_a_module_that_starts_and_asks_only_for_its_family(guest: guests.Guest) -> None:
    found = sections(guest.name)
    assert found.exports["_start"] == "func"
    assert found.exports["memory"] == "memory"
    modules = {entry.module for entry in found.imports}
    match guest.family:
        case Family.WASI:
            assert modules == {WASI}
        case Family.FASTLY:
            assert "fastly_http_resp" in modules
            assert all(module == WASI or module.startswith("fastly_") for module in modules)
    asked = {(entry.module, entry.name) for entry in found.imports}
    assert asked >= NEEDED.get(guest.name, set())


def test_the_javascript_sdk_always_imports_the_same_set() -> None:
    hello, inspect = sections("js/hello"), sections("js/inspect")
    assert set(hello.imports) == set(inspect.imports)
    fastly = [entry for entry in hello.imports if entry.module != WASI]
    assert (len(fastly), len(hello.imports) - len(fastly)) == (159, 22)


def test_the_smallest_proxy_is_three_hostcalls() -> None:
    fastly = [entry for entry in sections("c/pass").imports if entry.module != WASI]
    assert len(fastly) == 3


def test_go_imports_a_function_twice_so_that_linking_by_name_is_tested() -> None:
    counts = Counter((entry.module, entry.name) for entry in sections("go/cgi").imports)
    assert counts[WASI, "fd_write"] == 2


def test_building_again_gives_the_same_file_and_runs_no_tool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = guests.build("c/fastly")
    monkeypatch.setattr(toolchain, "run", None)
    assert guests.build("c/fastly") == first


def test_two_builds_at_once_make_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_GUEST_CACHE", str(tmp_path / "cache"))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(guests.build, ["wat/hello"] * 8))
    assert len(paths) == 1
    assert sorted(tmp_path.glob("cache/[!.]*.wasm")) == sorted(paths)
    assert not list(tmp_path.glob("cache/.build-*"))


def test_a_changed_source_is_built_anew_and_a_broken_one_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_GUEST_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "small.wat"
    source.write_text("(module)")
    before = guests.build_source(source)
    source.write_text("(module (memory 1))")
    assert guests.build_source(source) != before
    source.write_text("(module (nonsense))")
    with pytest.raises(toolchain.BuildFailed, match=r"small\.wat"):
        guests.build_source(source)


def test_a_toolchain_that_is_missing_is_an_error_that_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = guests.Recipe(".wat", ("no-such-toolchain",), lambda source, out, work: None)
    monkeypatch.setitem(guests.RECIPES, "wat", recipe)
    with pytest.raises(toolchain.MissingTool, match=r"no-such-toolchain.*make test"):
        guests.build("wat/hello")


def test_rust_that_is_missing_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_RUST_BIN", str(tmp_path))
    with pytest.raises(toolchain.MissingTool, match=r"cargo does not exist.*apt-get install.*-web"):
        rust.version()
    for name in ("cargo", "rustc"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho /nowhere\n")
        program.chmod(0o755)
    with pytest.raises(toolchain.MissingTool, match=r"/nowhere/\S+ does not exist.*rust-web-src"):
        rust.version()


def test_rust_guests_that_are_built_at_once_are_not_taken_for_each_other(tmp_path: Path) -> None:
    def build(word: str) -> bytes:
        folder = tmp_path / word
        (folder / "work").mkdir(parents=True)
        source, out = folder / "guest.rs", folder / "out.wasm"
        source.write_text(f'fn main() {{ println!("the word is {word}"); }}')
        rust.build(source, out, folder / "work")
        return out.read_bytes()

    words = ("larch", "maple")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for word, program in zip(words, pool.map(build, words), strict=True):
            assert b"the word is " + word.encode() in program


def test_the_rust_crates_are_locked_by_hash_and_come_from_one_registry() -> None:
    locked = tomllib.loads((rust.PACKAGE / "Cargo.lock").read_text())["package"]
    wanted = tomllib.loads((rust.PACKAGE / "Cargo.toml").read_text())["dependencies"]
    versions = {entry["name"]: entry["version"] for entry in locked}
    for name, version in wanted.items():
        assert version == f"={versions[name]}"
    foreign = [entry for entry in locked if entry["name"] != "guest"]
    assert len(foreign) > 50
    for entry in foreign:
        assert re.fullmatch("[0-9a-f]{64}", entry["checksum"]), entry
    assert len({entry["source"] for entry in foreign}) == 1


def test_the_official_cli_is_there_and_runs(tmp_path: Path) -> None:
    wanted = json.loads((toolchain.CLI_PACKAGES / "package.json").read_text())["dependencies"]
    printed = toolchain.run([toolchain.fastly_cli(), "version"], cwd=tmp_path)
    assert f"v{wanted['@fastly/cli']} " in printed


def test_an_unknown_guest_is_answered_with_the_known_names() -> None:
    with pytest.raises(KeyError, match="js/hello"):
        guests.build("js/helo")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begins with"),
        (b"\0asm\x0d\x00\x01\x00", "not a core wasm module"),
        (wasm_sections.HEADER + b"\x02\x7f\x01", "ends inside"),
    ],
)
def test_what_is_no_core_module_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wasm_sections.read(data)
