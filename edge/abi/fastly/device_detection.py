"""`fastly_device_detection`: what is known of the device that a User-Agent names."""

from __future__ import annotations

from edge.abi.codec import Out, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Missing

abi = HostModule("fastly_device_detection", FASTLY)


@abi.hostcall
def lookup(box: Sandbox, user_agent: Str, record: Out) -> None:
    """The JSON record of exactly this User-Agent; NONE when there is none."""
    devices = box.capabilities.devices
    found = devices.lookup(user_agent) if devices is not None else None
    if found is None:
        raise Missing("nothing is known of this device")
    record.fill(found)
