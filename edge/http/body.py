"""Bodies: bounded byte streams between two parties of one process.  No sockets, no tasks.

One side writes (a connection reading a request, a guest filling a response), the other reads (a
guest, a connection sending).  Either side may be faster: the writer looks at `is_full`, the reader
at `is_readable`, and both are told of changes through `watch`.  A body that another body swallowed
(`append`) is read through it, so bytes never move because of plumbing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from edge.errors import HostcallError, LimitExceeded

Trailers = list[tuple[bytes, bytes]]

# A writer is asked to stop above this.  One TLS record is 16 KiB and a socket buffer a few hundred
# KiB: enough to keep a fast reader busy, little enough for a thousand slow ones.
HIGH_WATER = 256 * 1024
# Smaller writes are joined, so that a million one-byte writes do not become a million objects.
JOIN_BELOW = 4096


class Ledger:
    """Bytes that one process holds for all its guests."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Account:
    """Bytes held for one sandbox, with its ceiling; every charge is also in the process ledger."""

    held = 0
    peak = 0
    exceeded = False  # a charge was refused: tells the outcome when the guest then fails

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self.ledger = ledger
        self.limit = limit

    def charge(self, count: int) -> None:
        """Hold `count` more bytes.  Raises LimitExceeded, holding nothing, above the ceiling."""
        held = self.held + count
        if held > self.limit:
            self.exceeded = True
            raise LimitExceeded(
                f"{held} bytes held for one sandbox, {self.limit} allowed",
                limit="limits.host_memory",
            )
        self.held = held
        if held > self.peak:
            self.peak = held
        self.ledger.held += count

    def release(self, count: int) -> None:
        self.held -= count
        self.ledger.held -= count


class Body:
    """A queue of chunks and of other bodies, ended by EOF with trailers, or by an error.

    `known_length` is exact or None.  `account` (if any) is charged for the bytes that wait here.
    Not slotted: every request makes two bodies, and class-level defaults halve what they cost.
    """

    live = False  # somebody is still writing: an empty queue is not the end
    ended = True
    error: HostcallError | None = None
    expected: int | None = None  # bytes still to come, when the writer has promised
    on_drain: Callable[[], None] | None = None  # tells a paused writer to go on
    on_discard: Callable[[], None] | None = None  # tells the writer that nobody reads any more
    total_read = 0
    trailer_cost = 0  # what a guest was charged for trailers it added
    _offset = 0  # bytes of the first chunk that have been read: cutting it would copy it
    _held = 0  # bytes that wait in our own chunks
    _discarded = False
    _parent: Body | None = None
    _watchers: list[Callable[[], None]] | None = None

    def __init__(self, account: Account | None = None, *, live: bool = False) -> None:
        self._chunks: deque[bytes | Body] = deque()
        self.account = account
        self.trailers: Trailers = []
        if live:
            self.live, self.ended = True, False

    # The reader's side ----------------------------------------------------------------------

    @property
    def is_readable(self) -> bool:
        """True when `read` would give bytes, EOF or an error, without waiting."""
        for chunk in self._chunks:
            if type(chunk) is bytes:
                return True
            assert isinstance(chunk, Body)
            if chunk._chunks or chunk.error is not None or not chunk.ended:
                return chunk.is_readable
        return self.ended or self.error is not None

    @property
    def at_eof(self) -> bool:
        """True when everything has been read and nothing more can come."""
        self._drop_spent()
        return not self._chunks and self.ended

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes that are here now; b"" when none are (ask `at_eof` which it is).

        Raises the body's error once all bytes before it have been read.
        """
        self._drop_spent()
        if not self._chunks:
            if self.error is not None:
                raise self.error
            return b""
        head = self._chunks[0]
        if type(head) is bytes:
            start = self._offset
            if len(head) - start <= limit:
                self._chunks.popleft()
                self._offset = 0
                if start:
                    head = head[start:]
            else:
                self._offset = start + limit
                head = head[start : start + limit]
            self._release(len(head))
            self.total_read += len(head)
            return head
        assert isinstance(head, Body)
        data = head.read(limit)
        self.total_read += len(data)
        return data

    def peek_all(self) -> bytes | None:
        """The whole rest as one value if it is complete and here, without consuming it."""
        if not self.ended or self.error is not None:
            return None
        self._cut()
        if len(self._chunks) == 1:
            only = self._chunks[0]
            return only if type(only) is bytes else None
        if any(type(chunk) is not bytes for chunk in self._chunks):
            return None
        return b"".join(self._chunks)  # type: ignore[arg-type]  # just checked

    def take_whole(self, limit: int) -> bytes | None:
        """Everything, if it is complete, without trailers, in one piece of at most `limit` bytes.

        Such a body is empty afterwards; of any other nothing has been taken.
        """
        held = self._held
        if not self.ended or held > limit or self._offset or self.trailers or self.error:
            return None
        chunks = self._chunks
        if not chunks:
            return b""
        if len(chunks) > 1:
            return None
        only = chunks[0]
        if only.__class__ is not bytes:
            return None
        chunks.clear()
        self._held = 0
        account = self.account
        if account is not None:
            account.held -= held
            account.ledger.held -= held
        return only

    def feeds(self, other: Body) -> bool:
        """True if `other` has swallowed this body and reads through it."""
        return self._parent is other

    @property
    def known_length(self) -> int | None:
        """Bytes left to read, if that is certain."""
        total = self._held
        if not self.ended:
            if self.expected is None:
                return None
            total += self.expected
        for chunk in self._chunks:
            if isinstance(chunk, Body):
                inner = chunk.known_length
                if inner is None:
                    return None
                total += inner
        return total

    def _cut(self) -> None:
        """Make the first chunk begin where reading goes on."""
        if self._offset:
            first = self._chunks[0]
            assert type(first) is bytes
            self._chunks[0] = first[self._offset :]
            self._offset = 0

    def _drop_spent(self) -> None:
        """Remove swallowed bodies that have been read to their end, keeping their trailers."""
        while self._chunks:
            head = self._chunks[0]
            if not isinstance(head, Body) or not head.at_eof:
                return
            self.trailers.extend(head.trailers)
            self._chunks.popleft()

    # The writer's side ----------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """True when a polite writer waits."""
        return self._held >= HIGH_WATER

    @property
    def held(self) -> int:
        """Bytes that wait in this body's own chunks."""
        return self._held

    def write(self, data: bytes) -> None:
        """Add bytes at the back.  Raises LimitExceeded when the account is spent."""
        if not data or self._discarded:
            return
        size = len(data)
        account = self.account
        if account is not None:  # `Account.charge`, spelt out: this is on every request's way
            held = account.held + size
            if held > account.limit:
                account.charge(size)  # raises
            account.held = held
            if held > account.peak:
                account.peak = held
            account.ledger.held += size
        self._held += size
        chunks = self._chunks
        if chunks and size < JOIN_BELOW:
            last = chunks[-1]
            if type(last) is bytes and len(last) < JOIN_BELOW:
                chunks[-1] = last + data
                return  # the reader has been told of the chunk this joined
        chunks.append(data)
        if self._watchers or self._parent is not None:  # `_changed` would find out too, later
            self._changed()

    def write_front(self, data: bytes) -> None:
        """Add bytes before everything that is unread."""
        if not data or self._discarded:
            return
        self._cut()
        if self.account is not None:
            self.account.charge(len(data))
        self._held += len(data)
        first = self._chunks[0] if self._chunks else None
        if type(first) is bytes and len(first) + len(data) < JOIN_BELOW:
            self._chunks[0] = data + first
        else:
            self._chunks.appendleft(data)
        self._changed()

    def append(self, source: Body) -> None:
        """Swallow the rest of `source`, its trailers included.  `source` must not be used again.

        A finished source is poured over; a live one is read through, so nesting stays one deep.
        """
        if self._discarded:
            source.discard()
            return
        if source.ended and source.error is None:
            if source.account is not self.account:
                self._move_charge(source, source._held)  # first: it may be refused
            source._cut()
            for chunk in source._chunks:
                if isinstance(chunk, Body):
                    chunk._parent = self
                    self._chunks.append(chunk)
                else:
                    self._held += len(chunk)
                    self._add(chunk)
            source._held = 0
            source._chunks.clear()
            self.trailers.extend(source.trailers)
        else:
            source._parent = self
            self._chunks.append(source)
        self._changed()

    def _add(self, chunk: bytes) -> None:
        """Put a chunk at the back, joined with the last one while both are small."""
        last = self._chunks[-1] if self._chunks else None
        if type(last) is bytes and len(chunk) < JOIN_BELOW and len(last) < JOIN_BELOW:
            self._chunks[-1] = last + chunk
        else:
            self._chunks.append(chunk)

    def _move_charge(self, source: Body, count: int) -> None:
        if self.account is not None:
            self.account.charge(count)
        if source.account is not None:
            source.account.release(count)

    def finish(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """No more bytes will come: a clean end."""
        if not self.ended and self.error is None:
            self.trailers.extend(trailers)
            self.ended = True
            self.live = False
            self._changed()

    def fail(self, error: HostcallError) -> None:
        """No more bytes will come, and that is not the end of the message."""
        if not self.ended and self.error is None:
            self.error = error
            self.live = False
            self._changed()

    def discard(self) -> None:
        """The reader gives up: free what waits and let the writer run on into nothing."""
        self._discarded = True
        chunks = self._chunks
        if chunks:
            for chunk in chunks:
                if isinstance(chunk, Body):
                    chunk.discard()
            chunks.clear()
            self._offset = 0
            self._release(self._held)
        told, self.on_discard = self.on_discard, None
        if told is not None:
            told()

    def adopt(self, account: Account | None) -> None:
        """Charge what waits here to `account` from now on.  Raises LimitExceeded: nothing moved."""
        if account is self.account:
            return
        if account is not None:
            account.charge(self._held)
        if self.account is not None:
            self.account.release(self._held)
        self.account = account

    # Waiting --------------------------------------------------------------------------------

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, at the next change of any kind: bytes, end, error, or room."""
        if self._watchers is None:
            self._watchers = [callback]
        else:
            self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if self._watchers and callback in self._watchers:
            self._watchers.remove(callback)

    async def wait_readable(self) -> None:
        """Wait until `is_readable`."""
        while not self.is_readable:
            await self._next_change()

    async def wait_room(self) -> None:
        """Wait until not `is_full` (or the reader is gone)."""
        while self.is_full and self.error is None:
            await self._next_change()

    async def _next_change(self) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not changed.done():
                changed.set_result(None)

        self.watch(wake)
        try:
            await changed
        finally:
            self.unwatch(wake)

    def _changed(self) -> None:
        watchers = self._watchers
        if watchers:
            self._watchers = None
            for callback in watchers:
                callback()
        if self._parent is not None:
            self._parent._changed()

    def _release(self, count: int) -> None:
        if not count:
            return
        was_full = self._held >= HIGH_WATER
        self._held -= count
        if self.account is not None:
            self.account.release(count)
        if was_full and self._held < HIGH_WATER:
            if self.on_drain is not None:
                self.on_drain()
            self._changed()
