"""How a world travels to workers: each version once, and from then on by its digest alone.

So publishing one service among five hundred costs what one costs.  Both ends are here: `Sender` is
the supervisor's, `Receiver` a worker's.  Neither does I/O.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.control import MAX_TO_WORKER, ControlError, Prepare, encode
from edge.model.plain import from_plain, to_plain
from edge.model.service import Version
from edge.model.snapshot import Snapshot
from edge.runtime.artifacts import Artifact

# What a frame has besides versions and their modules: settings and digests.
RESERVE: Final = 32 * 1024 * 1024
# A service of the catalogue gets this part of what there is for all: its stores must not keep its
# neighbours from deploying.
SHARES: Final = 8


@dataclass(frozen=True, slots=True)
class _Known:
    version: Version  # held, so that its id() stays its own
    digest: str
    size: int  # see `size_of`


@dataclass(frozen=True, slots=True)
class Parcel:
    """A snapshot for workers that hold the same versions."""

    frame: bytes
    digests: frozenset[str]  # of all its versions: what a worker holds once it serves them


class Sender:
    """Remembers the digest of every version of the last snapshot.  Used in one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def pack(
        self, snapshot: Snapshot, artifacts: Mapping[str, Artifact], held: frozenset[str]
    ) -> Parcel:
        """What a worker that holds `held` needs to serve this.

        Takes milliseconds and more where much is new: not on a loop.  ControlError when everything
        together could not be sent to a worker that starts.
        """
        known: dict[int, _Known] = {}
        texts: dict[str, str] = {}
        needed: dict[str, Artifact] = {}
        order = []
        sizes: Counter[str] = Counter()
        for version in snapshot.versions:
            its = self._known.get(id(version))
            text = ""
            if its is None:
                text = _text(version)
                its = _Known(version, _digest(text), _size(text, artifacts.get(version.sha256)))
            known[id(version)] = its
            order.append(its.digest)
            sizes[version.id] += its.size
            if its.digest not in held:
                texts[its.digest] = text or _text(version)
                if version.sha256 in artifacts:
                    needed[version.sha256] = artifacts[version.sha256]
        _refuse_large(sizes)
        self._known = known
        frame = encode(Prepare(snapshot.generation, snapshot.settings, tuple(order), texts, needed))
        return Parcel(frame, frozenset(order))


class Receiver:
    """The versions that this worker serves, by digest."""

    def __init__(self) -> None:
        self._held: Mapping[str, Version] = {}
        self._served: Snapshot | None = None

    def unpack(self, order: Prepare) -> Delivery:
        """The whole snapshot; versions that are served are the same objects.  Changes nothing.

        For a thread.  ControlError when it names a version that is neither in it nor held.
        """
        held: dict[str, Version] = {}
        for digest in order.order:
            version = self._held.get(digest)
            if version is None:
                text = order.versions.get(digest)
                if text is None:
                    raise ControlError(f"no version {digest}: this worker does not hold it")
                version = from_plain(Version, json.loads(text))
            held[digest] = version
        versions = tuple(held[digest] for digest in order.order)
        snapshot = Snapshot(order.generation, order.settings, versions, like=self._served)
        return Delivery(snapshot, held)

    def commit(self, delivery: Delivery) -> None:
        """It is served from now on."""
        self._held, self._served = delivery.held, delivery.snapshot


@dataclass(frozen=True, slots=True)
class Delivery:
    """A snapshot as it arrived."""

    snapshot: Snapshot
    held: Mapping[str, Version]  # its versions by digest


def room() -> int:
    """Bytes that all versions of a world may take together, as `size_of` counts."""
    return MAX_TO_WORKER - RESERVE


def room_of_one() -> int:
    """Of those, what the versions of one service of the catalogue may take."""
    return room() // SHARES


def _refuse_large(sizes: Counter[str]) -> None:
    """`sizes` by id of the service; the file's, which has none, are the operator's own."""
    if sizes.total() > room():
        raise ControlError(
            f"all services take {sizes.total()} bytes with their stores and lists; "
            f"a worker takes at most {room()}"
        )
    largest = max((size for id_, size in sizes.items() if id_), default=0)
    if largest > room_of_one():
        raise ControlError(
            f"a service takes {largest} bytes with its stores and lists, in all its versions that "
            f"are served; one may take {room_of_one()}"
        )


def size_of(version: Version, artifact: Artifact | None) -> int:
    """Bytes that it takes in a frame, with the facts of its module.  Not on a loop, as `pack`."""
    return _size(_text(version), artifact)


def _size(text: str, artifact: Artifact | None) -> int:
    facts = 0 if artifact is None else len(json.dumps(to_plain(artifact)))
    return len(json.dumps(text)) + facts


def _text(version: Version) -> str:
    return json.dumps(to_plain(version), separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
