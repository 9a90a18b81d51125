"""`fastly_purge`: there is no cache yet; a purge looks at its arguments and answers UNSUPPORTED."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import U32, Bits, Text
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import InvalidArgument, Unsupported

abi = HostModule("fastly_purge", FASTLY)

_REASON = "the cache is not built yet"
_SOFT, _RETURN = 1 << 0, 1 << 1
MAX_KEY = 1024

PurgeOptions = Annotated[int, Bits(known=_SOFT | _RETURN)]
SurrogateKey = Annotated[str, Text(limit=MAX_KEY)]


@abi.named("purge_surrogate_key", unsupported=_REASON)
def purge_surrogate_key(
    box: Sandbox, key: SurrogateKey, options: PurgeOptions, config: U32
) -> None:
    """A key of 1 to 1024 visible ASCII characters, perhaps soft, perhaps with room for a reply."""
    check_surrogate_key(key)
    if options & _RETURN:
        memory = box.memory
        reply, room, written = (memory.u32(config + offset) for offset in (0, 4, 8))
        memory.require(reply, room)
        memory.require(written, 4)
    raise Unsupported(_REASON)


def check_surrogate_key(key: str) -> None:
    """Raises InvalidArgument."""
    if not key or not all("!" <= character <= "~" for character in key):
        raise InvalidArgument("a surrogate key is 1 to 1024 visible ASCII characters")
