"""The artifact cache trusts nothing but bytes it wrote itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.runtime import artifacts
from edge.runtime.artifacts import Artifact, ArtifactCache, ArtifactRefused, open_artifact
from edge.runtime.inspect import ModuleInfo

PRINT = "0123456789abcdef"


def info(seed: int = 0) -> ModuleInfo:
    return ModuleInfo(f"{seed:064x}", 100, "wasi", (), 65536, (), start_function=False)


def started(state: Path, *, fingerprint: str = PRINT, max_bytes: int = 1 << 30) -> ArtifactCache:
    cache = ArtifactCache(state, fingerprint=fingerprint, max_bytes=max_bytes)
    cache.start()
    return cache


def test_what_was_inserted_is_found_again_by_a_later_process(tmp_path: Path) -> None:
    inserted = started(tmp_path / "var").insert(info(), b"code")
    found = started(tmp_path / "var").lookup(info().sha256)
    assert found == inserted
    assert found is not None
    fd = open_artifact(found)
    assert os.read(fd, 100) == b"code"
    os.close(fd)


def test_another_engine_finds_nothing(tmp_path: Path) -> None:
    started(tmp_path).insert(info(), b"code")
    assert started(tmp_path, fingerprint="f" * 16).lookup(info().sha256) is None


def test_everything_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        artifact = started(tmp_path / "var").insert(info(), b"code")
    finally:
        os.umask(old)
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert artifact.path.parent.stat().st_mode & 0o777 == 0o700
    assert artifact.path.stat().st_mode & 0o777 == 0o600
    assert artifact.path.with_suffix(".json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "var" / "artifacts.key").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "var"
    state.mkdir()
    state.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        started(state)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    started(tmp_path)
    (tmp_path / "artifacts.key").chmod(mode)
    with pytest.raises(ConfigError):
        started(tmp_path)


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "artifacts.key"
    path.write_bytes(key)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="instead of 32"):
        started(tmp_path)


def test_a_key_behind_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"k" * 32)
    (tmp_path / "elsewhere").chmod(0o600)
    (tmp_path / "artifacts.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        started(tmp_path)


@pytest.mark.parametrize("suffix", [".code", ".json"])
@pytest.mark.parametrize("what", ["flip", "cut", "add", "link", "empty"])
def test_a_changed_file_is_not_used_and_is_removed(tmp_path: Path, suffix: str, what: str) -> None:
    cache = started(tmp_path)
    path = cache.insert(info(), b"code of a module").path.with_suffix(suffix)
    data = path.read_bytes()
    match what:
        case "flip":
            path.write_bytes(data[:5] + bytes([data[5] ^ 1]) + data[6:])
        case "cut":
            path.write_bytes(data[:-1])
        case "add":
            path.write_bytes(data + b"\0")
        case "link":
            path.rename(tmp_path / "moved")
            path.symlink_to(tmp_path / "moved")
        case "empty":
            path.write_bytes(b"")
    assert cache.lookup(info().sha256) is None
    assert not path.exists()


def test_an_artifact_is_read_once_and_again_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []

    def counted(artifact: Artifact) -> int:
        looked.append(artifact.path)
        return open_artifact(artifact)

    monkeypatch.setattr(artifacts, "open_artifact", counted)
    started(tmp_path).insert(info(), b"code")
    cache = started(tmp_path)
    first = cache.lookup(info().sha256)
    assert first is not None
    assert cache.lookup(info().sha256) == first
    assert looked == [first.path]
    # The same bytes in the same place, its times set back: only the kernel's own time tells.
    before = first.path.stat()
    first.path.write_bytes(b"evil")
    os.utime(first.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.lookup(info().sha256) is None
    assert looked == [first.path] * 2


def test_a_record_under_another_name_is_not_used(tmp_path: Path) -> None:
    cache = started(tmp_path)
    source = cache.insert(info(1), b"code").path
    for suffix in (".code", ".json"):
        copy = source.with_name(source.name.replace(info(1).sha256, info(2).sha256))
        copy.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
        copy.with_suffix(suffix).chmod(0o600)
    assert cache.lookup(info(2).sha256) is None
    assert cache.lookup(info(1).sha256) is not None


def test_a_record_written_with_another_key_is_not_used(tmp_path: Path) -> None:
    started(tmp_path).insert(info(), b"code")
    (tmp_path / "artifacts.key").unlink()
    assert started(tmp_path).lookup(info().sha256) is None


def test_a_worker_refuses_bytes_that_changed_after_the_lookup(tmp_path: Path) -> None:
    artifact = started(tmp_path).insert(info(), b"code")
    artifact.path.write_bytes(b"evil")
    with pytest.raises(ArtifactRefused, match="changed"):
        open_artifact(artifact)


def test_a_worker_refuses_a_file_that_others_can_write(tmp_path: Path) -> None:
    artifact = started(tmp_path).insert(info(), b"code")
    artifact.path.chmod(0o666)
    with pytest.raises(ArtifactRefused, match="only we can write"):
        open_artifact(artifact)


def test_a_worker_does_not_hang_on_a_fifo(tmp_path: Path) -> None:
    artifact = started(tmp_path).insert(info(), b"code")
    artifact.path.unlink()
    os.mkfifo(artifact.path, 0o600)
    with pytest.raises(ArtifactRefused):
        open_artifact(artifact)


def test_the_least_recently_used_artifact_goes_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = started(tmp_path, max_bytes=250)
    for seed in (1, 2):
        path = cache.insert(info(seed), b"x" * 100).path
        os.utime(path, (seed, seed))
    assert cache.lookup(info(1).sha256) is not None  # used: now 2 is the older one
    cache.insert(info(3), b"x" * 100)
    assert cache.lookup(info(2).sha256) is None
    assert cache.lookup(info(1).sha256) is not None
    assert cache.lookup(info(3).sha256) is not None


def test_the_newest_artifact_stays_even_if_it_is_larger_than_the_cache(tmp_path: Path) -> None:
    cache = started(tmp_path, max_bytes=10)
    cache.insert(info(1), b"x" * 100)
    assert cache.lookup(info(1).sha256) is not None


def test_inserting_again_leaves_an_open_artifact_as_it_was(tmp_path: Path) -> None:
    cache = started(tmp_path)
    fd = open_artifact(cache.insert(info(), b"first"))
    cache.insert(info(), b"second!")
    assert os.pread(fd, 100, 0) == b"first"
    os.close(fd)


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "artifacts" / ".tmp-1234").write_bytes(b"half")
    started(tmp_path)
    assert not list((tmp_path / "artifacts").glob(".tmp-*"))


def test_an_artifact_crosses_a_pipe_without_the_key(tmp_path: Path) -> None:
    artifact = started(tmp_path).insert(info(), b"code")
    sent = json.dumps(artifact.to_plain())
    assert (tmp_path / "artifacts.key").read_bytes().hex() not in sent
    assert Artifact.from_plain(json.loads(sent)) == artifact
    with pytest.raises(ValueError, match="plain form"):
        Artifact.from_plain({"path": 1})
