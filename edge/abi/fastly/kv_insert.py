"""An insertion: its body is gathered to the end, then given to the store.  No hostcalls.

Gathering is the guest's own time, a piece a turn, and the hostcall returns when it is done: SDKs
let programs end without waiting for an insertion, and what still arrives ends with its sandbox.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from edge.abi.codec import MAX_MOVE
from edge.abi.fastly.http_body import normal_body
from edge.abi.fastly.kv_ops import OpenKvStore, PendingInsert
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import HostcallError
from edge.http.body import Body
from edge.stores.kv import MAX_PIECE, Insertion, KvOperation, KvStore
from edge.stores.kv_rules import check_key, check_size

# Chunks of a body are joined until a piece is this long: few rows for the store, short copies, and
# a client that sends two bytes at a time does not make us hold an object for each two.
_PIECE = MAX_PIECE // 2
# Chunks taken in one turn, whatever their size: a guest may have made a body of tiny ones.
_CHUNKS = 256


def start_insert(
    box: Sandbox, opened: OpenKvStore, key: str, body: int, insertion: Insertion
) -> PendingInsert | Coroutine[Any, None, PendingInsert]:
    """Consume the body of a handle; `insertion` is all but its bytes.

    What goes wrong from then on is the result of the operation.
    Raises InvalidArgument for a bad key, BadHandle for what is no body: it stays the guest's then.
    """
    check_key(key)
    gathering = _Gathering(box, opened.store, key, normal_body(box, body), insertion)
    del box.items[body]  # which is room for the new handle
    operation = gathering.take()
    return gathering.take_rest() if operation is None else PendingInsert(operation)


class _Gathering:
    """The bytes of a value on their way from a body into pieces, all of them charged."""

    __slots__ = ("_body", "_box", "_held", "_insertion", "_key", "_loose", "_pieces", "_store")

    def __init__(
        self, box: Sandbox, store: KvStore, key: str, body: Body, insertion: Insertion
    ) -> None:
        self._box = box
        self._store = store
        self._key = key
        self._body = body
        self._insertion = insertion
        self._pieces: list[bytes] = []
        self._loose = bytearray()  # the next piece, of what came in small ones
        self._held = 0  # bytes in both

    def take(self) -> KvOperation[int] | None:
        """Take what is here, at most 256 KiB; the operation when that was all there will be."""
        body, room = self._body, MAX_MOVE
        try:
            for _ in range(_CHUNKS):
                data = body.read(min(room, MAX_PIECE - len(self._loose)))
                if data:
                    self._keep(data)
                    room -= len(data)
                    if not room:
                        return None
                elif body.at_eof:
                    return self._insert()
                else:
                    return None
        except HostcallError as error:  # the sender broke off, too many bytes, an empty account
            self._drop()
            body.discard()
            return KvOperation[int]().fail(error)
        return None

    async def take_rest(self) -> PendingInsert:
        """Take the rest as it arrives."""
        body = self._body
        try:
            while True:
                if body.is_readable:
                    await Pause()
                else:
                    await body.wait_readable()
                operation = self.take()
                if operation is not None:
                    return PendingInsert(operation)
        except BaseException:  # the guest was killed
            self._drop()
            if body is not self._box.downstream.body:  # which its connection reads on
                body.discard()
            raise

    def _keep(self, data: bytes) -> None:
        check_size(self._held + len(data), self._store.value_limit)
        self._box.account.charge(len(data))
        self._held += len(data)
        if len(data) >= _PIECE and not self._loose:
            self._pieces.append(data)
            return
        self._loose += data
        if len(self._loose) >= _PIECE:
            self._cut()

    def _cut(self) -> None:
        if self._loose:
            self._pieces.append(bytes(self._loose))
            self._loose.clear()

    def _insert(self) -> KvOperation[int]:
        self._cut()
        insertion = replace(self._insertion, pieces=tuple(self._pieces), size=self._held)
        self._held = 0  # the operation gives it back
        return self._store.insert(self._key, insertion, self._box.account)

    def _drop(self) -> None:
        self._pieces.clear()
        self._loose.clear()
        self._box.account.release(self._held)
        self._held = 0
