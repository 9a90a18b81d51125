"""`fastly_compute_runtime`: what this sandbox has used, and the products it does not have."""

from __future__ import annotations

from edge.abi.codec import U32, U64
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox

abi = HostModule("fastly_compute_runtime", FASTLY)

_MIB = 1024 * 1024


@abi.hostcall
def get_vcpu_ms(box: Sandbox) -> U64:
    """CPU time of this guest in milliseconds, waiting excluded."""
    return box.meter.cpu_ns() // 1_000_000


@abi.hostcall
def get_heap_mib(box: Sandbox) -> U32:
    """Its memory and what we hold for it, in MiB, rounded up."""
    return -(-(box.meter.memory_bytes() + box.account.held) // _MIB)


@abi.hostcall
def has_domain_inspector(box: Sandbox) -> U32:
    """0: nobody gathers figures by domain here."""
    return 0


@abi.hostcall
def has_image_optimizer(box: Sandbox) -> U32:
    """0: `fastly_image_optimizer` answers UNSUPPORTED, a service sends images as they are."""
    return 0


@abi.hostcall
def has_origin_inspector(box: Sandbox) -> U32:
    """0: figures of backends are the operator's, in `/metrics`."""
    return 0
