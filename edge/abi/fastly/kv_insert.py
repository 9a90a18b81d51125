"""An insertion under way: a body is gathered, then given to the store.  No hostcalls.

Gathering is the guest's own time, a piece a turn, and `insert` returns when it is done: SDKs let
programs end without waiting for an insertion, and what still arrives ends with its sandbox.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.abi.codec import MAX_MOVE
from edge.abi.fastly.kv_ops import OpenKvStore
from edge.abi.fastly.ready import Waitable
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import HostcallError
from edge.http.body import Body
from edge.stores.kv import MAX_PIECE, Insertion, KvOperation
from edge.stores.kv_rules import check_key, check_size

# Chunks of a body are joined until a piece is this long: few rows for the store, short copies.
_PIECE = MAX_PIECE // 2
# Chunks taken in one turn, whatever their size: a guest may have made a body of tiny ones.
_CHUNKS = 256


class PendingInsert(Waitable):
    """Ready when the store has the value, or when it is certain that it will not."""

    __slots__ = (
        "_body", "_borrowed", "_box", "_held", "_insertion", "_key", "_loose", "_loose_size",
        "_pieces", "_store", "_watchers", "operation",
    )  # fmt: skip

    def __init__(
        self, box: Sandbox, opened: OpenKvStore, key: str, body: Body, insertion: Insertion
    ) -> None:
        """`insertion` is all but its bytes, which come from `body`.

        Raises InvalidArgument for a bad key.
        """
        check_key(key)
        self.operation: KvOperation[int] | None = None
        self._box = box
        self._store = opened.store
        self._key = key
        self._body = body
        self._borrowed = body is box.downstream.body  # the connection reads it on when we do not
        self._insertion = insertion
        self._pieces: list[bytes] = []
        self._loose: list[bytes] = []
        self._loose_size = 0
        self._held = 0  # bytes gathered, all of them charged
        self._watchers: list[Callable[[], None]] = []

    @property
    def is_ready(self) -> bool:
        return self.operation is not None and self.operation.is_ready

    def watch(self, callback: Callable[[], None]) -> None:
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if callback in self._watchers:
            self._watchers.remove(callback)

    def abandon(self) -> None:
        """What has been gathered to its end is stored nevertheless; anything else is not."""
        self._watchers.clear()
        if self.operation is not None:
            self.operation.abandon()
            return
        self._stop(discards=not self._borrowed)
        self.operation = KvOperation[int]()
        self.operation.abandon()

    def result(self) -> int:
        """Only when ready.  Raises KvFailed, or what broke the body or the account."""
        assert self.operation is not None
        return self.operation.result()

    def gather(self) -> bool:
        """Take what is here, at most 256 KiB; True when that was all there will be."""
        body, taken = self._body, 0
        try:
            for _ in range(_CHUNKS):
                data = body.read(min(MAX_MOVE - taken, MAX_PIECE - self._loose_size))
                if data:
                    taken += len(data)
                    self._keep(data)
                    if taken == MAX_MOVE:
                        return False
                elif body.at_eof:
                    self._insert()
                    return True
                else:
                    return False
        except HostcallError as error:  # the sender broke off, too many bytes, an empty account
            self._stop(discards=True)
            self._settled(KvOperation[int]().fail(error))
            return True
        return False

    async def gather_on(self) -> PendingInsert:
        """Take the rest, as it arrives.  Gives itself."""
        try:
            while True:
                if self._body.is_readable:
                    await Pause()
                else:
                    await self._body.wait_readable()
                if self.gather():
                    break
        except BaseException:  # it was killed
            self.abandon()
            raise
        return self

    def _keep(self, data: bytes) -> None:
        check_size(self._held + len(data), self._store.value_limit)
        self._box.account.charge(len(data))
        self._held += len(data)
        self._loose.append(data)
        self._loose_size += len(data)
        if self._loose_size >= _PIECE:
            self._join()

    def _join(self) -> None:
        if self._loose:
            self._pieces.append(b"".join(self._loose))
            self._loose.clear()
            self._loose_size = 0

    def _insert(self) -> None:
        self._join()
        had = self._insertion
        insertion = Insertion(
            tuple(self._pieces), self._held, had.mode, had.metadata, had.ttl, had.generation
        )
        self._pieces.clear()
        self._held = 0  # the operation gives it back
        self._settled(self._store.insert(self._key, insertion, self._box.account))

    def _settled(self, operation: KvOperation[int]) -> None:
        self.operation = operation
        if operation.is_ready:
            self._tell()
        else:
            operation.watch(self._tell)

    def _tell(self) -> None:
        watchers, self._watchers = self._watchers, []
        for callback in watchers:
            callback()

    def _stop(self, *, discards: bool) -> None:
        self._pieces.clear()
        self._loose.clear()
        self._box.account.release(self._held)
        self._held = 0
        if discards:
            self._body.discard()
