"""What a client is told when the host answers in a guest's place.  Never anything of its inside."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

from edge.outcome import Ending, Outcome
from edge.server.exchange import Exchange

# status, sentence, seconds for Retry-After
_PAGES: dict[Ending, tuple[int, str, int | None]] = {
    Ending.GUEST_ERROR: (500, "The service failed.", None),
    Ending.TRAP: (500, "The service failed.", None),
    Ending.STACK_LIMIT: (500, "The service exceeded its stack.", None),
    Ending.MEMORY_LIMIT: (500, "The service exceeded its memory.", None),
    Ending.TABLE_LIMIT: (500, "The service exceeded its table.", None),
    Ending.OUTPUT_LIMIT: (500, "The response was larger than allowed.", None),
    Ending.CPU_LIMIT: (503, "The service exceeded its CPU time.", None),
    Ending.WALL_LIMIT: (504, "The service took too long.", None),
    Ending.MEMORY_PRESSURE: (503, "The server is short of memory.", 1),
    Ending.OVERLOAD: (503, "The service is busy.", 1),
    Ending.QUARANTINED: (503, "The service is suspended.", 60),
    Ending.UNAVAILABLE: (503, "The service could not be loaded.", 60),
    Ending.SHUTDOWN: (503, "The server is going away.", 1),
    Ending.BODY_LIMIT: (413, "The request body was larger than allowed.", None),
    Ending.LOOP: (508, "The request goes in circles.", None),
    Ending.FAULT: (500, "The server failed.", None),
}


def answer(exchange: Exchange, outcome: Outcome) -> None:
    """The page for an outcome; a response that has begun is broken off instead."""
    status, sentence, retry_after = _PAGES.get(outcome.ending, _PAGES[Ending.FAULT])
    exchange.respond_error(status, sentence, outcome.ending.value, retry_after)


def answer_no_route(exchange: Exchange, *, host_known: bool) -> None:
    """404 for a path no service has, 421 for a host that none has (RFC 9110, 15.5.20)."""
    if host_known:
        exchange.respond_error(404, "No service answers this path.", Ending.NO_ROUTE.value)
    else:
        exchange.respond_error(421, "No service answers this host.", Ending.NO_ROUTE.value)


@lru_cache(maxsize=4096)
def address_text(octets: bytes) -> str:
    """An address of 4 or 16 octets for the log; "" for none."""
    return str(ip_address(octets)) if octets else ""
