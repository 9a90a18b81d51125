"""A constant load on a service while its versions change, and what each answer may have been.

Whoever changes what is served says so before and after on a `Timeline`; each client checks each of
its answers against what was served at some instant while it waited.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import BinaryIO

from tests.support.server import DEADLINE

TEXT = 8  # bytes that a program says of itself
GONE = "gone"  # no version is served: the host is not ours (421)
_MOST_FAILURES = 10
_REST_SECONDS = 0.001  # of a client between two requests, so that the server is not all they use

# Answers what it is and what its config store `flags` has under `item`.  A request with a body gets
# a response that streams: what it is, then, when all of the request has come, both of them.
_PROGRAM = """(module
  (import "fastly_http_req" "body_downstream_get" (func $downstream (param i32 i32) (result i32)))
  (import "fastly_http_resp" "new" (func $response_new (param i32) (result i32)))
  (import "fastly_http_resp" "send_downstream" (func $send (param i32 i32 i32) (result i32)))
  (import "fastly_http_body" "new" (func $body_new (param i32) (result i32)))
  (import "fastly_http_body" "read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "fastly_http_body" "write" (func $write (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_body" "close" (func $close (param i32) (result i32)))
  (import "fastly_config_store" "open" (func $open (param i32 i32 i32) (result i32)))
  (import "fastly_config_store" "get"
    (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; request 0, its body 4, response 8, response body 12, written 16, store 20, value 24, read 28
  (data (i32.const 64) "flags")
  (data (i32.const 80) "item")
  (data (i32.const 96) "TEXTTEXT")
  (func $must (param $status i32)
    (if (local.get $status) (then unreachable)))
  (func $some (result i32)
    (call $must (call $read (i32.load (i32.const 4))
      (i32.const 512) (i32.const 256) (i32.const 28)))
    (i32.load (i32.const 28)))
  (func $say (param $size i32)
    (call $must (call $write (i32.load (i32.const 12))
      (i32.const 96) (local.get $size) (i32.const 0) (i32.const 16))))
  (func $both (result i32)
    (i32.add (i32.const 8) (i32.load (i32.const 24))))
  (func (export "_start")
    (call $must (call $downstream (i32.const 0) (i32.const 4)))
    (call $must (call $open (i32.const 64) (i32.const 5) (i32.const 20)))
    (call $must (call $get (i32.load (i32.const 20)) (i32.const 80) (i32.const 4)
      (i32.const 104) (i32.const 64) (i32.const 24)))
    (call $must (call $response_new (i32.const 8)))
    (call $must (call $body_new (i32.const 12)))
    (if (call $some)
      (then
        (call $must (call $send
          (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 1)))
        (call $say (i32.const 8))
        (loop $more (br_if $more (call $some)))
        (call $say (call $both))
        (call $must (call $close (i32.load (i32.const 12)))))
      (else
        (call $say (call $both))
        (call $must (call $send
          (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0)))))))
"""


def program(text: str) -> bytes:
    """A module that answers `text` and the number that its store has."""
    assert len(text) <= TEXT
    return _PROGRAM.replace("TEXTTEXT", text.ljust(TEXT)).encode()


@dataclass(frozen=True, slots=True)
class Moment:
    """What may be answered from an instant on, until the next one."""

    texts: frozenset[str]
    floor: int = 0  # the least number that the store may be seen to have
    canary: str = ""  # the one of `texts` that some clients are given, and keep
    period: int = 0  # of a canary: within one its clients only become more


class Timeline:
    """The moments of one host, in order."""

    def __init__(self, *texts: str) -> None:
        self._lock = threading.Lock()
        self._moments = [(perf_counter(), Moment(frozenset(texts)))]
        self.newest = 0  # number that was ever written to the store

    @property
    def now(self) -> Moment:
        """The last one."""
        return self._moments[-1][1]

    def turn(self, moment: Moment) -> None:
        """From here on."""
        with self._lock:
            self._moments.append((perf_counter(), moment))

    def between(self, begin: float, end: float) -> list[Moment]:
        """All that an answer asked for at `begin` and had at `end` may be of."""
        with self._lock:
            found = []
            for since, moment in reversed(self._moments):
                if since <= end:
                    found.append(moment)
                if since <= begin:
                    break
            return found[::-1]


@dataclass
class Load:
    """Everything that presses on one host, and what was wrong with its answers."""

    port: int
    host: str
    timeline: Timeline
    answers: int = 0
    streams: int = 0  # whole, and each over at least two changes
    canaries: int = 0  # answers of a canary that was there all the while
    others: int = 0  # answers of the active version beside it
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _changes: int = 0
    _answered: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def press(self, clients: int, streams: int = 0) -> Iterator[None]:
        """Have so many clients ask all the time, each from an address of its own."""
        threads = [
            threading.Thread(target=self._guarded, args=(work, f"127.0.0.{2 + number}"))
            for number, work in enumerate([self._ask] * clients + [self._stream] * streams)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self.changed()
            for thread in threads:
                thread.join(DEADLINE)

    def changed(self) -> None:
        """Another version has begun to serve: streams wait for some of that."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _wait_for_changes(self, count: int) -> None:
        with self._changed:
            wanted = self._changes + count
            self._changed.wait_for(lambda: self._changes >= wanted or self._stop.is_set(), DEADLINE)

    def wait_for_answers(self, count: int) -> None:
        """Until so many more have come, or no client is left to ask."""
        with self._answered:
            wanted = self.answers + count
            self._answered.wait_for(lambda: self.answers >= wanted, DEADLINE)

    def _guarded(self, work: object, address: str) -> None:
        assert callable(work)
        try:
            work(address)
        except Exception as error:
            self._fail(f"a client at {address} broke: {error!r}")

    def _fail(self, what: str) -> None:
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(what)

    def _connect(self, address: str) -> socket.socket:
        client = socket.create_connection(
            ("127.0.0.1", self.port), timeout=DEADLINE, source_address=(address, 0)
        )
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def _ask(self, address: str) -> None:
        """One request after another; a new connection only where the server says so."""
        asked = f"GET / HTTP/1.1\r\nhost: {self.host}\r\n\r\n".encode()
        period, was_canary = 0, False
        while not self._stop.is_set():
            seen = 0  # on this connection, thus by one worker
            with self._connect(address) as client:
                closed = False
                while not closed and not self._stop.wait(_REST_SECONDS):
                    begin = perf_counter()
                    client.sendall(asked)
                    status, body, closed = _answer(client)
                    moments = self.timeline.between(begin, perf_counter())
                    text = self._check(status, body, moments)
                    if status == 200 and (number := body[TEXT:].strip()):
                        seen = self._check_number(text, int(number), moments[0], seen)
                    with self._answered:
                        self.answers += 1
                        self._answered.notify_all()
                    one = moments[0]
                    if len(moments) > 1 or not one.canary:
                        continue
                    if one.period == period and was_canary and text != one.canary:
                        self._fail(f"{address} had the canary {one.canary} and then {text}")
                    period, was_canary = one.period, text == one.canary
                    self.canaries += was_canary
                    self.others += not was_canary

    def _check(self, status: int, said: str, moments: list[Moment]) -> str:
        """What the program says of itself; it is noted when nothing of the kind was served."""
        may = frozenset(itertools.chain.from_iterable(moment.texts for moment in moments))
        text = (
            said[:TEXT].strip() if status == 200 else GONE if status == 421 else f"{status} {said}"
        )
        if text not in may:
            self._fail(f"{text!r}, where {sorted(may)} may be")
        return text

    def _check_number(self, text: str, number: int, first: Moment, seen: int) -> int:
        """The number that a program saw in its store, which never goes back."""
        least, newest = max(seen, first.floor), self.timeline.newest
        if not least <= number <= newest:
            self._fail(f"{text} saw {number} in its store, not {least} to {newest}")
        return max(number, seen)

    def _stream(self, address: str) -> None:
        """A request that ends when versions have changed twice since it began."""
        head = f"POST / HTTP/1.1\r\nhost: {self.host}\r\ncontent-length: 10\r\n\r\n".encode()
        while not self._stop.is_set():
            with self._connect(address) as client, client.makefile("rb") as answer:
                begin = perf_counter()
                client.sendall(head + b"first")
                status = int(answer.readline().split()[1])
                while answer.readline().strip():
                    pass
                said = _chunk(answer) if status == 200 else answer.read()
                text = self._check(
                    status, said.decode(), self.timeline.between(begin, perf_counter())
                )
                self._wait_for_changes(2)
                client.sendall(b"after")
                rest = b""
                while piece := _chunk(answer):
                    rest += piece
                if rest[:TEXT].decode().strip() != text:
                    self._fail(f"a response of {text} ended with {rest!r}")
                self.streams += not self._stop.is_set()


def _answer(client: socket.socket) -> tuple[int, str, bool]:
    """Status, body, and whether the connection ends with it.  ConnectionError when it is cut."""
    data = b""
    while True:
        piece = client.recv(65536)
        if not piece:
            raise ConnectionError(f"the connection ended after {data!r}")
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(body) >= length:
                return int(data[9:12]), body.decode(), b"connection: close" in head.lower()


def _chunk(answer: BinaryIO) -> bytes:
    """The next one (RFC 9112, section 7.1); empty at the end.  ConnectionError when it is cut."""
    line = answer.readline()
    if not line:
        raise ConnectionError("the response ended before its last chunk")
    data = answer.read(int(line, 16))
    answer.readline()
    return data
