"""The requests that one sandbox serves one after the other, because its program asks for more.

Each of them is a `Visit` with a record and budgets of its own; this is what lies between two of
them.  A sandbox that never asks has none of this.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from edge.abi.further import Further
from edge.abi.wasi.program import flush
from edge.errors import LimitExceeded
from edge.outcome import OK, Outcome
from edge.runtime.guest import Guest

if TYPE_CHECKING:
    from edge.dispatch.visit import Visit

# A guest that waits for its promise among other things may do those first; its client must not wait
# for that when a fresh sandbox takes a millisecond.
TAKE_SECONDS: Final = 0.05


class Succession:
    """Made when a guest first asks for a further request; ends with the guest.

    The guest *rests* while it waits for its promise and for nothing else, its last request told and
    done with: then it can be given a request at once, or be ended for its slot without loss.
    """

    def __init__(self, visit: Visit, guest: Guest) -> None:
        self.visit = visit  # what it serves, or served last
        self.deployed = visit.deployed
        self.dispatcher = visit.dispatcher
        self.guest = guest
        self.outcome: Outcome | None = None  # set when the guest has ended
        self.taken = 0  # further requests
        self._began_ns = visit.exchange.started_ns
        self.resting = False
        self._promise: Further | None = None
        self._given: Visit | None = None  # and not taken
        self._timer: asyncio.TimerHandle | None = None
        self._streaming: set[Visit] = set()  # earlier ones whose responses are still on their way
        self._told = False  # the visit has its record, as far as the guest goes
        self._told_cpu = self._told_calls = 0  # what that said
        self._wall_left = 0.0  # seconds, while the guest rests
        guest.on_end = self.guest_ended
        guest.box.requests = self

    # Source and Giver, for the guest's hostcalls ----------------------------------------------

    def ask(self, seconds: float) -> Further:
        """See `edge.abi.further.Source`."""
        promise = self._promise = Further(self)
        age = (perf_counter_ns() - self._began_ns) / 1e9
        left = self.deployed.limits.reuse_age - age
        if left <= 0 or not self.may_go_on:
            self.refuse()
        else:
            self._wait(min(seconds, left))
        return promise

    @property
    def may_go_on(self) -> bool:
        """Whether a further request may come at all: by its own limits, and as things stand."""
        return (
            self.taken < self.deployed.limits.reuse_requests
            and self.deployed.serves
            and not self.dispatcher.is_pressed
            and not self.dispatcher.draining
        )

    def watched(self) -> None:
        if self.guest.box.downstream.responded:
            self.dispatcher.idle.offer(self)

    def unwatched(self) -> None:
        self.dispatcher.idle.remove(self)

    def rest(self) -> None:
        if not self._told:
            self._told = True
            self._told_cpu, self._told_calls = self.guest.cpu_used, self.guest.box.calls
            self.visit.answered(self.guest)
        self.resting = True
        self._wall_left = self.dispatcher.runtime.deadlines.hold(self.guest)
        visit, self._given = self._given, None
        if visit is not None:
            if not self._begin(visit):
                self.refuse()
                self.dispatcher.readmit(visit)
        elif self._promise is not None and not self._promise.is_settled:
            self.dispatcher.idle.offer(self)

    def wake(self) -> None:
        self.resting = False
        loop = self.dispatcher.loop
        self.dispatcher.runtime.deadlines.move(loop.time() + self._wall_left, self.guest)

    def dropped(self) -> None:
        self._promise = None
        self._forget()
        visit, self._given = self._given, None
        if visit is not None:
            self.dispatcher.readmit(visit)

    # For the dispatcher -------------------------------------------------------------------------

    def give(self, visit: Visit) -> bool:
        """Hand a request to the guest, which is no longer among the idle; False if it cannot."""
        promise = self._promise
        assert promise is not None
        visit.given = self
        if not self.resting:
            self._given = visit
            self._wait(TAKE_SECONDS)
        elif not self._begin(visit):
            self.refuse()
            return False
        promise.give()
        return True

    def take_back(self, visit: Visit) -> None:
        """The request needs no sandbox any more (its client left): then the guest needs none."""
        if self._given is visit:
            self._given = None
            self.refuse()

    def refuse(self) -> None:
        """There will be no further request: the guest is told, and ends when it is ready."""
        self._forget()
        if self._promise is not None:
            self._promise.refuse()

    def evict(self) -> None:
        """Its slot or its memory is needed: end it now.  For one that `may_be_evicted`."""
        self._forget()
        self.dispatcher.runtime.end(self.guest, OK)

    @property
    def may_be_evicted(self) -> bool:
        """True when ending the guest takes nothing from any client."""
        return self.resting and self.visit.exchange.ended and not self._streaming

    @property
    def serves_others(self) -> bool:
        """True while an earlier client still gets its response: the guest may be writing it."""
        return bool(self._streaming)

    def over(self, visit: Visit) -> None:
        """An earlier visit's response has ended."""
        self._streaming.discard(visit)

    def guest_ended(self, guest: Guest, outcome: Outcome) -> None:
        """Called by the runtime exactly once: the visit under way answers for it, if there is one.

        A program that leaves with an exit code when all is answered has done its work (the
        JavaScript SDK says -1 then).
        """
        answered = self._told or self.visit.exchange.responded
        if answered and guest.exit_code is not None and guest.fault is None:
            outcome = OK
        self.outcome = outcome
        if not self._told:
            self.visit.guest_ended(guest, outcome)
        else:
            flush(guest.box)
            guest.box.close(well=outcome is OK)
            self.dispatcher.release(self.deployed)
            self.dispatcher.reports.ended(
                self.deployed.name,
                self.deployed.number,
                self.visit.exchange.request_id,
                outcome,
            )
        for visit in (self.visit, *self._streaming):
            if visit.lingers is None and not visit.exchange.ended:
                visit.linger(guest.box.account)
        self._forget()
        guest.box.requests = None  # no cycle is left behind

    # Between two requests -----------------------------------------------------------------------

    def _begin(self, visit: Visit) -> bool:
        """The guest serves `visit` from here on; False, and nothing has changed, if it cannot."""
        guest, last = self.guest, self.visit
        try:
            downstream = visit.enter(guest)
        except LimitExceeded:  # of the memory that we hold for this sandbox
            return False
        self.taken += 1
        if not last.exchange.ended:
            self._streaming.add(last)
        guest.renew(self._told_cpu)
        guest.box.begin(downstream, self._told_calls)
        self.visit, self._told, self.resting = visit, False, False
        loop, wall = self.dispatcher.loop, self.deployed.limits.wall
        self.dispatcher.runtime.deadlines.move(loop.time() + wall, guest)
        visit.succession = self
        self._promise = None
        self._forget()
        return True

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.dispatcher.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        """Nobody came; or somebody did and was not let in."""
        self._timer = None
        visit, self._given = self._given, None
        self.refuse()
        if visit is not None:
            self.dispatcher.readmit(visit)

    def _forget(self) -> None:
        """Nobody can be given to it."""
        self.dispatcher.idle.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
