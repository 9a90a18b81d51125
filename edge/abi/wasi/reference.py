"""Renders docs/wasi.md from the declared calls: `python -m edge.abi.wasi.reference`."""

from __future__ import annotations

import sys

from edge.abi.hostcall import Hostcall
from edge.abi.wasi.preview1 import WASI_PREVIEW1

_INTRODUCTION = """\
# WASI preview1

Generated from the source by `python -m edge.abi.wasi.reference`; a test keeps it current.

All 46 functions of `wasi_snapshot_preview1` link.  A program has three streams, clocks, random
bytes, one argument and an environment.  There are no files, no directories and no sockets:
nothing is preopened, so every path fails before it is looked at.

| stream | Fastly service | CGI program (`family: wasi`) |
|---|---|---|
| stdin (0) | empty | the request body |
| stdout (1) | log lines, stream `stdout` | the response: header fields, a blank line, the body |
| stderr (2) | log lines, stream `stderr` | log lines, stream `stderr` |

A log line keeps its first 8 KiB; what is over `limits.log_bytes` is dropped and counted.  A stream
takes or gives at most 256 KiB a call and says so in its count, as pipes do.

A Fastly service gets the variables that Fastly's SDKs read: `FASTLY_SERVICE_ID` (of a deployed
service the id that the control API tells, of one of the configuration file its name),
`FASTLY_SERVICE_VERSION`, `FASTLY_IS_STAGING` (1 in a staged version), `FASTLY_TRACE_ID` (one for
each request), and `FASTLY_HOSTNAME`, `FASTLY_POP`, `FASTLY_REGION`, `FASTLY_CUSTOMER_ID` and
`FASTLY_CACHE_GENERATION`, which are the same everywhere.  The service's `env` wins over them.

A CGI program gets the variables of CGI/1.1 (RFC 3875).  `SCRIPT_NAME` is empty and `PATH_INFO` the
whole path, decoded; `REQUEST_URI` is as received.  Header names with anything but letters, digits
and hyphens are left out, and so is `Proxy` (httpoxy).  The service's `env` wins over all of them.
In its answer, `Status:` sets the status (200 to 599), a `Location:` without one means 302, and a
`Content-Length:` that disagrees with the body ends the connection.  The response leaves when
16 KiB of body wait, when the program waits for input or time, when it syncs or closes stdout, or
at its end; a program that fails before that sends nothing of it.

In every call, a range outside the guest's memory is EFAULT (21), a descriptor that is not open is
EBADF (8), and a limit that was hit is ENOMEM (48).  `suspends` marks calls that can give the
thread to others while the guest waits.

| function | parameters | suspends | answer |
|---|---|---|---|
"""

_TYPES = {"i": "i32", "I": "i64"}


def render() -> str:
    """The whole page."""
    calls = sorted(WASI_PREVIEW1.hostcalls.values(), key=lambda call: call.name)
    return _INTRODUCTION + "".join(map(_row, calls))


def _row(call: Hostcall) -> str:
    parameters = " ".join(_TYPES[letter] for letter in call.signature)
    suspends = "yes" if call.suspends else ""
    answer = " ".join(call.doc.split()).replace("|", "\\|")
    return f"| `{call.name}` | {parameters} | {suspends} | {answer} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
