"""One accepted socket: writing, pausing, who is there, closing without harm, time.  No HTTP.

`Connection` builds on it.  What needs care here is the end: a reset says "unfinished", a plain
close says "complete", and a close with unread input turns into a reset by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from edge.http.proxy_protocol import read_proxy_header
from edge.http.refusal import Refused
from edge.http.request_view import Peer, peer_from
from edge.server.front import ConnectionRefusal, Front, Timeout
from edge.server.timers import NEVER

# Responses kept for one write-out, so that the first of them does not wait for many others (32
# against 8: 4 % more requests per second).
MAX_OUTBOX = 32
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Wire(asyncio.Protocol):
    """The part of a connection that any protocol would need."""

    __slots__ = (
        "_counted",
        "_deaf",
        "_held",
        "_lingered",
        "_peer",
        "_proxy_pending",
        "_reading",
        "_sent",
        "_socket",
        "_stall",
        "_transport",
        "_waiting_for",
        "_written",
        "close_after",
        "deadline",
        "front",
        "write_paused",
        "wrote",
    )

    def __init__(
        self, front: Front, peer: Peer, sock: socket.socket | None = None, *, counted: bool = False
    ) -> None:
        """`sock` lets an abort reset; `counted`: the listener counts this peer's connections."""
        self.front = front
        self._peer = peer
        self._socket = sock
        # A PROXY header may change the peer, so the address that was counted is kept.
        self._counted = peer.address if counted else None
        self._transport: asyncio.Transport | None = None
        self._proxy_pending = front.proxy_protocol
        self._reading = True
        self._deaf = False  # nothing that still arrives will be looked at
        self._lingered = 0  # bytes that arrived since
        self._waiting_for = Timeout.HEAD
        self._held = b""  # a response that goes out at the end of this turn
        self._written = 0
        self._sent = -1
        self._stall = NEVER
        self.close_after = front.draining  # the present response is the last
        self.deadline = NEVER
        self.wrote = False  # bytes may wait in the transport
        self.write_paused = False

    # asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: the loop's transports need not derive from asyncio's.
        self._transport = transport  # type: ignore[assignment]
        front = self.front
        front.statistics.connections_open += 1
        front.members.add(self)
        front.sweeper.add(self)
        self._wait(Timeout.HEAD, front.limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._socket = None
        front = self.front
        front.statistics.connections_open -= 1
        front.members.discard(self)
        front.sweeper.remove(self)
        self.never_made()
        self._client_left()
        for callback in tuple(front.on_closed):
            callback()

    def never_made(self) -> None:
        """Give back this connection's place among those of its client's address."""
        if self._counted is not None:
            self.front.uncount(self._counted)
            self._counted = None

    def pause_writing(self) -> None:
        self.write_paused = True

    # For whoever speaks over it ---------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes; `write_paused` says when to stop.  Nothing happens once the client left."""
        transport = self._transport
        if transport is not None:
            if self._held:
                self.send_held()
            self.wrote = True
            self._written += len(data)
            transport.write(data)

    def write_soon(self, data: bytes) -> None:
        """`write` before this turn of the loop is over, together with what others have to send.

        For whole small responses.  Each write to a client that sleeps wakes it: written one after
        the other, most find it awake (measured: a fifth of the CPU per request on loopback).
        Guests that wait for slices run first, 2 ms of them: then each response goes out at once
        (kept back, it cost the neighbours of endless loops 3 ms of median latency).
        """
        front = self.front
        if self._held or self._transport is None or front.hurried():
            self.write(data)
            return
        self._held = data
        self.wrote = True
        outbox = front.outbox
        outbox.append(self)
        if len(outbox) == 1:
            front.loop.call_soon(front.send_outbox)
        elif len(outbox) >= MAX_OUTBOX:
            front.send_outbox()

    def send_held(self) -> None:
        """Send what `write_soon` keeps, if anything."""
        data, self._held = self._held, b""
        transport = self._transport
        if data and transport is not None:
            self.wrote = True  # a sweep may have found nothing to wait for in the meantime
            self._written += len(data)
            transport.write(data)

    def write_all(self, pieces: tuple[bytes, ...]) -> None:
        """The same for several pieces, without joining them."""
        transport = self._transport
        if transport is not None:
            if self._held:
                self.send_held()
            self.wrote = True
            self._written += sum(map(len, pieces))
            transport.writelines(pieces)

    def begin_drain(self) -> None:
        """Stop soon."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset: the client sees that the message is unfinished, even one that ends by closing."""
        transport = self._transport
        self.send_held()
        self._go_deaf()
        if transport is None:
            return  # but one that closes may wait for ever, for a client that takes nothing more
        if self._socket is not None:
            with contextlib.suppress(OSError):  # disconnected: there is nobody to be misled
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.deadline = NEVER
        transport.abort()

    def _read_proxy_header(self, data: bytes) -> int:
        """Take the peer from the PROXY header; its size, or 0 if incomplete (or refused: deaf)."""
        statistics = self.front.statistics
        try:
            header = read_proxy_header(data)
        except Refused as error:
            statistics.bad_requests[error.kind] += 1
            statistics.connections_refused[ConnectionRefusal.PROXY_HEADER] += 1
            self.abort()  # whoever this is does not speak to us in HTTP: no page
            return 0
        if header is None:
            return 0
        self._proxy_pending = False
        if header.source:
            old = self._peer
            self._peer = peer_from(header.source, header.destination, old.proxies, old.scheme)
        return header.size

    # Endings ----------------------------------------------------------------------------------

    def _client_left(self) -> None:
        """The other end is gone."""
        raise NotImplementedError

    def _go_deaf(self) -> None:
        """Look at nothing that still arrives."""
        self._deaf = True

    def _close(self, *, unread: bool = False) -> None:
        """Close after what was written; `unread`: first read away what may still be on its way.

        Closing a socket with unread bytes resets it, and a reset can destroy the response before
        the client has read it (RFC 9112 section 9.6).
        """
        transport = self._transport
        self._go_deaf()
        if transport is None or transport.is_closing():
            return
        if self._held:
            self.send_held()
        if unread and transport.can_write_eof():
            transport.write_eof()
            self._wait(Timeout.KEEP_ALIVE, self.front.limits.linger_seconds)
            self._resume_reading()
        else:
            self.deadline = NEVER
            transport.close()

    def _ignore(self, count: int, *, busy: bool) -> None:
        """Bytes that nobody will look at; `busy`: a response is still going out."""
        self._lingered += count
        if self._lingered > self.front.limits.linger_bytes:
            if busy:
                self._pause_reading()
            elif self._transport is not None:
                self.send_held()
                self._transport.close()

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        transport = self._transport
        if not self._reading and transport is not None and not transport.is_closing():
            self._reading = True
            transport.resume_reading()

    # Time -------------------------------------------------------------------------------------

    def _wait(self, reason: Timeout, seconds: float) -> None:
        """From now on the other end has `seconds` to do what `reason` says."""
        self._waiting_for = reason
        self.deadline = self.front.sweeper.after(seconds)

    def _timed_out(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def on_sweep(self, now: float) -> None:
        """Called by the sweeper: has the client taken anything, and is a deadline over?"""
        transport = self._transport
        if transport is None:
            return
        if self.wrote:
            waiting = transport.get_write_buffer_size()
            if not waiting:
                self.wrote, self._sent, self._stall = False, -1, NEVER
            elif (sent := self._written - waiting) != self._sent:
                self._sent = sent
                self._stall = self.front.sweeper.after(self.front.limits.write_stall)
            elif now >= self._stall:
                self.front.statistics.timeouts[Timeout.WRITE] += 1
                self._client_left()
                self.abort()
                return
        if self.deadline <= now:
            self.deadline = NEVER
            self._timed_out()
