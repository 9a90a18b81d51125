"""Every error we raise on purpose, grouped by whose fault it was.

Anything that is not an `EdgeError` is our own bug (a *fault*): logged with its traceback, counted,
answered 500, and turned into a trap when a guest was running.
"""

from __future__ import annotations

from dataclasses import dataclass


class EdgeError(Exception):
    """Base of everything this package raises on purpose; never raised itself."""


# The operator's fault -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where (`services.a.routes[1]`), line (from 1), what."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        path = self.path if self.path.isprintable() else repr(self.path)[1:-1]
        return f"{where}{path}: {self.message}" if path else f"{where}{self.message}"


class ConfigError(EdgeError):
    """A configuration that cannot be used.  Carries every problem found, not just the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ModuleRefused(EdgeError):
    """A guest program that we will not load; the message is one line for its author."""


# The client's fault -------------------------------------------------------------------------


class DownstreamError(EdgeError):
    """The client broke HTTP or a limit of ours.  `status` is what it is answered with."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


# A backend's fault --------------------------------------------------------------------------


class UpstreamError(EdgeError):
    """A backend failed us; `status_hint` is what a pass-through answers (502, 503, 504)."""

    status_hint = 502


# The guest's call ---------------------------------------------------------------------------


class HostcallError(EdgeError):
    """A hostcall failed in a way the guest is entitled to see; a dialect turns it into a number."""


class BadHandle(HostcallError):
    """No such handle, or it has been consumed."""


class InvalidArgument(HostcallError):
    """A pointer out of range, text that is not UTF-8, a reserved bit, a name out of bounds."""


class InvalidHead(HostcallError):
    """A method, URI, header name or header value that HTTP does not allow."""


class BufferTooSmall(HostcallError):
    """The guest's buffer cannot hold the value; the size it needs has been written where asked."""


class Missing(HostcallError):
    """The thing asked for is absent."""


class Unsupported(HostcallError):
    """We do not have this feature."""


class LimitExceeded(HostcallError):
    """The guest asked for more than its limits allow."""

    def __init__(self, message: str, *, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit  # the setting that raises it, for the operator's log line


class WouldBlock(HostcallError):
    """Not available yet (`AGAIN`)."""


class Incomplete(HostcallError):
    """The peer ended a message before its end."""


class Failed(HostcallError):
    """Anything a dialect has no better word for (`ERROR`)."""
