"""What can be deployed is recognised by its bytes; packages are read as the official CLI does."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from edge.catalogue.upload import Upload, read_upload
from edge.errors import ApiRefused, Refusal
from tests.support import toolchain
from tests.support.packages import EMPTY_MODULE, MANIFEST, archive, package

MOST = 1024 * 1024


def upload(data: bytes) -> Upload:
    return read_upload(data, max_module=MOST)


def refusal(data: bytes) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        upload(data)
    return caught.value


def test_a_module_is_taken_as_it_is() -> None:
    found = upload(EMPTY_MODULE)
    assert found.module == EMPTY_MODULE
    assert found.package.sha256 == hashlib.sha256(EMPTY_MODULE).hexdigest()
    assert found.package.archive_sha512 == hashlib.sha512(EMPTY_MODULE).hexdigest()
    assert found.package.size == 8
    assert found.package.files_hash == ""
    assert found.setup == {}


@pytest.mark.parametrize("text", [b"(module)", b"\n  (module)", b";; a comment\n(module)"])
def test_text_format_is_taken_as_text(text: bytes) -> None:
    assert upload(text).module == text


def test_a_package_gives_its_module_and_what_its_author_says() -> None:
    manifest = (
        b'name = "shop"\ndescription = "sells"\nauthors = ["a@example.com", "b"]\n'
        b'language = "rust"\nservice_id = "x"\n[local_server]\nanything = 1\n'
    )
    data = package(EMPTY_MODULE + b"\0", manifest)
    found = upload(data)
    assert found.module == EMPTY_MODULE + b"\0"
    assert found.package.name == "shop"
    assert found.package.description == "sells"
    assert found.package.authors == ("a@example.com", "b")
    assert found.package.language == "rust"
    assert found.package.archive_sha512 == hashlib.sha512(data).hexdigest()
    assert found.package.sha256 == hashlib.sha256(EMPTY_MODULE + b"\0").hexdigest()


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_each_way_of_writing_long_names_is_understood(form: int) -> None:
    deep = "demo/src/" + "d" * 90 + "/" + "f" * 60
    files = [
        ("demo/bin/main.wasm", EMPTY_MODULE),
        ("demo/fastly.toml", MANIFEST),
        (deep, b"1"),
        # only a prefix field, or an extended header, has room for this one
        ("demo/" + "e" * 140 if form != tarfile.USTAR_FORMAT else deep + "2", b"2"),
    ]
    expected = hashlib.sha512(
        b"".join(data for _, data in sorted(files, key=lambda one: one[0].encode()))
    ).hexdigest()
    assert upload(archive(files, form=form)).package.files_hash == expected


def test_names_that_are_not_ascii_are_understood() -> None:
    found = upload(package(others={"demo/src/größe.txt": b"x"}))
    assert found.package.name == "demo"


def test_a_directory_written_as_the_current_one_is_the_same_layout() -> None:
    assert upload(package(top="./demo")).package.name == "demo"


def test_setup_is_read_into_plain_values() -> None:
    manifest = b"""
name = "demo"
[setup.backends.origin]
address = "example.com"
port = 8080
description = "where from"
[setup.dictionaries.older.items.k]
value = "v"
[setup.config_stores.flags.items.banner]
value = "blue"
[setup.kv_stores.cart]
description = "carts"
[setup.object_stores.more.items.a]
file = "a.txt"
[setup.secret_stores.keys.entries.api]
description = "its key"
[setup.log_endpoints.audit]
provider = "s3"
[setup.products.fanout]
enable = true
"""
    assert upload(package(manifest=manifest)).setup == {
        "backends": {
            "origin": {"address": "example.com", "port": 8080, "description": "where from"}
        },
        "config_stores": {
            "older": {"items": {"k": {"value": "v"}}},
            "flags": {"items": {"banner": {"value": "blue"}}},
        },
        "kv_stores": {
            "cart": {"description": "carts"},
            "more": {"items": {"a": {"file": "a.txt"}}},
        },
        "secret_stores": {"keys": {"entries": {"api": {"description": "its key"}}}},
        "log_endpoints": {"audit": {"provider": "s3"}},
    }


def test_every_mistake_in_a_manifest_is_told_with_its_path() -> None:
    manifest = (
        b'name = 5\nauthors = "me"\n[setup.backends.a]\nport = 70000\n[setup.kv_stores]\nb = 1\n'
    )
    error = refusal(package(manifest=manifest))
    assert error.refusal is Refusal.PACKAGE_INVALID
    assert {problem.path for problem in error.problems} == {
        "name", "authors", "setup.backends.a.port", "setup.kv_stores.b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no bytes"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x7fELF....", "wasm32-wasip1"),
        (b"#!/bin/sh\n", "a script"),
        (b"--boundary\r\n", "--data-binary"),
        (b"BZh91AY", "bzip2"),
        (b"<html>", "begins with 3c 68 74 6d 6c 3e"),
        (b"hello", "neither a WebAssembly module"),
    ],
)
def test_what_is_sent_by_mistake_is_named(data: bytes, told: str) -> None:
    error = refusal(data)
    assert error.refusal is Refusal.PACKAGE_INVALID
    assert told in error.detail


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("bin/main.wasm", EMPTY_MODULE), ("fastly.toml", MANIFEST)],
        [("demo/main.wasm", EMPTY_MODULE), ("demo/fastly.toml", MANIFEST)],
        [("demo/bin/main.wasm", EMPTY_MODULE)],
        [("demo/fastly.toml", MANIFEST)],
        [("a/bin/main.wasm", EMPTY_MODULE), ("b/fastly.toml", MANIFEST)],
        [("a/b/bin/main.wasm", EMPTY_MODULE), ("a/b/fastly.toml", MANIFEST)],
        [
            ("demo/bin/main.wasm", EMPTY_MODULE),
            ("demo/fastly.toml", MANIFEST),
            ("beside.txt", b""),
        ],
    ],
)
def test_another_layout_is_refused_with_what_was_found(files: list[tuple[str, bytes]]) -> None:
    error = refusal(archive(files))
    assert error.refusal is Refusal.PACKAGE_INVALID
    assert "NAME/fastly.toml and NAME/bin/main.wasm" in error.detail
    for name, _ in files:
        assert name in error.detail


def test_a_package_whose_program_is_none_is_refused() -> None:
    assert "neither a WebAssembly module" in refusal(package(b"not wasm")).detail


def test_a_module_above_the_bound_is_too_large_in_either_form() -> None:
    large = EMPTY_MODULE + bytes(MOST)
    for data in (large, package(large)):
        error = refusal(data)
        assert error.refusal is Refusal.TOO_LARGE
        assert str(len(large)) in error.detail


@pytest.mark.toolchain
@pytest.mark.process
def test_the_official_clis_package_is_read_and_its_hash_is_ours(tmp_path: Path) -> None:
    (tmp_path / "fastly.toml").write_bytes(MANIFEST)
    (tmp_path / "app.wasm").write_bytes(EMPTY_MODULE)
    cli = toolchain.fastly_cli()
    home = {"HOME": str(tmp_path)}
    toolchain.run([cli, "compute", "pack", "--wasm-binary=app.wasm"], cwd=tmp_path, env=home)
    packed = tmp_path / "pkg" / "demo.tar.gz"
    found = upload(packed.read_bytes())
    assert found.module == EMPTY_MODULE
    assert found.package.files_hash in _hashed(tmp_path, packed)
    # the CLI compares this with what the server says, and skips the upload when they are equal
    assert len(found.package.files_hash) == 128


@pytest.mark.toolchain
@pytest.mark.process
def test_files_are_hashed_in_the_order_in_which_the_cli_hashes_them(tmp_path: Path) -> None:
    # `-` and upper case come before `/` and lower case; a tree walk would order them otherwise
    others = {
        "demo/src/a.rs": b"1", "demo/src-b/c.rs": b"2", "demo/src/B.rs": b"3",
        "demo/Cargo.toml": b"4", "demo/src/\u00e9.rs": b"5", "demo/empty": b"",
    }  # fmt: skip
    packed = tmp_path / "with-sources.tar.gz"
    packed.write_bytes(package(others=others))
    assert upload(packed.read_bytes()).package.files_hash in _hashed(tmp_path, packed)


def _hashed(home: Path, packed: Path) -> str:
    words = ["compute", "hash-files", "--skip-build", f"--package={packed}"]
    return toolchain.run([toolchain.fastly_cli(), *words], cwd=home, env={"HOME": str(home)})
