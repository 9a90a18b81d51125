"""A fake guest that speaks the Fastly ABI, with the small conveniences an SDK would have."""

from __future__ import annotations

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from edge.model.service import Service
from tests.support.fake_downstream import FakeDownstream
from tests.support.fake_guest import FakeGuest
from tests.support.sandboxes import Made, make_sandbox

INVALID = 0xFFFF_FFFE


class FastlyGuest(FakeGuest):
    """Names are `module.function` without the `fastly_`: `http_resp.new`."""

    def __init__(
        self,
        *,
        client: FakeDownstream | None = None,
        service: Service | None = None,
        limits: Limits | None = None,
        capabilities: Capabilities | None = None,
        size: int = 1 << 20,
    ) -> None:
        self.made: Made = make_sandbox(
            client=client, service=service, limits=limits, capabilities=capabilities
        )
        super().__init__(FASTLY_MODULES, self.made.box, size)

    @property
    def client(self) -> FakeDownstream:
        return self.made.client

    def do(self, name: str, *raw: int) -> Status:
        """The status of a call."""
        return Status(self.call(f"fastly_{name}", *raw))

    async def ado(self, name: str, *raw: int) -> Status:
        """The status of a call, inside a running event loop."""
        return Status(await self.acall(f"fastly_{name}", *raw))

    def begin(self, name: str, *raw: int) -> Status | None:
        """The status, or None when the guest is now suspended."""
        status = self.start(f"fastly_{name}", *raw)
        return None if status is None else Status(status)

    def get(self, name: str, *raw: int, width: int = 4) -> int:
        """A call that must succeed and has one number for its result."""
        out = self.room(8)
        assert self.do(name, *raw, out) == Status.OK, name
        return int.from_bytes(self.bytes_at(out, width), "little")

    def text(self, name: str, *raw: int, room: int = 70_000) -> bytes:
        """A call that must succeed and fills a buffer `(pointer, capacity, size out)`."""
        start = self._top
        buffer, size = self.room(room), self.room(4)
        assert self.do(name, *raw, buffer, room, size) == Status.OK, name
        found = self.bytes_at(buffer, self.u32_at(size))
        self._top = start
        return found

    def list(self, name: str, *raw: int, room: int = 70_000) -> list[bytes]:
        """A call that must succeed and fills a buffer with values, read to their end by cursor."""
        start = self._top
        buffer, end, size = self.room(room), self.room(8), self.room(4)
        values: list[bytes] = []
        cursor = 0
        while cursor >= 0:
            assert self.do(name, *raw, buffer, room, cursor, end, size) == Status.OK, name
            values += self.bytes_at(buffer, self.u32_at(size)).split(b"\0")[:-1]
            cursor = self.i64_at(end)
        self._top = start
        return values

    def downstream(self) -> tuple[int, int]:
        """Handles of the client's request and its body."""
        out = self.room(8)
        assert self.do("http_req.body_downstream_get", out, out + 4) == Status.OK
        return self.u32_at(out), self.u32_at(out + 4)

    def write(self, body: int, data: bytes, end: int = 0) -> Status:
        """Status of `http_body.write`; all must have been taken if it is OK."""
        wrote = self.room(4)
        status = self.do("http_body.write", body, *self.put(data), end, wrote)
        assert status or self.u32_at(wrote) == len(data)
        return status

    def body(self, data: bytes = b"") -> int:
        """A new body that holds `data`."""
        body = self.get("http_body.new")
        assert not data or self.write(body, data) == Status.OK
        return body

    def read(self, body: int, room: int = 70_000) -> bytes:
        """One `http_body.read`, which must not have to wait."""
        start = self._top
        buffer, count = self.room(room), self.room(4)
        assert self.begin("http_body.read", body, buffer, room, count) == Status.OK
        found = self.bytes_at(buffer, self.u32_at(count))
        self._top = start
        return found

    def read_all(self, body: int) -> bytes:
        """All of a body that is complete."""
        return b"".join(iter(lambda: self.read(body), b""))
