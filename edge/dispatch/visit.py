"""One request on its way through a sandbox: from admission to its record in log and metrics.

A visit ends when both its guest and its exchange have ended, in whichever order: a guest may work
on after its response, and a response may stream on after its guest.
"""

from __future__ import annotations

from time import perf_counter_ns, time
from typing import TYPE_CHECKING

from edge.abi.sandbox import Sandbox
from edge.abi.wasi.cgi import Cgi
from edge.abi.wasi.program import flush
from edge.dispatch import pages
from edge.http.body import Body
from edge.http.message import Headers, ResponseHead
from edge.http.refusal import BadRequest, Refused
from edge.model.units import write_bytes
from edge.outcome import OK, Ending, Outcome
from edge.runtime.guest import Guest
from edge.server.exchange import Exchange
from edge.telemetry.layout import ENDING_OK, SoftLimit, ending_index, method_index

if TYPE_CHECKING:
    from edge.dispatch.deployed import Deployed
    from edge.dispatch.dispatcher import Dispatcher

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
}


class Visit:
    """State of one admitted or waiting request.  Not slotted: class-level defaults cost nothing."""

    guest: Guest | None = None
    outcome: Outcome | None = None  # set when the guest has ended, or never begins
    queue_ns = 0
    queued_at = 0
    deadline = 0.0

    def __init__(self, dispatcher: Dispatcher, exchange: Exchange, deployed: Deployed) -> None:
        self.dispatcher = dispatcher
        self.exchange = exchange
        self.deployed = deployed

    def start(self) -> None:
        """Run the guest.  A slot has been counted for it."""
        dispatcher, exchange, deployed = self.dispatcher, self.exchange, self.deployed
        template = deployed.template
        assert template is not None
        limits = deployed.limits
        box = deployed.make_sandbox(
            TimedDownstream(exchange, self) if deployed.timing else exchange
        )
        exchange.on_end = self.exchange_ended
        exchange.on_gone = self.client_gone
        exchange.max_response_bytes = limits.response
        if exchange.announced:
            exchange.on_body_limit = self.body_limit
            if not exchange.limit_request_body(limits.request_body):
                self._refuse_body()
                return
            exchange.body.adopt(box.account)  # what has arrived and is unread counts too
        if deployed.is_cgi:
            box.extras["cgi"] = Cgi(box)
        self.guest = dispatcher.runtime.start(template, box, self.guest_ended)

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
        box.close()
        if exchange.over_output and outcome.ending is Ending.OK:
            outcome = self._output_outcome()  # found out while we handed its response over
        self.outcome = outcome
        self.dispatcher.release(self.deployed)
        if exchange.ended:
            self._record()

    def exchange_ended(self) -> None:
        """Called by the exchange exactly once.  A guest that has answered may work on."""
        exchange = self.exchange
        if self.queued_at and self.outcome is None:  # it waited for a slot, and needs none now
            self.dispatcher.forget(self)
            self.queued_at = 0
            self.outcome = (
                CLIENT_GONE if exchange.refusal is None else self._refusal(exchange.refusal)
            )
            self._record()
        elif self.outcome is not None:
            if exchange.over_output:
                self.outcome = self._output_outcome()
            self._record()
        elif exchange.over_output:
            self._end_for(self._output_outcome())
        elif exchange.refusal is not None:  # its body broke HTTP: the client has its answer
            self._end_for(self._refusal(exchange.refusal))

    def _refusal(self, refusal: Refused) -> Outcome:
        if refusal.kind is BadRequest.BODY_TOO_LARGE:
            return self._body_outcome()
        return Outcome(Ending.BAD_REQUEST, refusal.reason)

    def client_gone(self) -> None:
        """The client left early: its sandbox has nobody to work for."""
        if self.outcome is not None:
            self.outcome = CLIENT_GONE if self.outcome.ending is Ending.OK else self.outcome
        elif self.guest is not None:
            self.dispatcher.runtime.end(self.guest, CLIENT_GONE)
        elif self.queued_at:
            self.dispatcher.forget(self)
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

    def _refuse_body(self) -> None:
        self.dispatcher.release(self.deployed)
        self.refuse(self._body_outcome())

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
        if exchange.gone and outcome is OK:
            outcome = CLIENT_GONE
        wall_ns = now - exchange.started_ns
        start = exchange.response_start_ns
        cpu = memory = calls = instantiate = 0
        if guest is not None:
            cpu, memory, instantiate = guest.cpu_used, guest.memory_peak, guest.instantiate_ns
            box = guest.box
            calls = box.calls
            if box.limits_hit or box.log_dropped:
                self._soft_limits(box)
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

    def inform(self, status: int, headers: Headers) -> None:
        self._exchange.inform(status, headers)

    def respond(self, head: ResponseHead, body: Body) -> None:
        guest = self._visit.dispatcher.runtime.running
        cpu = guest.cpu_ns() if guest is not None else 0
        wall = perf_counter_ns() - self._exchange.started_ns
        self._exchange.add_headers = [
            (b"server-timing", b"cpu;dur=%.3f, wall;dur=%.3f" % (cpu / 1e6, wall / 1e6))
        ]
        self._exchange.respond(head, body)

    def abort(self) -> None:
        self._exchange.abort()
