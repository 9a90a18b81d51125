"""`fastly_image_optimizer`: images are not transformed; calls are checked, then UNSUPPORTED."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import U32, Bits, Str
from edge.abi.fastly.backend import find_backend
from edge.abi.fastly.heads import Request
from edge.abi.fastly.http_body import normal_body
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import InvalidArgument, Unsupported

abi = HostModule("fastly_image_optimizer", FASTLY)

_REASON = "images are not transformed"
_OPTIONS = 1 << 1
MAX_OPTIONS = 64 * 1024

OptionsMask = Annotated[int, Bits(known=_OPTIONS)]


@abi.named("transform_image_optimizer_request", unsupported=_REASON)
def transform_image_optimizer_request(
    box: Sandbox,
    request: Request,
    body: U32,
    backend: Str,
    mask: OptionsMask,
    config: U32,
    error_detail: U32,
) -> tuple[U32, U32]:
    """A request and its body, a backend, JSON options of at most 64 KiB."""
    normal_body(box, body)
    find_backend(box, backend)
    memory = box.memory
    memory.require(error_detail, 12)
    if mask & _OPTIONS:
        at, length = memory.u32(config), memory.u32(config + 4)
        if length > MAX_OPTIONS:
            raise InvalidArgument(f"options of {length} bytes; {MAX_OPTIONS} are the most")
        try:
            memory.read(at, length).decode()
        except UnicodeDecodeError:
            raise InvalidArgument("expected UTF-8") from None
    raise Unsupported(_REASON)
