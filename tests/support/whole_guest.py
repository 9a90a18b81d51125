"""A guest that has everything, and for every hostcall arguments with which it does what it is for.

Arguments are found by how a parameter crosses the ABI and by its name; what neither tells stands in
tables.  A hostcall that nobody thought of here is an error that names it, not a gap.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from struct import pack

from edge.abi.codec import (
    Bits,
    Bulk,
    Choice,
    Codec,
    Handle,
    Int,
    OutArray,
    OutBuffer,
    OutValues,
    Region,
    Span,
    Text,
    U32List,
    Wrapped,
)
from edge.abi.fastly.error_detail import ErrorDetail
from edge.abi.fastly.heads import FieldName, FieldValue
from edge.abi.fastly.kv_ops import OutNumber
from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from edge.abi.hostcall import Hostcall
from edge.model.acl import AclEntry
from edge.model.backend import Backend, Origin, TlsVersion
from edge.model.secret import Secret
from edge.settings import DeviceDetection, Geolocation, ShieldSite
from edge.stores.acl import Acl
from edge.stores.devices import Devices
from edge.stores.geo import Geo
from edge.stores.kv import Insertion, KvLimits
from edge.stores.kv_memory import MemoryKvEngine
from edge.stores.rates_memory import MemoryRates
from tests.support.clock import SteppedClock
from tests.support.fake_downstream import FakeDownstream
from tests.support.fake_upstream import SendingGuest
from tests.support.further import FakeGiver
from tests.support.sandboxes import make_service

# `env` has the same functions under their older names.
CALLS = {
    f"{module.name.removeprefix('fastly_')}.{name}": hostcall
    for module in FASTLY_MODULES
    for name, hostcall in module.hostcalls.items()
    if module.name != "env" and not hostcall.unsupported
}
MIB = 1 << 20
ROOM = 1024  # of every buffer: more than any answer here needs
AGENT = b"Phone/1.2.3"  # something to find in each of its four parts
ORIGIN = Backend(
    "origin",
    Origin(False, "origin.example", 80),
    override_host="example.org",
    min_tls=TlsVersion.TLS_1_2,
    max_tls=TlsVersion.TLS_1_3,
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter or result of a hostcall, and the good numbers for it."""

    name: str
    codec: Codec
    raw: tuple[int, ...]

    @property
    def is_handle(self) -> bool:
        """Whether it names something of the host's, however it is declared."""
        by_name = isinstance(self.codec, Int) and self.name in HANDLES
        return by_name or isinstance(self.codec, Handle)

    @property
    def is_pointer(self) -> bool:
        """Whether it is the address of a struct, of which the codec knows nothing."""
        return isinstance(self.codec, Int) and self.name in POINTERS


def replaced(arguments: list[Argument], place: int, raw: tuple[int, ...]) -> list[Argument]:
    """The same with other numbers in one place."""
    old = arguments[place]
    assert len(raw) == len(old.raw), old.name
    return [*arguments[:place], Argument(old.name, old.codec, raw), *arguments[place + 1 :]]


class WholeGuest(SendingGuest):
    """Its backend answers at once, its stores hold one thing each, its client sent one request."""

    def __init__(self) -> None:
        client = FakeDownstream(headers=[(b"x-name", b"value")])
        super().__init__(ORIGIN, ready=True, client=client)
        clock = SteppedClock()
        store = MemoryKvEngine(KvLimits(value_bytes=MIB, store_bytes=MIB), clock).open("shop:cart")
        self.made.account.charge(len(b"value"))  # which the insertion gives back
        store.insert("key", Insertion((b"value",), 5, metadata=b"about it"), self.made.account)
        box = self.box
        box.service = make_service(
            config_stores={"flags": {"key": "value"}},
            secret_stores={"keys": {"api": Secret(b"s3cret")}},
        )
        has = box.capabilities
        has.kv_stores = {"cart": store}
        has.acls = {"blocked": Acl([AclEntry(ip_network("192.0.2.0/24"), "BLOCK")])}
        has.geo = Geo.load(Geolocation(addresses={"192.0.2.1": '{"city": "Paris"}'}))
        has.devices = Devices.load(DeviceDetection(user_agents={AGENT.decode(): "{}"}))
        has.rates = MemoryRates(MIB, clock.monotonic)
        has.shield_sites = {"paris": ShieldSite(False, "https://paris.example", "http://p.example")}

    # One of each kind ---------------------------------------------------------------------------

    def request_handle(self) -> int:
        """The client's request."""
        return self.downstream()[0]

    def response_handle(self) -> int:
        """A backend's response, of which the guest may know where it came from."""
        request, out = self.request_handle(), self.room(8)
        self.get("http_req.new")
        self.do("http_req.cache_override_set", request, 1, 0, 0)
        self.do("http_req.send", request, self.body(), *self.put(b"origin"), out, out + 4)
        self.do("http_resp.header_insert", self.u32_at(out), *self.field(), *self.field())
        return self.u32_at(out)

    def field(self) -> tuple[int, int]:
        """The name of a field that every head here has; it may be its value as well."""
        return self.put(b"x-name")

    def ended_body(self) -> int:
        """A body that has been read to its end, where its trailers are."""
        body = self.body(b"data")
        self.do("http_body.trailer_append", body, *self.field(), *self.field())
        self.read_all(body)
        return body

    def promise(self) -> int:
        """A promise of a request that has come, in a guest that has answered the last one."""
        giver = FakeGiver(self.box)
        self.do("http_resp.send_downstream", self.get("http_resp.new"), self.body(), 0)
        promise = self.get("http_downstream.next_request", 0, 0)
        giver.give(FakeDownstream())
        return promise

    def opened(self, module: str, name: bytes) -> int:
        """A handle of a store."""
        return self.get(f"{module}.open", *self.put(name))

    def secret(self) -> int:
        """A handle of a secret."""
        return self.get("secret_store.get", self.opened("secret_store", b"keys"), *self.put(b"api"))

    def started(self, verb: str, *rest: int) -> int:
        """A KV operation that is done."""
        return self.get(f"kv_store.{verb}", self.opened("kv_store", b"cart"), *rest)

    def handle_list(self, make: Callable[[WholeGuest], int]) -> tuple[int, int]:
        """A `list<handle>` of two."""
        return self.handles(make(self), make(self))

    def struct(self, layout: str, *numbers: int) -> int:
        """The address of a struct."""
        return self.put(pack(layout, *numbers))[0]

    # Arguments ------------------------------------------------------------------------------------

    def arguments(self, hostcall: Hostcall) -> list[Argument]:
        """Every parameter and every result of a hostcall, with good numbers."""
        call = f"{hostcall.module.removeprefix('fastly_')}.{hostcall.name}"
        _, *names = inspect.signature(hostcall.handler).parameters
        found = [
            Argument(name, codec, self._good(call, name, codec))
            for name, codec in zip(names, hostcall.params, strict=True)
        ]
        results = [Argument("", codec, (self.room(8),)) for codec in hostcall.results]
        return found + results

    def make(self, call: str, arguments: list[Argument]) -> Status:
        """The call, to its end, in an event loop of its own."""
        numbers = [number for argument in arguments for number in argument.raw]
        return asyncio.run(self.ado(call, *numbers))

    def _good(self, call: str, name: str, codec: Codec) -> tuple[int, ...]:
        special = _SPECIAL.get(f"{call}:{name}")
        if special is not None:
            return (special,) if isinstance(special, int) else self._made(special(self))
        match codec:
            case FieldValue(nul=True):
                return self.put(b"one\0two\0")
            case FieldName() | FieldValue():
                return self.field()
            case Text() | Span():
                return self.put(_TEXTS[name])
            case Handle(kind=kind):
                return (_KINDS[kind.__name__](self),)
            case Choice(values=values):
                return (int(next(iter(values))),)
            case Bits() | Int() if name in _NUMBERS:
                return (_NUMBERS[name],)
            case U32List():
                return self.handle_list(WholeGuest.send_async)
            case Bulk():
                return self.put(b"data")
            case Int() if name in HANDLES:
                return (HANDLES[name](self),)
            case Wrapped(cls=cls):
                return self._wrapped(cls, codec.wasm)
        raise LookupError(f"{call}: nobody said what is good for `{name}`; say it in this file")

    def _made(self, made: int | bytes | tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(made, bytes):
            return self.put(made)
        return made if isinstance(made, tuple) else (made,)

    def _wrapped(self, cls: type, wasm: str) -> tuple[int, ...]:
        if cls is OutBuffer:
            return (self.room(ROOM), ROOM, self.room(4))
        if cls is OutValues:
            return (self.room(ROOM), ROOM, 0, self.room(8), self.room(4))
        if cls is Region or (cls is OutArray and wasm == "ii"):
            return (self.room(ROOM), ROOM)
        if cls in (OutArray, OutNumber, ErrorDetail):
            return (self.room(24),)
        raise LookupError(f"nobody said what is good for a {cls.__name__}; say it in this file")


Make = Callable[[WholeGuest], int]

_KINDS: dict[str, Make] = {
    "GuestRequest": WholeGuest.request_handle,
    "GuestResponse": WholeGuest.response_handle,
    "PendingRequest": WholeGuest.send_async,
    "LogEndpoint": lambda guest: guest.get("log.endpoint_get", *guest.put(b"log")),
    "ConfigStore": lambda guest: guest.opened("config_store", b"flags"),
    "SecretStore": lambda guest: guest.opened("secret_store", b"keys"),
    "Secret": WholeGuest.secret,
    "OpenKvStore": lambda guest: guest.opened("kv_store", b"cart"),
    "Acl": lambda guest: guest.opened("acl", b"blocked"),
}
# Numbers that are handles although they are declared as plain ones.
HANDLES: dict[str, Make] = {
    "request": WholeGuest.request_handle,
    "body": lambda guest: guest.body(b"data"),
    "dest": lambda guest: guest.body(b"data"),
    "source": lambda guest: guest.body(b"data"),
    "handle": lambda guest: guest.body(b"data"),
    "pending": WholeGuest.send_async,
    "promise": WholeGuest.promise,
}
# Numbers that are addresses of structs.
POINTERS = {"config", "digest", "options", "override"}
_NUMBERS = {
    "version": 1,
    "status": 201,
    "streaming": 0,
    "ttl": 60,
    "stale_while_revalidate": 60,
    "delta": 1,
    "limit": 100,
    "timeout_ms": 1000,
    "tag": 0b0010,
    "encodings": 0b1,
    "mask": 0,
    "options": 0,
    "digest": 64,
    "config": 64,
}
_TEXTS = {
    "address": bytes([192, 0, 2, 1]),
    "backend": b"origin",
    "counter": b"rc",
    "entry": b"ip",
    "key": b"key",
    "method": b"PUT",
    "penalty_box": b"pb",
    "surrogate_key": b"article-7",
    "uri": b"http://example.com/a?b",
    "user_agent": AGENT,
    "value": b"own secret",
}


def _override(guest: WholeGuest) -> int:
    return guest.struct("<IIIII", 60, 60, *guest.put(b"article-7"), 1000)


def _insertion(guest: WholeGuest) -> int:
    about = guest.put(b"about it")
    return guest.struct("<IIIIIIQ", 0, 0, *about, 60, 0, 0)


def _listing(guest: WholeGuest) -> int:
    return guest.struct("<IIIIII", 0, *guest.put(b""), 10, *guest.put(b"k"))


def _dynamic(guest: WholeGuest) -> int:
    return guest.struct("<IIIII", *guest.put(b"made.example"), 1000, 1000, 1000)


def _shield(guest: WholeGuest) -> int:
    return guest.struct("<IIII", *guest.put(b"cache key"), 1000, 1000)


def _finished(verb: str) -> Make:
    def make(guest: WholeGuest) -> int:
        key = guest.put(b"key")
        match verb:
            case "insert":
                return guest.started(verb, *key, guest.body(b"data"), 8, _insertion(guest))
            case "list":
                return guest.started(verb, 0, _listing(guest))
            case _:
                return guest.started(verb, *key, 0, 0)

    return make


# `call:parameter`, for what neither the codec nor the name tells: a number, or how it is made.
_SPECIAL: dict[str, int | Callable[[WholeGuest], int | bytes | tuple[int, ...]]] = {
    "http_req.cache_override_v3_set:override": _override,
    "log.endpoint_get:name": lambda guest: b"log",
    "dictionary.open:name": lambda guest: b"flags",
    "config_store.open:name": lambda guest: b"flags",
    "secret_store.open:name": lambda guest: b"keys",
    "secret_store.get:name": lambda guest: b"api",
    "kv_store.open:name": lambda guest: b"cart",
    "object_store.open:name": lambda guest: b"cart",
    "acl.open:name": lambda guest: b"blocked",
    "shielding.shield_info:name": lambda guest: b"paris",
    "shielding.backend_for_shield:target": lambda guest: b"paris",
    "shielding.backend_for_shield:options": 0b1110,
    "shielding.backend_for_shield:config": _shield,
    "http_req.register_dynamic_backend:name": lambda guest: b"made",
    "http_req.register_dynamic_backend:target": lambda guest: b"made.example",
    "http_req.register_dynamic_backend:options": 0b11110,
    "http_req.register_dynamic_backend:config": _dynamic,
    "http_downstream.next_request:mask": 0b10,
    "http_downstream.next_request:options": lambda guest: guest.struct("<Q", 1000),
    "http_body.trailer_names_get:handle": WholeGuest.ended_body,
    "http_body.trailer_value_get:handle": WholeGuest.ended_body,
    "http_body.trailer_values_get:handle": WholeGuest.ended_body,
    "async_io.select:handles": lambda guest: guest.handle_list(WholeGuest.body),
    "kv_store.insert:options": 8 | 16,
    "kv_store.insert:config": _insertion,
    "kv_store.list:options": 2 | 4 | 8,
    "kv_store.list:config": _listing,
    "kv_store.lookup_wait:handle": _finished("lookup"),
    "kv_store.lookup_wait_v2:handle": _finished("lookup"),
    "kv_store.insert_wait:handle": _finished("insert"),
    "kv_store.delete_wait:handle": _finished("delete"),
    "kv_store.list_wait:handle": _finished("list"),
    "object_store.pending_lookup_wait:handle": _finished("lookup"),
    "object_store.pending_insert_wait:handle": _finished("insert"),
    "object_store.pending_delete_wait:handle": _finished("delete"),
}
