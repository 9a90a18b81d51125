"""A fake guest with KV stores, and what an SDK would do with them."""

from __future__ import annotations

from struct import pack

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from edge.stores.kv import KvLimits, KvStore
from edge.stores.kv_memory import MemoryKvEngine
from tests.support.clock import SteppedClock
from tests.support.fastly_guest import FastlyGuest
from tests.support.kv import HeldStore

MIB = 1 << 20
LIMITS = KvLimits(value_bytes=MIB, store_bytes=4 * MIB)
UNTOUCHED = 0xABAB_ABAB


class KvGuest(FastlyGuest):
    """It has one store, `cart`.  `held`: operations wait until the test lets them go."""

    def __init__(
        self, *, held: bool = False, store: KvStore | None = None, limits: Limits | None = None
    ) -> None:
        super().__init__(limits=limits, size=4 * MIB)
        self.clock = SteppedClock()
        inner = MemoryKvEngine(LIMITS, self.clock).open("shop:cart")
        self.inner = inner
        self.held = HeldStore(inner)
        self.store = store or (self.held if held else inner)
        self.box.capabilities = Capabilities(kv_stores={"cart": self.store})

    def open_kv(self, module: str = "kv_store") -> int:
        return self.get(f"{module}.open", *self.put(b"cart"))

    def insert_config(
        self,
        mode: int = 0,
        metadata: bytes = b"",
        ttl: int = 0,
        generation: int = 0,
        metadata_at: tuple[int, int] | None = None,
    ) -> int:
        """Address of a `kv_insert_config`."""
        start, length = metadata_at or self.put(metadata)
        raw = pack("<IIIIIIQ", mode, UNTOUCHED, start, length, ttl, 0, generation)
        return self.put(raw)[0]

    def list_config(
        self, mode: int = 0, cursor: bytes = b"", limit: int = 0, prefix: bytes = b""
    ) -> int:
        """Address of a `kv_list_config`."""
        raw = pack("<IIIIII", mode, *self.put(cursor), limit, *self.put(prefix))
        return self.put(raw)[0]

    def insert_kv(self, key: bytes, value: bytes, mask: int = 0, **config: object) -> int:
        """Store a value to the end; the `kv_error`."""
        at = self.insert_config(**config)  # type: ignore[arg-type]  # by name
        body = self.body(value)
        pending = self.get("kv_store.insert", self.open_kv(), *self.put(key), body, mask, at)
        return self.kv_error("kv_store.insert_wait", pending)

    def kv_error(self, name: str, *raw: int) -> int:
        """A wait that must succeed and gives nothing but a `kv_error`."""
        out = self.room(4)
        assert self.do(name, *raw, out) == Status.OK
        return self.u32_at(out)

    def start_lookup(self, key: bytes) -> int:
        return self.get("kv_store.lookup", self.open_kv(), *self.put(key), 0, 0)


class Outs:
    """Room for everything `lookup_wait_v2` gives, filled with what nobody would write."""

    def __init__(self, guest: KvGuest, room: int = 2000) -> None:
        self.guest = guest
        self.body, self.size, self.error = (guest.put(b"\xab" * 4)[0] for _ in range(3))
        self.generation = guest.put(b"\xab" * 8)[0]
        self.buffer, self.capacity = guest.room(room), room

    @property
    def raw(self) -> tuple[int, ...]:
        return (self.body, self.buffer, self.capacity, self.size, self.generation, self.error)

    @property
    def metadata(self) -> bytes:
        return self.guest.bytes_at(self.buffer, self.guest.u32_at(self.size))

    def untouched(self) -> bool:
        """Whether nothing was written but, perhaps, the error."""
        guest = self.guest
        words = (self.body, self.size, self.generation, self.generation + 4)
        return all(guest.u32_at(at) == UNTOUCHED for at in words)
