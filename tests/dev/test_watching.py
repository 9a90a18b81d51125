"""Noticing changed files: once each, when they are complete, and files that come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.dev.watching import Changes
from tests.support.loop import in_loop

POLL = 0.01


async def noticed(changes: Changes) -> None:
    async with asyncio.timeout(20):
        await changes.wait(POLL)


@in_loop
async def test_a_change_is_noticed_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    changes = Changes([path, tmp_path / "absent"])
    path.write_text("other")
    await noticed(changes)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await changes.wait(POLL)


@in_loop
async def test_a_file_that_appears_or_goes_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    changes = Changes([path])
    path.write_text("x")
    await noticed(changes)
    path.unlink()
    await noticed(changes)


@in_loop
async def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    changes = Changes([path])
    grown = asyncio.Event()

    async def write() -> None:
        for size in range(1, 30):
            path.write_text("x" * size)
            await asyncio.sleep(POLL / 4)
        grown.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        await noticed(changes)
        assert grown.is_set()


@in_loop
async def test_other_files_can_be_watched_from_then_on(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("x")
    second.write_text("x")
    changes = Changes([first])
    changes.watch([second])
    second.write_text("xx")
    await noticed(changes)


@in_loop
async def test_a_file_that_is_replaced_by_one_of_the_same_size_is_a_change(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("x")
    changes = Changes([path])
    other.write_text("y")
    other.rename(path)
    await noticed(changes)
