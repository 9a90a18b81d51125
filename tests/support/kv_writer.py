"""A process that writes to KV stores until it is killed, and tells of each write once it is stored.

`python -m tests.support.kv_writer FILE NAME MODE COUNT`; a line `KEY GENERATION` for each write.
`fill` makes new values of many sizes and appends to a shared one, `race` fights over shared keys.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from edge.clock import SystemClock
from edge.stores.kv import InsertMode, KvFailed, KvLimits, KvStore, insertion_of
from edge.stores.kv_sqlite import SqliteKvEngine
from tests.support.kv import done

LIMITS = KvLimits(value_bytes=64 << 20, store_bytes=1 << 30)
AT_ONCE = 8


def value_for(name: str, number: int) -> bytes:
    """What `fill` stores under the key `NAME-NUMBER`."""
    mark = f"{name}-{number};".encode()
    return mark * (1 + (number * 7919) % 20_000 if number % 16 == 0 else 1 + number % 50)


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def fill(store: KvStore, name: str, count: int, start: int) -> None:
    """One of several writers of this process; `start` tells them apart."""
    for number in range(start, count, AT_ONCE):
        key = f"{name}-{number}"
        generation = await done(store.insert(key, insertion_of(value_for(name, number))))
        tell(key, generation)
        entry = insertion_of(f"{key};".encode(), mode=InsertMode.APPEND)
        await done(store.insert("log", entry))
        tell(f"log:{key}", 0)
        if number % 5 == 0:
            await done(store.insert(f"gone-{key}", insertion_of(b"x")))
            await done(store.delete(f"gone-{key}"))
            tell(f"gone:gone-{key}", 0)


async def race(store: KvStore, name: str, count: int) -> None:
    """Add keys that others add as well, and count in one value by its generation."""
    for number in range(count):
        try:
            await done(store.insert(f"won-{number}", insertion_of(b"", mode=InsertMode.ADD)))
        except KvFailed:
            pass
        else:
            tell(f"won-{number}", 0)
        while True:
            found = await done(store.lookup("counter"))
            now = 0 if found is None else int(b"".join(found.pieces))
            step = insertion_of(
                b"%d" % (now + 1),
                mode=InsertMode.ADD if found is None else InsertMode.OVERWRITE,
                generation=found and found.generation,
            )
            try:
                generation = await done(store.insert("counter", step))
                tell("counter", generation)
                break
            except KvFailed:
                continue


async def main(path: Path, name: str, mode: str, count: int) -> None:
    engine = SqliteKvEngine(path, LIMITS, SystemClock())
    await engine.start()
    store = engine.open("s")
    tell("ready", 0)
    if mode == "race":
        await race(store, name, count)
    else:
        await asyncio.gather(*(fill(store, name, count, start) for start in range(AT_ONCE)))
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
