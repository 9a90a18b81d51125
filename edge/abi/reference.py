"""Renders docs/hostcalls.md from the declared hostcalls: `python -m edge.abi.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from edge.abi.hostcall import Hostcall, HostModule
from edge.abi.wasi.preview1 import WASI_PREVIEW1

_INTRODUCTION = """\
# Hostcalls

Generated from the source by `python -m edge.abi.reference`; a test keeps it current.

These are the functions that a guest can import.  *Parameters* are core wasm types in order, out
pointers last; every function returns one i32 (`proc_exit` nothing).  *Suspends* marks calls that
can give the thread to others while the guest waits; all others finish at once.  Unsupported means:
the function links, answers UNSUPPORTED (5) and touches nothing.

Functions of the Fastly ABI return a status (those of WASI preview1 an errno; `wasi.md` has more):

{statuses}

In every one of them a pointer out of range and text that is not UTF-8 are INVAL, a handle that does
not exist (or has been consumed, or is of another kind) is BADF, a short buffer is BUFLEN with the
size it needs, a field name or value that HTTP does not allow is ERROR, and a limit that was hit is
LIMITEXCEEDED.

Beyond what the table says:

* A call moves at most 256 KiB a turn: longer writes suspend in between, longer reads are answered
  short.
* A field may be added to a head while the head stays within `limits.head_bytes` and
  `limits.head_fields`; bodies, heads and secrets together within `limits.host_memory`; handles of
  each kind within `limits.handles`.
* `x-edge-*` fields are accepted and not sent; Connection, Transfer-Encoding, Date and (unless
  manual framing is valid) Content-Length are ours.
* A log line keeps its first 8 KiB; what is over `limits.log_bytes` is dropped and counted.
* A streaming body that is not closed breaks off, so that the client sees an unfinished message.
* Sending consumes head and body even when it fails, and counts against `limits.subrequests`.  A
  response that nobody waited for is given up with the sandbox, unless it was to answer the client.
* A failed request is an ERROR with its cause in the error detail; HTTPINVALID, HTTPINVALIDSTATUS,
  HTTPHEADTOOLARGE and HTTPINCOMPLETE say what was wrong with a response, HTTPUSER that the request
  cannot be sent.
"""

_TYPES = {"i": "i32", "I": "i64"}


def render(modules: Iterable[HostModule] = (*FASTLY_MODULES, WASI_PREVIEW1)) -> str:
    """The whole page."""
    statuses = "\n".join(f"* {status.value} {status.name}" for status in Status)
    page = [_INTRODUCTION.format(statuses=statuses)]
    modules = list(modules)
    page.append(_summary(modules))
    page += [_section(module) for module in modules]
    return "\n".join(page)


def _summary(modules: list[HostModule]) -> str:
    lines = ["| module | functions | unsupported |", "|---|---|---|"]
    for module in modules:
        missing = sum(bool(call.unsupported) for call in module.hostcalls.values())
        lines.append(f"| `{module.name}` | {len(module.hostcalls)} | {missing or ''} |")
    return "\n".join(lines) + "\n"


def _section(module: HostModule) -> str:
    lines = [f"## `{module.name}`", ""]
    calls = sorted(module.hostcalls.values(), key=lambda call: call.name)
    built = [call for call in calls if not call.unsupported]
    if built:
        lines += ["| function | parameters | suspends | what it does |", "|---|---|---|---|"]
        lines += [_row(call) for call in built]
        lines.append("")
    reasons: dict[str, list[Hostcall]] = {}
    for call in calls:
        if call.unsupported:
            reasons.setdefault(call.unsupported, []).append(call)
    for reason, missing in reasons.items():
        lines += [f"Unsupported ({reason}):", ""]
        lines += [f"* `{call.name}` ({_parameters(call)})" for call in missing]
        lines.append("")
    return "\n".join(lines)


def _row(call: Hostcall) -> str:
    suspends = "yes" if call.suspends else ""
    what = " ".join(call.doc.split()).replace("|", "\\|")
    return f"| `{call.name}` | {_parameters(call)} | {suspends} | {what} |"


def _parameters(call: Hostcall) -> str:
    """Runs of one type are counted, for some calls have fourteen of them."""
    runs: list[tuple[str, int]] = []
    for letter in call.signature:
        if runs and runs[-1][0] == letter:
            runs[-1] = (letter, runs[-1][1] + 1)
        else:
            runs.append((letter, 1))
    return " ".join(_TYPES[letter] + (f"×{count}" if count > 1 else "") for letter, count in runs)  # noqa: RUF001


if __name__ == "__main__":
    sys.stdout.write(render())
