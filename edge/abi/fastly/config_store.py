"""`fastly_config_store`: the newer name of `fastly_dictionary`, with the same handles."""

from __future__ import annotations

from edge.abi.fastly.dictionary import get, open_
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule

abi = HostModule("fastly_config_store", FASTLY)

abi.hostcall(open_)
abi.hostcall(get)
