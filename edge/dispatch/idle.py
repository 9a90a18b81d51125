"""Sandboxes that wait for a further request: who gets the next one, and who has to go.

They are a worker's reserve: each holds a slot and memory only until somebody needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.dispatch.deployed import Deployed, Tenant
    from edge.dispatch.dispatcher import Dispatcher
    from edge.dispatch.succession import Succession

# Of one service version.  More would hardly ever be wanted at once: who waits longest is the last
# to be asked.
MOST_IDLE: Final = 5


class Idle:
    """One per worker.  `Deployed.idle` holds those of one version, the latest at its end."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._all: dict[Succession, None] = {}  # those that have waited longest first

    def __len__(self) -> int:
        return len(self._all)

    def offer(self, succession: Succession) -> None:
        """A guest could take a request: it gets one that waits, or waits itself, or is refused."""
        deployed = succession.deployed
        dispatcher = self._dispatcher
        if succession in self._all:
            return
        if not succession.may_go_on or dispatcher.others_wait(deployed):
            succession.refuse()
            return
        visit = dispatcher.next_waiting(deployed)
        if visit is not None:
            taken = False
            try:
                taken = succession.give(visit)
            finally:  # whatever went wrong there, its client is to be answered
                if not taken:
                    dispatcher.readmit(visit)
        elif len(deployed.idle) >= MOST_IDLE:
            succession.refuse()
        else:
            deployed.idle.append(succession)
            self._all[succession] = None

    def remove(self, succession: Succession) -> None:
        """It cannot be given a request any more."""
        if succession in self._all:
            del self._all[succession]
            succession.deployed.idle.remove(succession)

    def take(self, deployed: Deployed) -> Succession:
        """The one that has waited for the shortest time: its memory is the warmest."""
        succession = deployed.idle.pop()
        del self._all[succession]
        return succession

    def make_room(self, tenant: Tenant | None = None) -> bool:
        """End the one that has waited longest; False when none could be ended at once.

        Then one of them is told that no request will come, and ends when it is ready.  `tenant`:
        one of this service's alone.
        """
        first: Succession | None = None
        for succession in self._all:
            if tenant is not None and succession.deployed.tenant is not tenant:
                continue
            if succession.may_be_evicted:
                succession.evict()
                return True
            first = first or succession
        if first is not None:
            first.refuse()
        return False

    def dismiss(self, deployed: Deployed | None = None) -> None:
        """No request will come for this version, or (None) for any: let the guests know."""
        for succession in list(self._all if deployed is None else deployed.idle):
            succession.refuse()
