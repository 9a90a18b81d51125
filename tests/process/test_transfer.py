"""Worlds on their way to workers: what is sent, what is read again, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge import transfer
from edge.control import ControlError, Prepare, decode_to_worker
from edge.model.plain import to_plain
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Role, Service, Version
from edge.model.snapshot import Snapshot
from edge.runtime.artifacts import Artifact
from edge.runtime.inspect import ModuleInfo
from edge.settings import Settings
from edge.transfer import Receiver, Sender

INFO = ModuleInfo("a" * 64, 1, "wasi", (), 0, (), start_function=False)


def version(name: str, number: int = 1, **parts: object) -> Version:
    service = Service(
        name,
        Path(name),
        (Route(f"{name}.test"),),
        secret_stores={"keys": {"api": Secret(b"\xff of " + name.encode())}},
    )
    made = Version(service, number, name * 8, Path(f"/{name}.code"), id=name)
    return replace(made, **parts)  # type: ignore[arg-type]  # fields by name


def artifacts(*versions: Version) -> dict[str, Artifact]:
    return {
        v.sha256: Artifact(Path(f"/{v.sha256}"), "d", 1, replace(INFO, sha256=v.sha256))
        for v in versions
    }


def order(frame: bytes) -> Prepare:
    found = decode_to_worker(frame[4:])
    assert isinstance(found, Prepare)
    return found


@pytest.fixture
def many() -> tuple[Version, ...]:
    return tuple(version(f"s{number}") for number in range(500))


def test_a_worker_that_starts_is_sent_everything(many: tuple[Version, ...]) -> None:
    snapshot = Snapshot(1, Settings(), many)
    parcel = Sender().pack(snapshot, artifacts(*many), frozenset())
    received = order(parcel.frame)
    assert len(received.versions) == len(received.artifacts) == 500
    assert Receiver().unpack(received).snapshot == snapshot


def test_one_change_among_five_hundred_is_all_that_is_packed_sent_and_read(
    many: tuple[Version, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = Sender(), Receiver()
    first = sender.pack(Snapshot(1, Settings(), many), artifacts(*many), frozenset())
    delivery = receiver.unpack(order(first.frame))
    receiver.commit(delivery)
    new = version("s7", 2, sha256="new")
    after = tuple(new if v is many[7] else v for v in many)
    packed: list[str] = []

    def counted(value: object) -> object:
        if isinstance(value, Version):
            packed.append(value.label)
        return to_plain(value)

    monkeypatch.setattr(transfer, "to_plain", counted)
    second = sender.pack(Snapshot(2, Settings(), after), artifacts(*after), first.digests)
    assert packed == ["s7"]
    received = order(second.frame)
    assert [json.loads(text)["service"]["name"] for text in received.versions.values()] == ["s7"]
    assert set(received.artifacts) == {"new"}
    assert len(second.frame) < len(first.frame) / 20
    again = receiver.unpack(received)
    assert again.snapshot == Snapshot(2, Settings(), after)
    kept = zip(again.snapshot.versions, delivery.snapshot.versions, strict=True)
    assert sum(now is before for now, before in kept) == 499


def test_workers_that_hold_different_worlds_get_different_frames(many: tuple[Version, ...]) -> None:
    sender, behind = Sender(), Receiver()
    old = sender.pack(Snapshot(1, Settings(), many[:3]), {}, frozenset())
    behind.commit(behind.unpack(order(old.frame)))
    now = Snapshot(5, Settings(), many[1:5])
    assert behind.unpack(order(sender.pack(now, {}, old.digests).frame)).snapshot == now
    assert Receiver().unpack(order(sender.pack(now, {}, frozenset()).frame)).snapshot == now


def test_what_was_prepared_and_not_committed_is_not_held(many: tuple[Version, ...]) -> None:
    sender, receiver = Sender(), Receiver()
    parcel = sender.pack(Snapshot(1, Settings(), many[:2]), {}, frozenset())
    receiver.unpack(order(parcel.frame))  # and then the supervisor aborted it
    following = sender.pack(Snapshot(2, Settings(), many[:2]), {}, parcel.digests)
    with pytest.raises(ControlError, match="does not hold it"):
        receiver.unpack(order(following.frame))


def test_the_same_number_with_other_contents_is_sent_again() -> None:
    sender = Sender()
    before = version("shop")
    parcel = sender.pack(Snapshot(1, Settings(), (before,)), {}, frozenset())
    service = replace(before.service, config_stores={"flags": {"on": "1"}})
    changed = Snapshot(2, Settings(), (replace(before, service=service),))
    assert len(order(sender.pack(changed, {}, parcel.digests).frame).versions) == 1
    equal = Snapshot(3, Settings(), (replace(before),))
    assert not order(sender.pack(equal, {}, parcel.digests).frame).versions


def test_several_versions_of_a_service_travel_side_by_side() -> None:
    versions = (
        version("shop"),
        version("shop", 2, role=Role.CANARY, share=500),
        version("shop", 3, role=Role.STAGED),
    )
    snapshot = Snapshot(1, Settings(), versions)
    parcel = Sender().pack(snapshot, artifacts(*versions), frozenset())
    assert len(parcel.digests) == 3
    assert len(order(parcel.frame).artifacts) == 1
    assert Receiver().unpack(order(parcel.frame)).snapshot == snapshot


def test_a_world_that_no_fresh_worker_could_be_sent_is_refused_even_if_the_change_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big = version("big")
    big = replace(big, service=replace(big.service, env={"A": "x" * 10_000}))
    sender = Sender()
    parcel = sender.pack(Snapshot(1, Settings(), (big,)), {}, frozenset())
    monkeypatch.setattr(transfer, "MAX_TO_WORKER", transfer.RESERVE + 10_500)
    with pytest.raises(ControlError, match="at most 10500"):
        sender.pack(Snapshot(2, Settings(), (big, version("small"))), {}, parcel.digests)
