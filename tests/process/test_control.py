"""The wire between supervisor and worker: frames in pieces, and a worker that lies."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import pytest

from edge.control import (
    MAX_REASON,
    MAX_REASONS,
    MAX_TO_SUPERVISOR,
    MAX_TO_WORKER,
    MAX_UNREAD,
    Abort,
    Channel,
    Commit,
    Committed,
    ControlError,
    Drain,
    Failed,
    Frames,
    Inherited,
    Init,
    Prepare,
    Prepared,
    Sizing,
    Started,
    ToSupervisor,
    ToWorker,
    Unusable,
    bounded,
    decode_to_supervisor,
    decode_to_worker,
    encode,
)
from edge.model.plain import to_plain
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Service, Version
from edge.runtime.artifacts import Artifact
from edge.runtime.inspect import ModuleInfo
from edge.runtime.sections import Import, Kind
from edge.settings import Settings

INFO = ModuleInfo(
    "ab" * 32, 9, "wasi", (Import("m", "f", Kind.FUNCTION, "i->"),), 65536, (3,), True
)
SERVICE = Service(
    "shop",
    Path("/srv/shop.wasm"),
    (Route("shop.test", "/"),),
    env={"A": "b"},
    secret_stores={"keys": {"api": Secret(b"\xff\0hidden")}},
)
VERSION = Version(SERVICE, 2, "ab" * 32, Path("/a.code"), series=4)

TO_WORKER: list[ToWorker] = [
    Init(
        slot=1, workers=2, blocks=9, cells_fd=5, log_fd=1,
        listeners=(Inherited(6, "[::1]:80", proxy_protocol=True),),
        sizing=Sizing(10, 1 << 30, 1 << 27, 1000), settings=Settings(),
        rates=Path("/dev/shm/r"), own_addresses=("127.0.0.1:8090",),
    ),
    Prepare(
        7, Settings(), ("e1", "e2"), {"e2": json.dumps(to_plain(VERSION))},
        {"ab" * 32: Artifact(Path("/a.code"), "cd" * 32, 12, INFO)},
    ),
    Commit(7),
    Abort(7),
    Drain(1.5),
]  # fmt: skip
TO_SUPERVISOR: list[ToSupervisor] = [
    Started(),
    Prepared(7),
    Failed(7, {"shop": "no such import"}),
    Committed(7),
    Unusable(("pool.slots: too many",)),
]


@pytest.mark.parametrize("message", TO_WORKER)
def test_what_the_supervisor_says_arrives_as_it_was(message: ToWorker) -> None:
    (body,) = Frames(MAX_TO_WORKER).feed(encode(message))
    assert decode_to_worker(body) == message


@pytest.mark.parametrize("message", TO_SUPERVISOR)
def test_what_a_worker_says_arrives_as_it_was(message: ToSupervisor) -> None:
    (body,) = Frames(MAX_TO_SUPERVISOR).feed(encode(message))
    assert decode_to_supervisor(body) == message


def test_frames_arrive_byte_by_byte_and_several_at_once() -> None:
    stream = b"".join(map(encode, TO_SUPERVISOR))
    whole = Frames(MAX_TO_SUPERVISOR).feed(stream)
    frames = Frames(MAX_TO_SUPERVISOR)
    pieces = [body for byte in stream for body in frames.feed(bytes([byte]))]
    assert pieces == whole
    assert len(whole) == len(TO_SUPERVISOR)


def test_a_frame_above_the_limit_is_refused_before_it_is_held() -> None:
    with pytest.raises(ControlError, match="at most 100"):
        Frames(100).feed((101).to_bytes(4, "big"))


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ControlError, match="can be sent"):
        encode(Unusable(("x" * MAX_TO_SUPERVISOR,)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"type":"prepared"}',
        b'{"type":"prepared","body":{"generation":"7"}}',
        b'{"type":"prepared","body":{"generation":7.5}}',
        b'{"type":"failed","body":{"generation":7,"reasons":[]}}',
        b'{"type":"failed","body":{"generation":7,"reasons":{"a":1}}}',
        b'{"type":"unusable","body":{"problems":[1]}}',
        b'{"type":"init","body":{}}',
        b'{"type":["started"]}',
    ],
)
def test_a_worker_that_lies_is_cut_off(body: bytes) -> None:
    with pytest.raises(ControlError):
        decode_to_supervisor(body)


def test_reasons_of_a_worker_are_bounded_on_both_sides() -> None:
    many = {str(number): "x" for number in range(MAX_REASONS + 1)}
    with pytest.raises(ControlError, match="reasons"):
        decode_to_supervisor(
            json.dumps({"type": "failed", "body": {"generation": 1, "reasons": many}}).encode()
        )
    assert len(bounded(many)) == MAX_REASONS
    long = decode_to_supervisor(encode(Failed(1, {"a": "x" * 2 * MAX_REASON}))[4:])
    assert isinstance(long, Failed)
    assert len(long.reasons["a"]) == MAX_REASON


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"commit","body":{}}', b'{"type":"x"}'])
def test_orders_that_cannot_be_read_are_refused(body: bytes) -> None:
    with pytest.raises(ControlError):
        decode_to_worker(body)


def test_secrets_do_not_show_in_what_is_logged_about_a_message() -> None:
    assert b64encode(b"\xff\0hidden") in encode(TO_WORKER[1])
    assert "shop.test" not in repr(TO_WORKER[1])


class _Deaf(asyncio.Transport):
    """A transport whose other end takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def test_a_worker_that_does_not_read_is_cut_off_before_it_costs_much() -> None:
    channel = Channel(limit=1 << 20, on_body=lambda body: None, on_close=lambda reason: None)
    deaf = _Deaf()
    channel.connection_made(deaf)
    for _ in range(100):
        channel.send_frame(b"x" * 1_000_000)
    assert deaf.aborted
    assert deaf.waiting <= MAX_UNREAD + 2_000_000
