"""Archives that mean harm: refused in bounded time and memory, and nothing of them is written."""

from __future__ import annotations

import gzip
import io
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.catalogue import upload
from edge.catalogue.archive import MAX_EXTENDED_BYTES, MAX_MEMBERS, Bounds, read_archive
from edge.catalogue.manifest import MAX_MANIFEST_BYTES
from edge.catalogue.upload import read_upload
from edge.errors import ApiRefused, Refusal
from tests.support.packages import (
    BLOCK,
    EMPTY_MODULE,
    MANIFEST,
    archive,
    gzipped,
    header,
    member,
    package,
    record,
)

MIB = 1024 * 1024
MOST = 8 * MIB
GOOD = member(b"demo/bin/main.wasm", EMPTY_MODULE), member(b"demo/fastly.toml", MANIFEST)


def refusal(data: bytes) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        read_upload(data, max_module=MOST)
    return caught.value


def assert_invalid(data: bytes, told: str) -> None:
    error = refusal(data)
    assert error.refusal is Refusal.PACKAGE_INVALID, error.detail
    assert told in error.detail
    assert error.detail.isprintable()


def zeros(size: int) -> bytes:
    """`size` bytes, compressed as far as deflate goes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    return out.getvalue()


def test_the_blocks_of_these_tests_make_a_good_package() -> None:
    assert read_upload(gzipped(*GOOD), max_module=MOST).module == EMPTY_MODULE


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"K", b"S", b"M", b"V"])
def test_only_files_and_directories_are_taken(kind: bytes) -> None:
    assert_invalid(gzipped(*GOOD, header(b"demo/x", kind=kind)), "files and directories only")


def test_an_unknown_kind_of_member_is_refused() -> None:
    assert_invalid(gzipped(*GOOD, header(b"demo/x", kind=b"Z")), "unknown kind")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"../demo/x", "leads elsewhere"),
        (b"demo/../../etc/passwd", "leads elsewhere"),
        (b"demo\\..\\x", "leads elsewhere"),
        (b"/etc/passwd", "absolute"),
        (b"demo/\xff\xfe", "not UTF-8"),
        (b"demo/x/", "no name of a file"),
        (b".", "no name of a file"),
        (b"", "no name of a file"),
    ],
)
def test_a_name_that_leads_anywhere_else_is_refused(name: bytes, told: str) -> None:
    assert_invalid(gzipped(*GOOD, member(name, b"x")), told)


def test_a_name_with_control_characters_is_quoted_in_the_message() -> None:
    error = refusal(gzipped(*GOOD, header(b"demo/\x1b[31m\n", kind=b"2")))
    assert error.detail.isprintable()


def test_a_name_in_an_extended_header_is_checked_as_well() -> None:
    extended = member(b"pax", record(b"path", b"../../escape"), kind=b"x")
    assert_invalid(gzipped(*GOOD, extended, member(b"demo/fine", b"x")), "leads elsewhere")


def test_a_file_that_comes_twice_is_refused() -> None:
    assert_invalid(gzipped(*GOOD, GOOD[1]), "twice")
    assert_invalid(gzipped(*GOOD, member(b"./demo//fastly.toml", b"")), "twice")


def test_two_programs_are_refused() -> None:
    other = member(b"other/bin/main.wasm", EMPTY_MODULE)
    assert_invalid(gzipped(*GOOD, other), "two programs")


def test_a_gzip_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zeros(256 * MIB)
    tracemalloc.start()
    try:
        began = time.process_time()
        assert_invalid(bomb, "compressed more than 250 times")
        error = refusal(gzipped(*GOOD, header(b"demo/big", 4 * 1024 * MIB), end=b""))
        assert error.refusal is Refusal.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB
    assert time.process_time() - began < 5


def test_a_file_that_is_compressed_beyond_reason_is_refused() -> None:
    data = archive([("demo/bin/main.wasm", EMPTY_MODULE + bytes(7 * MIB))])
    assert_invalid(data, "compressed more than 250 times")


def test_zeros_behind_the_end_are_counted_too() -> None:
    data = zlib.compressobj(9, wbits=31)
    stream = data.compress(b"".join(GOOD))
    # incompressible enough to pass the ratio, and far more than an archiver's last record
    noise = random.Random(1).randbytes(64 * 1024)
    stream += data.compress(bytes(BLOCK) + noise + bytes(100 * MIB)) + data.flush()
    assert refusal(stream).refusal is Refusal.PACKAGE_INVALID


def test_all_other_files_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_OTHER_BYTES", 1000)
    fine = package(others={"demo/a": bytes(400), "demo/b": bytes(400)})
    assert read_upload(fine, max_module=MOST).module == EMPTY_MODULE
    error = refusal(package(others={"demo/a": bytes(600), "demo/b": bytes(600)}))
    assert error.refusal is Refusal.TOO_LARGE
    assert "the other files" in error.detail


def test_an_archive_of_countless_members_is_refused() -> None:
    many = b"".join(header(b"demo/%d" % number) for number in range(MAX_MEMBERS))
    assert_invalid(gzipped(*GOOD, many), f"more than {MAX_MEMBERS} members")


def test_an_endless_chain_of_extended_headers_is_refused_without_recursion() -> None:
    chain = member(b"pax", record(b"mtime", b"1"), kind=b"x") * (MAX_MEMBERS + 1)
    assert_invalid(gzipped(chain), "more than")
    names = member(b"././@LongLink", b"n\0", kind=b"L") * (MAX_MEMBERS + 1)
    assert_invalid(gzipped(names), "more than")


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (record(b"GNU.sparse.major", b"1"), "sparse"),
        (record(b"size", b"-1"), "no number"),
        (record(b"size", b"9" * 30), "no number"),
        (b"5 a=b\n", "malformed"),
        (b"0 a=b\n", "malformed"),
        (b"99999 a=b\n", "malformed"),
        (b"-9 a=b\n", "malformed"),
        (b"no length at all", "malformed"),
        (b" " * 4000, "malformed"),
        (b"9" * 4000, "malformed"),
        (record(b"path", b"demo/\xff"), "not UTF-8"),
        (record(b"path", b"d" * 2000), "2000 bytes"),
    ],
)
def test_extended_headers_that_lie_are_refused(contents: bytes, told: str) -> None:
    assert_invalid(
        gzipped(*GOOD, member(b"pax", contents, kind=b"x"), member(b"demo/a", b"a")), told
    )


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_an_extended_header_of_any_length_is_not_read(kind: bytes) -> None:
    data = gzipped(header(b"pax", MAX_EXTENDED_BYTES + 1, kind), bytes(MAX_EXTENDED_BYTES + 1))
    assert_invalid(data, "an extended header of")


def test_a_size_in_an_extended_header_is_bounded_like_any_other() -> None:
    extended = member(b"pax", record(b"size", b"9" * 18), kind=b"x")
    error = refusal(gzipped(*GOOD, extended, header(b"demo/a")))
    assert error.refusal is Refusal.TOO_LARGE


@pytest.mark.parametrize(
    ("field", "refused"),
    [
        (b"\xff" * 12, Refusal.PACKAGE_INVALID),  # below zero
        (b"\x80" + b"\xff" * 11, Refusal.TOO_LARGE),
        (b"notanumber!!", Refusal.PACKAGE_INVALID),
        (b"777777777777", Refusal.TOO_LARGE),
    ],
)
def test_sizes_that_no_file_has_are_refused(field: bytes, refused: Refusal) -> None:
    assert refusal(gzipped(*GOOD, header(b"demo/a", size_field=field))).refusal is refused


def test_what_is_cut_short_anywhere_is_refused() -> None:
    whole = package(others={"demo/src/a": bytes(range(256)) * 8})
    for length in range(2, len(whole)):
        error = refusal(whole[:length])
        assert error.refusal is Refusal.PACKAGE_INVALID
    tar = gzip.decompress(whole)
    ends = -(-len(tar.rstrip(b"\0")) // BLOCK) * BLOCK + BLOCK  # behind it only zeros follow
    for length in range(0, ends, 97):
        assert refusal(gzip.compress(tar[:length], mtime=0)).refusal is Refusal.PACKAGE_INVALID


def test_bytes_that_were_changed_are_never_taken_for_another_program() -> None:
    whole = package()
    for position in range(2, len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x41
        try:
            found = read_upload(bytes(changed), max_module=MOST)
        except ApiRefused:
            continue
        assert found.module == EMPTY_MODULE  # a time or a comment in the gzip header


def test_bytes_behind_the_archive_are_refused() -> None:
    assert_invalid(package() + b"x", "1 bytes follow")
    assert_invalid(package() + package(), "follow")
    assert_invalid(gzipped(*GOOD, end=bytes(2 * BLOCK) + b"hidden"), "follows the end")


def test_a_gzip_of_something_else_is_said_to_be_no_archive() -> None:
    assert_invalid(gzip.compress(EMPTY_MODULE * 100), "tar")
    assert_invalid(gzip.compress(random.Random(2).randbytes(5000)), "tar")
    assert_invalid(gzip.compress(b""), "cut short")


def test_random_bytes_are_refused_and_nothing_else_happens() -> None:
    chance = random.Random(3)
    for _ in range(300):
        noise = b"\0" + chance.randbytes(chance.randrange(2000))  # no text format begins so
        for data in (noise, b"\x1f\x8b\x08" + noise, gzip.compress(noise)):
            with pytest.raises(ApiRefused):
                read_upload(data, max_module=MOST)


def _deep(opening: bytes, closing: bytes) -> bytes:
    return b"a = " + opening * 20_000 + closing * 20_000


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (_deep(b"[", b"]"), "nests too deep"),
        (b"a = " + b"{a = " * 20_000, "nests too deep"),
        (b".".join([b"a"] * 20_000) + b" = 1", "dots"),
        (b"a = 1" + b"0" * 10_000, "is not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"name = ", "is not TOML"),
        (b"#" * (MAX_MANIFEST_BYTES + 1), "at most"),
        (b"[setup.backends]\n" + b"".join(b"b%d = {}\n" % n for n in range(1001)), "1000"),
    ],
)
def test_a_manifest_that_is_a_bomb_is_refused_at_once(manifest: bytes, told: str) -> None:
    began = time.process_time()
    assert_invalid(package(manifest=manifest), told)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\n".join(b"a%d.%s = 1" % (n, b".".join([b"b"] * 190)) for n in range(640)),
        lambda: b"[[a]]\n" * 40_000,
        lambda: b"\n".join(b"[a%d]" % number for number in range(20_000)),
        lambda: b"a = [" + b"{b = 1}," * 30_000 + b"]",
        lambda: b'a = "' + b"\\u0041" * 40_000 + b'"',
        lambda: b"a = '''" + b"x\n" * 100_000 + b"'''",
    ],
)
def test_the_longest_manifests_take_a_bounded_time(make: Callable[[], bytes]) -> None:
    manifest = make()
    assert len(manifest) <= MAX_MANIFEST_BYTES
    began = time.process_time()
    read_upload(package(manifest=manifest), max_module=MOST)
    assert time.process_time() - began < 5


def test_reading_holds_little_more_than_the_module() -> None:
    module = EMPTY_MODULE + random.Random(4).randbytes(MOST - 8)
    data = package(module)
    tracemalloc.start()
    try:
        assert read_upload(data, max_module=MOST).package.size == MOST
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST * 1.25


def test_nothing_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read_upload(package(others={"demo/src/a": b"a"}), max_module=MOST)
    refusal(gzipped(*GOOD, member(b"../escape", b"x")))
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "escape").exists()


def test_the_one_large_file_is_the_one_that_was_named() -> None:
    bounds = Bounds(largest=MIB, bulk=("bin", "main.wasm"), others=1000)
    data = archive([("demo/deeper/bin/main.wasm", bytes(2000))])
    with pytest.raises(ApiRefused) as caught:
        read_archive(data, bounds)
    assert caught.value.refusal is Refusal.TOO_LARGE
