"""`fastly_http_resp`: response heads, and answering the client."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from edge.abi.codec import U16, U32, Choice, Handle, OutOctets
from edge.abi.fastly.fields import declare_field_calls
from edge.abi.fastly.forward import forward
from edge.abi.fastly.heads import FramingMode, GuestResponse, HttpVersion, Response
from edge.abi.fastly.http_body import normal_body, write_side
from edge.abi.fastly.pending import take_pending
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Failed, HostcallError, InvalidArgument, Missing
from edge.http.message import ResponseHead

abi = HostModule("fastly_http_resp", FASTLY)


class KeepAlive(IntEnum):
    """`http_keepalive_mode`."""

    AUTOMATIC = 0
    NO_KEEPALIVE = 1


Version = Annotated[HttpVersion, Choice(HttpVersion)]
Framing = Annotated[FramingMode, Choice(FramingMode)]
KeepAliveMode = Annotated[KeepAlive, Choice(KeepAlive)]
NewResponse = Annotated[GuestResponse, Handle(GuestResponse)]
TakenResponse = Annotated[GuestResponse, Handle(GuestResponse, consumed=True)]

EARLY_HINTS = 103


@abi.hostcall
def new(box: Sandbox) -> NewResponse:
    """A new response head: 200, HTTP/1.1."""
    return GuestResponse()


@abi.hostcall
def close(box: Sandbox, response: TakenResponse) -> None:
    """Drop a head; its handle is consumed."""
    response.release(box)


declare_field_calls(abi, Response)


@abi.hostcall
def status_get(box: Sandbox, response: Response) -> U16:
    """The status code."""
    return response.status


@abi.hostcall
def status_set(box: Sandbox, response: Response, status: U32) -> None:
    """Set the status code: 100 to 999, else INVAL."""
    if not 100 <= status <= 999:
        raise InvalidArgument(f"{status} is not a status code")
    response.status = status


@abi.hostcall
def version_get(box: Sandbox, response: Response) -> U32:
    """The HTTP version, as `http_version`."""
    return response.version


@abi.hostcall
def version_set(box: Sandbox, response: Response, version: Version) -> None:
    """Set the HTTP version; the client is answered in its own, whatever this says."""
    response.version = version


@abi.hostcall
def framing_headers_mode_set(box: Sandbox, response: Response, mode: Framing) -> None:
    """Whether the guest's own Content-Length and Transfer-Encoding are used when they are valid."""
    response.manual_framing = mode is FramingMode.MANUALLY_FROM_HEADERS


@abi.hostcall
def http_keepalive_mode_set(box: Sandbox, response: Response, mode: KeepAliveMode) -> None:
    """Whether the client's connection ends after this response."""
    response.close = mode is KeepAlive.NO_KEEPALIVE


@abi.hostcall
def get_addr_dest_ip(box: Sandbox, response: Response, octets: OutOctets) -> U32:
    """The address a backend's response came from; NONE unless its request was to pass the cache."""
    return octets.fill(_from_backend(response).address)


@abi.hostcall
def get_addr_dest_port(box: Sandbox, response: Response) -> U16:
    """The port a backend's response came from; NONE unless its request was to pass the cache."""
    return _from_backend(response).port


def _from_backend(response: GuestResponse) -> GuestResponse:
    if not response.address:
        raise Missing("no backend sent this response, or the request could be answered by a cache")
    return response


@abi.hostcall
def send_downstream(box: Sandbox, response: TakenResponse, body: U32, streaming: U32) -> None:
    """Answer the client.  The head is consumed; so is the body, unless `streaming` is 1: then its
    handle becomes the write side.  A second final response is an ERROR.  103 may be sent any number
    of times before, with a body that is dropped; other interim statuses are INVAL.
    """
    downstream = box.downstream
    status = response.status
    try:
        if streaming > 1:
            raise InvalidArgument(f"streaming is 0 or 1, not {streaming}")
        source = normal_body(box, body)
        if downstream.responded:
            raise Failed("the client has been answered already")
        if status < 200 and status != EARLY_HINTS:
            raise InvalidArgument(f"{status} cannot be sent by a guest; 103 can")
    except HostcallError:
        response.release(box)  # the head is consumed all the same
        raise
    if status == EARLY_HINTS:
        response.release(box)
        downstream.inform(status, response.headers)
        del box.items[body]
        source.discard()
        return
    head = ResponseHead(status, response.headers, response.manual_framing, response.close)
    if streaming:
        source = write_side(box, body, source)
    else:
        del box.items[body]
    if response.cost:
        response.release(box)
    downstream.respond(head, source)


@abi.hostcall
def send_downstream_pending(box: Sandbox, pending: U32) -> None:
    """Answer the client with what a pending request brings, with the changes that wait for it.

    The handle is consumed; the guest need not wait, nor live so long.  A failure becomes a response
    of ours: 504 for a timeout, 502 or 503 otherwise.  ERROR when there is a response already.
    """
    forward(box, take_pending(box, pending))
