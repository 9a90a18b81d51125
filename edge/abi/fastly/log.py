"""`fastly_log`: named log endpoints; each write is one line of the service's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edge.abi.codec import U32, Handle, Input, Text
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import InvalidArgument

abi = HostModule("fastly_log", FASTLY)

MAX_LINE = 8 * 1024  # what a log line keeps; more is cut, and nobody copies it out of the guest
MAX_NAME = 1024
_RESERVED = ("stdout", "stderr")  # these are the guest's own streams
_RESERVED_PREFIX = "fst_managed_"
_OVERHEAD = 256  # an endpoint, its name, and its two table entries


@dataclass(frozen=True, slots=True)
class LogEndpoint:
    """A stream of log lines."""

    name: str


Endpoint = Annotated[LogEndpoint, Handle(LogEndpoint)]
EndpointName = Annotated[str, Text(limit=MAX_NAME)]


@abi.hostcall
def endpoint_get(box: Sandbox, name: EndpointName) -> U32:
    """Open a log endpoint; the same name gives the same handle.  Reserved names are INVAL."""
    key = "fastly.endpoint." + name
    handle = box.extras.get(key)
    if handle is None:
        _check_name(box, name)
        box.hold(_OVERHEAD + len(name))
        handle = box.extras[key] = box.insert(LogEndpoint(name))
    number: int = handle
    return number


def _check_name(box: Sandbox, name: str) -> None:
    folded = name.lower()
    if not name or folded in _RESERVED or folded.startswith(_RESERVED_PREFIX):
        raise InvalidArgument(f"{name!r} cannot be the name of a log endpoint")
    known = box.service.log_endpoints
    if known and name not in known:
        raise InvalidArgument(f"no log endpoint {name!r}; the service has {', '.join(known)}")


@abi.hostcall
def write(box: Sandbox, endpoint: Endpoint, message: Input) -> U32:
    """Log one line; its whole length is reported even if only the first 8 KiB are kept."""
    length = message.length
    if length:
        text = message.read(0, MAX_LINE)
        if length <= MAX_LINE:
            text = text.removesuffix(b"\n")
        box.log(endpoint.name, text, max(0, length - MAX_LINE))
    return length
