"""One request on its way through a sandbox: from admission to its record in log and metrics.

A visit ends when both its guest and its exchange have ended, in whichever order: a guest may work
on after its response, and a response may stream on after its guest.  A guest that waits for a
further request has ended as far as this one goes (`succession.py`).
"""

from __future__ import annotations

from time import perf_counter_ns, time
from typing import TYPE_CHECKING

from edge.abi.further import Further
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.cgi import Cgi
from edge.abi.wasi.program import flush
from edge.dispatch import pages
from edge.dispatch.succession import Succession
from edge.http.body import Account, Body
from edge.http.message import Answer, Downstream, Headers, ResponseHead
from edge.http.refusal import BadRequest, Refused
from edge.model.units import write_bytes
from edge.outcome import OK, Ending, Outcome
from edge.runtime.guest import Guest
from edge.server.exchange import Exchange
from edge.telemetry.layout import ENDING_OK, SoftLimit, ending_index, method_index

if TYPE_CHECKING:
    from edge.dispatch.deployed import Deployed
    from edge.dispatch.dispatcher import Dispatcher

INCOMPLETE = Outcome(Ending.INCOMPLETE, "the response broke off: its body was left unfinished")
CLIENT_GONE = Outcome(Ending.CLIENT_GONE, "the client left before its response was complete")

# Refusals that a guest lives through, by the setting named in LimitExceeded.
_SOFT_LIMITS = {
    "limits.handles": SoftLimit.HANDLES,
    "limits.host_memory": SoftLimit.HOST_BYTES,
    "limits.head_bytes": SoftLimit.HEAD,
    "limits.head_fields": SoftLimit.HEAD,
    "limits.head": SoftLimit.HEAD,
    "limits.subrequests": SoftLimit.SUBREQUESTS,
    "limits.log_bytes": SoftLimit.LOG_BYTES,
    "storage.kv_store_bytes": SoftLimit.KV_STORE,
    "storage.kv_value_bytes": SoftLimit.KV_VALUE,
}


class Visit:
    """State of one admitted or waiting request.  Not slotted: class-level defaults cost nothing."""

    guest: Guest | None = None
    outcome: Outcome | None = None  # set when the guest has ended, or never begins
    # Who pays for what its client has not taken, once the guest has ended and the response has not.
    lingers: Account | None = None
    queue_ns = 0
    queued_at = 0
    deadline = 0.0
    succession: Succession | None = None  # its guest has asked for further requests
    given: Succession | None = None  # it was given to a guest, which has not taken it
    used: tuple[int, int, int, int] | None = None  # CPU, memory, instantiation, hostcalls: told

    def __init__(self, dispatcher: Dispatcher, exchange: Exchange, deployed: Deployed) -> None:
        self.dispatcher = dispatcher
        self.exchange = exchange
        self.deployed = deployed

    def start(self) -> None:
        """Run a fresh guest.  A slot has been counted for it."""
        dispatcher, exchange, deployed = self.dispatcher, self.exchange, self.deployed
        template = deployed.template
        assert template is not None
        # `accept`, spelt out for the many requests that have no body.
        exchange.on_end = self.exchange_ended
        exchange.on_gone = self.client_gone
        exchange.max_response_bytes = deployed.limits.response
        if exchange.announced and not self._accept_body():
            dispatcher.release(deployed)
            return
        box = deployed.make_sandbox(
            TimedDownstream(exchange, self) if deployed.timing else exchange
        )
        box.requests = self
        if exchange.announced:
            exchange.body.adopt(box.account)  # what has arrived and is unread counts too
        if deployed.is_cgi:
            box.extras["cgi"] = Cgi(box)
        guest = dispatcher.runtime.start(template, box, self.guest_ended)
        if not guest.ended:  # else `_record` has let go of it, so that no cycle is left behind
            self.guest = guest

    def accept(self) -> bool:
        """Set the service's bounds for this request; False when it was refused for its body."""
        exchange = self.exchange
        exchange.on_end = self.exchange_ended
        exchange.on_gone = self.client_gone
        exchange.max_response_bytes = self.deployed.limits.response
        return not exchange.announced or self._accept_body()

    def _accept_body(self) -> bool:
        self.exchange.on_body_limit = self.body_limit
        if self.exchange.limit_request_body(self.deployed.limits.request_body):
            return True
        self.refuse(self._body_outcome())
        return False

    # In a sandbox that has served others ----------------------------------------------------

    def ask(self, seconds: float) -> Further:
        """Its guest's first wish for a further request: see `edge.abi.further.Source`."""
        guest = self.dispatcher.runtime.running
        assert guest is not None, "a guest asks from inside a hostcall"
        self.succession = Succession(self, guest)
        return self.succession.ask(seconds)

    def enter(self, guest: Guest) -> Downstream:
        """Be served by a guest that waits for a request; `accept` has been called.

        Raises LimitExceeded, with nothing changed, when its sandbox may hold no more.
        """
        exchange = self.exchange
        if exchange.announced:
            exchange.body.adopt(guest.box.account)
        self.guest = guest
        self.given = None
        return TimedDownstream(exchange, self) if self.deployed.timing else exchange

    def answered(self, guest: Guest) -> None:
        """The guest has done with this request and waits for another: it is told by now."""
        box = guest.box
        flush(box)
        self.used = guest.cpu_used, guest.memory_bytes(), guest.instantiate_ns, box.calls
        if box.limits_hit or box.log_dropped:
            self._soft_limits(box)
            box.limits_hit = {}
            box.log_dropped = 0
        self.outcome = self._output_outcome() if self.exchange.over_output else OK
        self.guest = None
        if self.exchange.ended:
            self._record()

    # A response whose guest has ended, as something that holds memory -------------------------

    @property
    def share_key(self) -> str:
        """The tenant that it is held for."""
        return self.deployed.name

    @property
    def memory_held(self) -> int:
        """Bytes of the body that its client has not taken yet."""
        return self.lingers.held if self.lingers is not None else 0

    def linger(self, account: Account) -> None:
        """The guest has ended, and the response has not."""
        self.lingers = account
        self.dispatcher.streaming[self] = None

    def break_off(self, outcome: Outcome) -> None:
        """End it: what is held for it is needed."""
        self.outcome = outcome
        if self.succession is not None:
            self.succession.over(self)
            self.succession = None  # how its guest ended is not how this ends
        self.exchange.abort()

    # Endings of the two halves --------------------------------------------------------------

    def guest_ended(self, guest: Guest, outcome: Outcome) -> None:
        """Called by the runtime exactly once: answer if nobody has, free the slot."""
        self.guest = guest
        box, exchange = guest.box, self.exchange
        if box.extras:
            outcome = self._close_program(box, outcome)
        if not exchange.responded and not exchange.ended:
            if outcome.ending is Ending.OK:
                # ABI page, section 1: a program that returns without answering answers 200.
                exchange.respond(ResponseHead(), Body())
            else:
                pages.answer(exchange, outcome)
        elif outcome.ending is Ending.FAULT and not exchange.ended:
            # We may have failed between taking the response and sending it: without this, a
            # client waits for the rest for as long as it likes.
            exchange.abort()
        box.close(well=outcome.ending is Ending.OK)
        if exchange.over_output and outcome.ending is Ending.OK:
            outcome = self._output_outcome()  # found out while we handed its response over
        self.outcome = outcome
        self.dispatcher.release(self.deployed)
        if exchange.ended:
            self._record()
        else:
            self.linger(box.account)

    def exchange_ended(self) -> None:
        """Called by the exchange exactly once.  A guest that has answered may work on."""
        exchange = self.exchange
        if self.outcome is not None:
            if exchange.over_output:
                self.outcome = self._output_outcome()
            elif self.succession is not None:
                self._ended_late(self.succession)
            self._record()
        elif self.queued_at or self.given is not None:  # it needs no sandbox now
            self._leave_line()
            self.outcome = (
                CLIENT_GONE if exchange.refusal is None else self._refusal(exchange.refusal)
            )
            self._record()
        elif exchange.over_output:
            self._end_for(self._output_outcome())
        elif exchange.refusal is not None:  # its body broke HTTP: the client has its answer
            self._end_for(self._refusal(exchange.refusal))

    def _ended_late(self, succession: Succession) -> None:
        """The response has ended after the guest turned to other requests."""
        succession.over(self)
        if self.exchange.failed and succession.outcome is not None:
            self.outcome = succession.outcome  # the guest was still making it when it ended

    def _leave_line(self) -> None:
        """Nobody is to take this request any more."""
        if self.queued_at:
            self.dispatcher.forget(self)
            self.queued_at = 0
        elif self.given is not None:
            self.given.take_back(self)
            self.given = None

    def _refusal(self, refusal: Refused) -> Outcome:
        if refusal.kind is BadRequest.BODY_TOO_LARGE:
            return self._body_outcome()
        return Outcome(Ending.BAD_REQUEST, refusal.reason)

    def client_gone(self) -> None:
        """The client left early: its sandbox has nobody to work for."""
        if self.outcome is not None:
            self.outcome = CLIENT_GONE if self.outcome.ending is Ending.OK else self.outcome
        elif self.guest is not None:
            # A guest that still makes an earlier client's response is not this one's to take along.
            if self.succession is None or not self.succession.serves_others:
                self.dispatcher.runtime.end(self.guest, CLIENT_GONE)
        elif self.queued_at or self.given is not None:
            self._leave_line()
            self.outcome = CLIENT_GONE

    def _output_outcome(self) -> Outcome:
        return Outcome(
            Ending.OUTPUT_LIMIT,
            "the response was larger than allowed",
            write_bytes(self.exchange.bytes_out),
            write_bytes(self.deployed.limits.response),
            self.deployed.setting("response"),
        )

    def body_limit(self) -> None:
        outcome = self._body_outcome()
        if self.guest is None and self.outcome is None:  # nobody has taken it yet
            self._leave_line()
            self.outcome = outcome
        if not self.exchange.responded:
            pages.answer(self.exchange, outcome)
        self._end_for(outcome)

    def _end_for(self, outcome: Outcome) -> None:
        if self.outcome is not None:
            self.outcome = outcome  # the guest has ended; this is what became of its response
        elif self.guest is not None:
            self.dispatcher.runtime.end(self.guest, outcome)

    def refuse(self, outcome: Outcome) -> None:
        """No guest for this request: answer with the page of `outcome`."""
        self.outcome = outcome
        self.exchange.on_end = self.exchange_ended
        pages.answer(self.exchange, outcome)

    def _body_outcome(self) -> Outcome:
        known = self.exchange.content_length or self.exchange.bytes_in
        return Outcome(
            Ending.BODY_LIMIT,
            "the request body was larger than allowed",
            write_bytes(known),
            write_bytes(self.deployed.limits.request_body),
            self.deployed.setting("request_body"),
        )

    def _close_program(self, box: Sandbox, outcome: Outcome) -> Outcome:
        """Finish what the dialect keeps: unfinished log lines, a CGI response."""
        flush(box)
        cgi: Cgi | None = box.extras.get("cgi")
        if cgi is None:
            return outcome
        problem = cgi.finish(clean=outcome.ending is Ending.OK)
        if problem and outcome.ending is Ending.OK:
            return Outcome(Ending.GUEST_ERROR, f"not a CGI response: {problem}")
        return outcome

    # The record -----------------------------------------------------------------------------

    def _record(self) -> None:
        """Both halves are over: count the request and log it."""
        now = perf_counter_ns()
        exchange, deployed, guest, outcome = (
            self.exchange, self.deployed, self.guest, self.outcome,
        )  # fmt: skip
        assert outcome is not None
        self.guest = None  # no cycle is left behind
        if self.lingers is not None:
            del self.dispatcher.streaming[self]
        if self.succession is not None:
            self.succession = None
        if outcome is OK:
            if exchange.gone:
                outcome = CLIENT_GONE
            elif exchange.broken:
                outcome = INCOMPLETE
        wall_ns = now - exchange.started_ns
        start = exchange.response_start_ns
        cpu = memory = calls = instantiate = 0
        if guest is not None:
            cpu, memory, instantiate = guest.cpu_used, guest.memory_peak, guest.instantiate_ns
            box = guest.box
            calls = box.calls
            if box.limits_hit or box.log_dropped:
                self._soft_limits(box)
        elif self.used is not None:
            cpu, memory, instantiate, calls = self.used
        ending = ENDING_OK
        if outcome is not OK:
            ending = ending_index(outcome.ending)
            self.dispatcher.reports.ended(
                deployed.name, deployed.number, exchange.request_id, outcome
            )
        deployed.block.record(
            method_index(exchange.method),
            exchange.status,
            ending,
            wall_ns,
            start - exchange.started_ns if start else 0,
            cpu,
            instantiate,
            memory,
            exchange.bytes_in,
            exchange.bytes_out,
            calls,
            self.queue_ns,
        )
        access = self.dispatcher.access
        if access.enabled:
            access.record(
                time(),
                exchange.request_id,
                pages.address_text(exchange.client_address),
                deployed.name,
                deployed.number,
                exchange.method,
                exchange.host,
                exchange.target,
                exchange.status,
                outcome,
                cpu,
                wall_ns,
                memory,
                exchange.bytes_in,
                exchange.bytes_out,
                calls,
                self.queue_ns,
            )

    def _soft_limits(self, box: Sandbox) -> None:
        """Count and report the limits that the guest was told of; once each for a request."""
        deployed = self.deployed
        hits = dict(box.limits_hit)
        if box.log_dropped:
            hits["limits.log_bytes"] = box.log_dropped
        for setting, count in hits.items():
            limit = _SOFT_LIMITS.get(setting)
            if limit is not None:
                deployed.block.limit_hit(limit)
            self.dispatcher.reports.refused(
                deployed.name, deployed.number, self.exchange.request_id, setting, count
            )


class TimedDownstream:
    """A downstream that adds Server-Timing when the guest answers.  For services that ask."""

    def __init__(self, exchange: Exchange, visit: Visit) -> None:
        self._exchange = exchange
        self._visit = visit
        self.head = exchange.head
        self.body = exchange.body
        self.client_address = exchange.client_address
        self.server_address = exchange.server_address
        self.request_id = exchange.request_id

    @property
    def responded(self) -> bool:
        return self._exchange.responded

    @property
    def wants_websocket(self) -> bool:
        return self._exchange.wants_websocket

    def inform(self, status: int, headers: Headers) -> None:
        self._exchange.inform(status, headers)

    def hand_over(self, answer: Answer) -> None:
        self._exchange.hand_over(answer)

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        self._exchange.deliver(head, body, incoming)

    def respond(self, head: ResponseHead, body: Body) -> None:
        guest = self._visit.dispatcher.runtime.running
        cpu = guest.cpu_ns() - guest.cpu_before if guest is not None else 0
        wall = perf_counter_ns() - self._exchange.started_ns
        self._exchange.add_headers = [
            (b"server-timing", b"cpu;dur=%.3f, wall;dur=%.3f" % (cpu / 1e6, wall / 1e6))
        ]
        self._exchange.respond(head, body)

    def abort(self) -> None:
        self._exchange.abort()
