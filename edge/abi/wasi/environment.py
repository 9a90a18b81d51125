"""Argument and environment blocks as a guest's libc wants them; the calls are in `arguments`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct

from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class StringBlock:
    """NUL-ended strings one after the other, and where each begins."""

    data: bytes
    offsets: tuple[int, ...]

    def plus(self, strings: Iterable[bytes]) -> StringBlock:
        """A new block with more strings at its end; a NUL in one would end it early: left out."""
        parts = [self.data]
        offsets = list(self.offsets)
        at = len(self.data)
        for string in strings:
            offsets.append(at)
            part = string.replace(b"\0", b"") + b"\0"
            parts.append(part)
            at += len(part)
        return StringBlock(b"".join(parts), tuple(offsets))

    def place(self, memory: GuestMemory, pointers: int, buffer: int) -> None:
        """Write the strings at `buffer` and their addresses at `pointers`."""
        memory.require(buffer, len(self.data))
        addresses = [buffer + offset for offset in self.offsets]
        memory.write(pointers, Struct(f"<{len(addresses)}I").pack(*addresses))
        memory.write(buffer, self.data)


EMPTY = StringBlock(b"", ())

# What Fastly's SDKs read.  The values are those of a service nobody else's infrastructure knows;
# a service's own `env` replaces any of them.
FASTLY_ENVIRONMENT = {
    "FASTLY_CACHE_GENERATION": "0",
    "FASTLY_CUSTOMER_ID": "0" * 22,
    "FASTLY_POP": "XXX",
    "FASTLY_REGION": "Somewhere",
    "FASTLY_HOSTNAME": "localhost",
    "FASTLY_IS_STAGING": "0",
}
TRACE_ID = "FASTLY_TRACE_ID"

# Blocks are the same for all requests to a version: built once.  Emptied when full, so that
# versions that are gone do not stay; the service is kept beside its block so that its id() holds.
MAX_PREPARED = 256
_prepared: dict[tuple[int, int, bool, bool], tuple[object, StringBlock]] = {}


def service_block(box: Sandbox, *, fastly: bool) -> StringBlock:
    """The part of the environment that does not change from request to request."""
    key = (id(box.service), box.version, box.staged, fastly)
    found = _prepared.get(key)
    if found is not None:
        return found[1]
    variables: dict[str, str] = {}
    if fastly:
        variables |= FASTLY_ENVIRONMENT
        variables["FASTLY_SERVICE_ID"] = box.service_id or box.service.name
        # the JavaScript SDK takes "" and "0" for a local test server; versions begin at 1
        variables["FASTLY_SERVICE_VERSION"] = str(box.version)
        if box.staged:
            variables["FASTLY_IS_STAGING"] = "1"
    variables |= box.service.env
    block = EMPTY.plus(_lines(variables))
    if len(_prepared) >= MAX_PREPARED:
        _prepared.clear()
    _prepared[key] = (box.service, block)
    return block


def hostcall_environment(box: Sandbox) -> StringBlock:
    """The environment of a program that answers through hostcalls."""
    block = service_block(box, fastly=True)
    if TRACE_ID in box.service.env:
        return block
    return block.plus((f"{TRACE_ID}={box.downstream.request_id}".encode(),))


def cgi_environment(box: Sandbox, variables: Mapping[bytes, bytes]) -> StringBlock:
    """The environment of a CGI program; the operator's own variables win over the request's."""
    own = box.service.env
    return service_block(box, fastly=False).plus(
        name + b"=" + value for name, value in variables.items() if name.decode() not in own
    )


def _lines(variables: Mapping[str, str]) -> Iterable[bytes]:
    return (f"{name}={value}".encode() for name, value in variables.items())
