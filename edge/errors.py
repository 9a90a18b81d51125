"""Every error we raise on purpose, grouped by whose fault it was.

Anything that is not an `EdgeError` is our own bug (a *fault*): logged with its traceback, counted,
answered 500, and turned into a trap when a guest was running.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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


# The deployer's fault: whoever uses the control API ------------------------------------------


class Refusal(Enum):
    """Why a request to the control API was refused: a stable code, its status, its title.

    The codes are a promise to clients; `docs/api.md` lists them.
    """

    BAD_REQUEST = ("bad_request", 400, "The request cannot be understood")
    INVALID = ("invalid", 422, "A value in the request is not allowed")
    UNAUTHORIZED = ("unauthorized", 401, "A valid token is needed")
    FORBIDDEN = ("forbidden", 403, "The token does not allow this")
    NOT_FOUND = ("not_found", 404, "There is no such thing")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "This cannot be done to it")
    CONFLICT = ("conflict", 409, "It is in the way of something that exists")
    OWNED_BY_FILE = ("owned_by_file", 409, "The configuration file owns this service")
    ROUTE_CONFLICT = ("route_conflict", 409, "Another service answers there")
    VERSION_LOCKED = ("version_locked", 409, "The version can no longer be changed")
    VERSION_ACTIVE = ("version_active", 409, "The version is being served")
    NO_PACKAGE = ("no_package", 409, "The version has no package")
    NO_ROUTE = ("no_route", 409, "The version has no domain")
    IN_USE = ("in_use", 409, "Something else refers to it")
    PRECONDITION_FAILED = ("precondition_failed", 412, "It has changed in the meantime")
    TOO_LARGE = ("too_large", 413, "More bytes than are taken")
    PACKAGE_INVALID = ("package_invalid", 422, "The package cannot be used")
    MODULE_REFUSED = ("module_refused", 422, "The program cannot be served")
    NOT_ACTIVATED = ("not_activated", 422, "The version was not activated; the old one serves on")
    LIMIT = ("limit", 422, "There are as many as there may be")
    QUOTA = ("quota", 422, "The storage set aside for this is full")
    RATE_LIMITED = ("rate_limited", 429, "Too many attempts")
    UNSUPPORTED = ("unsupported", 501, "This server does not have that feature")
    BUSY = ("busy", 503, "Too much at once; try again")
    STOPPING = ("stopping", 503, "The server is stopping")
    STORAGE = ("storage", 507, "It could not be stored")

    def __init__(self, code: str, status: int, title: str) -> None:
        self.code = code
        self.status = status
        self.title = title


class ApiRefused(EdgeError):
    """A request to the control API that is not done, and has changed nothing."""

    def __init__(
        self, refusal: Refusal, detail: str, *, problems: tuple[Problem, ...] = ()
    ) -> None:
        """`detail` says what and what to do; `problems` are those of a document, each with a path.

        Neither ever quotes a secret.
        """
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail
        self.problems = problems


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
