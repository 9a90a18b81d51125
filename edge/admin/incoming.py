"""Bodies of calls: bounded each by its route, and all together; read only once somebody asks.

Until then the client of an `Expect: 100-continue` has not been told to send, and others have sent
no more than one body buffer holds.
"""

from __future__ import annotations

import io
from typing import Final

from edge.errors import ApiRefused, HostcallError, Refusal
from edge.http.body import Body

CHUNK: Final = 256 * 1024


class Held:
    """Bytes of all bodies that are held at once, and of what was unpacked from them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0
        self._of: dict[str, int] = {}  # the same by owner, where there is one

    def take(self, count: int, owner: str = "") -> None:
        """Hold `count` more.  Raises ApiRefused BUSY, holding none of them, above the bound.

        One `owner` gets half of it: whoever stalls uploads keeps nobody else from deploying.
        """
        of_owner = self._of.get(owner, 0)
        if self.now + count > self.most or (owner and of_owner + count > self.most // 2):
            raise ApiRefused(
                Refusal.BUSY,
                f"request bodies of {self.now} bytes are held already, {self.most} may be; "
                "try again when others are done",
            )
        self.now += count
        if owner:
            self._of[owner] = of_owner + count

    def give(self, count: int, owner: str = "") -> None:
        self.now -= count
        if owner in self._of:
            self._of[owner] -= count
            if not self._of[owner]:
                del self._of[owner]


class RequestBody:
    """The body of one call.  `release` when the call is over."""

    def __init__(self, body: Body, announced: int | None, limit: int, held: Held) -> None:
        """`announced` and `limit` in bytes; None if the client did not say."""
        self._body = body
        self._announced = announced
        self._limit = limit
        self._held = held
        self._taken = 0
        self._whole: bytes | None = None
        self._is_over = False
        self.owner = ""  # the service whose token this came with, if it is of one

    async def read(self) -> bytes:
        """See `edge.admin.api.Incoming`; a second call gives the same bytes."""
        if self._whole is not None:
            return self._whole
        if self._announced is not None:
            self.refuse_early()
            self._take(self._announced)
        # One growing buffer that becomes the value without a copy: joining pieces of 100 MiB would
        # hold up the loop for tens of milliseconds.
        buffer = io.BytesIO()
        body = self._body
        try:
            while not body.at_eof:
                await body.wait_readable()
                buffer.write(body.read(CHUNK))
                if buffer.tell() > self._limit:
                    raise self._too_large()
                if buffer.tell() > self._taken:
                    self._take(buffer.tell() - self._taken)
        except HostcallError:
            if self._is_over:
                raise self._too_large() from None
            raise ApiRefused(
                Refusal.BAD_REQUEST,
                f"the request body ended or paused after {buffer.tell()} bytes, before its end",
            ) from None
        self._whole = buffer.getvalue()
        return self._whole

    def refuse_early(self) -> None:
        """Raises ApiRefused TOO_LARGE if the announced length is above the bound."""
        if self._announced is not None and self._announced > self._limit:
            raise self._too_large()

    def limit_reached(self) -> None:
        """More has arrived than the bound; the rest will not come."""
        self._is_over = True

    def hold(self, count: int) -> None:
        """See `edge.admin.api.Incoming`."""
        self._take(count)

    def release(self) -> None:
        """Nothing of it is held any longer."""
        self._held.give(self._taken, self.owner)
        self._taken = 0
        self._whole = None

    def _take(self, count: int) -> None:
        self._held.take(count, self.owner)
        self._taken += count

    def _too_large(self) -> ApiRefused:
        return ApiRefused(
            Refusal.TOO_LARGE, f"the request body is larger than the {self._limit} bytes taken here"
        )
