"""`send_error_detail`: what a guest is told of a request that failed, as a tag and as a status."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import Wrapped
from edge.abi.fastly.status import HeadTooLarge, StatusInvalid, Unparsable, Unsendable
from edge.abi.memory import GuestMemory
from edge.errors import Failed, HostcallError, Incomplete, InvalidArgument
from edge.upstream.fetch import Cause, UpstreamFailed

OK_TAG = 1

# `send_error_detail_tag`.  What only a cache can say (20) and what we cannot find out has no cause.
TAGS = {
    Cause.DNS_TIMEOUT: 2,
    Cause.DNS_ERROR: 3,
    Cause.DESTINATION_NOT_FOUND: 4,
    Cause.DESTINATION_UNAVAILABLE: 5,
    Cause.DESTINATION_IP_UNROUTABLE: 6,
    Cause.CONNECTION_REFUSED: 7,
    Cause.CONNECTION_TERMINATED: 8,
    Cause.CONNECTION_TIMEOUT: 9,
    Cause.CONNECTION_LIMIT_REACHED: 10,
    Cause.TLS_CERTIFICATE_ERROR: 11,
    Cause.TLS_CONFIGURATION_ERROR: 12,
    Cause.HTTP_INCOMPLETE_RESPONSE: 13,
    Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE: 14,
    Cause.HTTP_RESPONSE_BODY_TOO_LARGE: 15,
    Cause.HTTP_RESPONSE_TIMEOUT: 16,
    Cause.HTTP_RESPONSE_STATUS_INVALID: 17,
    Cause.HTTP_UPGRADE_FAILED: 18,
    Cause.HTTP_PROTOCOL_ERROR: 19,
    Cause.HTTP_REQUEST_URI_INVALID: 21,
    Cause.INTERNAL_ERROR: 22,
    Cause.TLS_ALERT_RECEIVED: 23,
    Cause.TLS_PROTOCOL_ERROR: 24,
    Cause.H2_ERROR: 25,
    Cause.LOOP: 5,  # there is no word for it: the destination will not have this request
}

# `send_error_detail_mask`; the code of an extended DNS error (4) is not known to us.
_RCODE, _ALERT, _H2 = 0b00010, 0b01000, 0b10000
_SIZE = 20
_MASK, _RCODE_AT, _ALERT_AT, _FRAME_AT, _H2_CODE_AT = 4, 8, 12, 13, 16

# ABI page, sections 3 and 7; every other cause is an ERROR.
_ERRORS: dict[Cause, type[HostcallError]] = {
    Cause.HTTP_PROTOCOL_ERROR: Unparsable,
    Cause.HTTP_RESPONSE_STATUS_INVALID: StatusInvalid,
    Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE: HeadTooLarge,
    Cause.HTTP_REQUEST_URI_INVALID: Unsendable,
    Cause.HTTP_INCOMPLETE_RESPONSE: Incomplete,
    Cause.CONNECTION_TERMINATED: Incomplete,
    Cause.DESTINATION_NOT_FOUND: InvalidArgument,
}


def error_of(failure: UpstreamFailed) -> HostcallError:
    """The hostcall error that has the right status."""
    return _ERRORS.get(failure.cause, Failed)(str(failure))


class ErrorDetail:
    """The guest's struct.  One SDK passes 8 of its 20 bytes, so fields behind the mask are written
    only where the guest's own mask asks for them (ABI page, section 4).
    """

    __slots__ = ("_asked", "_mem", "_ptr")

    def __init__(self, mem: GuestMemory, ptr: int) -> None:
        mem.require(ptr, 8)
        self._mem, self._ptr = mem, ptr
        self._asked = mem.u32(ptr + _MASK)
        try:
            mem.require(ptr, _SIZE)
        except InvalidArgument:
            self._asked = 0  # an older, shorter struct at the end of memory

    def succeed(self) -> None:
        """There is a response."""
        self._mem.write_u32(self._ptr, OK_TAG)
        self._mem.write_u32(self._ptr + _MASK, 0)

    def fail(self, failure: UpstreamFailed) -> None:
        """There is none, and why."""
        mem, ptr, asked, filled = self._mem, self._ptr, self._asked, 0
        if failure.dns_rcode is not None and asked & _RCODE:
            mem.write_u16(ptr + _RCODE_AT, failure.dns_rcode & 0xFFFF)
            filled |= _RCODE
        if failure.tls_alert is not None and asked & _ALERT:
            mem.write(ptr + _ALERT_AT, bytes([failure.tls_alert & 0xFF]))
            filled |= _ALERT
        if failure.h2_error is not None and asked & _H2:
            frame, code = failure.h2_error
            mem.write(ptr + _FRAME_AT, bytes([frame & 0xFF]))
            mem.write_u32(ptr + _H2_CODE_AT, code & 0xFFFF_FFFF)
            filled |= _H2
        mem.write_u32(ptr, TAGS[failure.cause])
        mem.write_u32(ptr + _MASK, filled)


class NoDetail:
    """For the calls that have no such struct."""

    __slots__ = ()

    def succeed(self) -> None:
        """Nobody asked."""

    def fail(self, failure: UpstreamFailed) -> None:
        """Nobody asked."""


NO_DETAIL = NoDetail()
Detail = Annotated[ErrorDetail, Wrapped(ErrorDetail, "i")]
