"""Whoever has further requests, in a test's hands: it gives, refuses, and keeps what it is told."""

from __future__ import annotations

from edge.abi.further import Further
from edge.abi.sandbox import Sandbox
from tests.support.fake_downstream import FakeDownstream


class FakeGiver:
    """`Source` and `Giver` for one sandbox; `told` has the names of the calls, in order."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.asked: list[float] = []
        self.told: list[str] = []
        self.promise: Further | None = None
        self._next: FakeDownstream | None = None  # given to a guest that did not rest
        box.requests = self

    def ask(self, seconds: float) -> Further:
        self.asked.append(seconds)
        self.promise = Further(self)
        return self.promise

    def watched(self) -> None:
        self.told.append("watched")

    def unwatched(self) -> None:
        self.told.append("unwatched")

    def rest(self) -> None:
        self.told.append("rest")
        if self._next is not None:
            self.box.begin(self._next, self.box.calls)

    def wake(self) -> None:
        self.told.append("wake")

    def dropped(self) -> None:
        self.told.append("dropped")

    def give(self, client: FakeDownstream) -> None:
        """The next client's request."""
        assert self.promise is not None
        if "rest" in self.told:
            self.box.begin(client, self.box.calls)
        else:
            self._next = client
        self.promise.give()

    def refuse(self) -> None:
        assert self.promise is not None
        self.promise.refuse()
