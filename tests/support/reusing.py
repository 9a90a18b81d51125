"""WAT guests that serve request after request in one sandbox, and say how many they have served."""

from __future__ import annotations

from edge.outcome import Ending
from tests.support.downstream import Town
from tests.support.runtime import program
from tests.support.transport import Driven

IMPORTS = (
    "http_req.body_downstream_get",
    "http_req.method_get",
    "http_req.new",
    "http_resp.new",
    "http_resp.status_set",
    "http_resp.header_append",
    "http_resp.send_downstream",
    "http_body.new",
    "http_body.write",
    "http_body.read",
    "http_body.close",
    "http_downstream.next_request",
    "http_downstream.next_request_wait",
    "http_downstream.next_request_abandon",
    "async_io.select",
    "wasi.fd_write",
    "wasi.proc_exit",
    "wasi.poll_oneoff",
)
# Where things stand in the guest's memory.
REQUEST, BODY, RESPONSE, CONTENT, PROMISE, COUNT, OUT = 16, 20, 24, 28, 32, 36, 40


def load(at: int) -> str:
    """The word at an address."""
    return f"(i32.load (i32.const {at}))"


def must(call: str, *arguments: str | int) -> str:
    """A hostcall whose status must be OK; numbers are constants."""
    values = " ".join(f"(i32.const {a})" if isinstance(a, int) else a for a in arguments)
    return f"(call $must (call ${call} {values}))"


def on(number: int, act: str) -> str:
    """Do something for one request only, counted from 1."""
    return f"(if (i32.eq {load(COUNT)} (i32.const {number})) (then {act}))"


# Answers with one digit: which request of this sandbox it is.
ANSWER = (
    must("http_resp.new", RESPONSE)
    + must("http_body.new", CONTENT)
    + f"(i32.store8 (i32.const 64) (i32.add {load(COUNT)} (i32.const 48)))"
    + must("http_body.write", load(CONTENT), 64, 1, 0, OUT)
    + must("http_resp.send_downstream", load(RESPONSE), load(CONTENT), 0)
)
ASK = must("http_downstream.next_request", 0, 0, PROMISE)
WAIT = (
    f"(call $http_downstream.next_request_wait {load(PROMISE)}"
    f" (i32.const {REQUEST}) (i32.const {BODY}))"
)
BEGIN = must("http_req.body_downstream_get", REQUEST, BODY)
# Waits with `select` until something has happened to the promise.
SELECT = f"{must('async_io.select', PROMISE, 1, 0, OUT)}"
SPIN = "(loop $for_ever (br $for_ever))"
# Some milliseconds of CPU.
BURN = (
    "(local.set $i (i32.const 12000000))"
    "(loop $burn (br_if $burn (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
)
# A line of 63 characters on stdout.
LOG = (
    "(i32.store (i32.const 100) (i32.const 128)) (i32.store (i32.const 104) (i32.const 64))"
    "(memory.fill (i32.const 128) (i32.const 120) (i32.const 63))"
    "(i32.store8 (i32.const 191) (i32.const 10))"
    "(drop (call $wasi.fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 108)))"
)


def sleep_for(milliseconds: int) -> str:
    """Wait for nothing."""
    return (
        "(i32.store (i32.const 144) (i32.const 1))"
        f"(i64.store (i32.const 152) (i64.const {milliseconds * 1_000_000}))"
        "(drop (call $wasi.poll_oneoff (i32.const 128) (i32.const 192) (i32.const 1)"
        f" (i32.const {OUT})))"
    )


def ask_for(milliseconds: int) -> str:
    """Ask with a timeout."""
    store = f"(i64.store (i32.const {OUT}) (i64.const {milliseconds}))"
    return store + must("http_downstream.next_request", 2, OUT, PROMISE)


def serving(
    act: str = "",
    *,
    answer: str = ANSWER,
    ask: str = ASK,
    wait: str = WAIT,
    after: str = "",
    extra: str = "",
) -> str:
    """A guest that does `act` and answers, for each request; and `after` when there are no more.

    `extra` is more of the module.
    """
    body = (
        f"(local $i i32) {BEGIN} (loop $more"
        f" (i32.store (i32.const {COUNT}) (i32.add {load(COUNT)} (i32.const 1)))"
        f"{act} {answer} {ask} (br_if $more (i32.eqz {wait})))"
    )
    return program(f"{body} {after}", *IMPORTS, extra=extra)


def said(client: Driven) -> bytes:
    """The content that a client has received."""
    return client.received.partition(b"\r\n\r\n")[2]


def fetch(there: Town, name: str, request: bytes = b"") -> Driven:
    """One request, answered; and its sandbox waits for another one or has ended."""
    client = there.ask(name, request)
    there.until(client)
    settle(there)
    return client


def one_record_each(there: Town) -> None:
    """End every sandbox, and see that no request has been counted twice or not at all."""
    there.dispatcher.draining = True
    settle(there)
    there.arena.loop.run_until_complete(_shut_down(there))
    there.settle()
    requests = sum(len(client.exchanges) for client in there.clients)
    assert sum(there.count("shop", ending) for ending in Ending) == requests, "one record each"


async def _shut_down(there: Town) -> None:
    there.dispatcher.shut_down()


def settle(there: Town) -> None:
    """Let every guest that could run do so until it waits or ends."""
    there.arena.turns(6)


def live(there: Town) -> int:
    """Sandboxes that exist."""
    return there.arena.runtime.live
