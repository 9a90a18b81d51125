"""How a refusal looks on the wire: problem+json (RFC 9457), or what Fastly's clients read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from edge.admin.api import JSON, PROBLEM, Reply
from edge.errors import ApiRefused, Refusal

TYPE: Final = "urn:edge-server:problem:"  # followed by the code
RETRY_SECONDS: Final = 2
_RETRY: Final = frozenset((Refusal.BUSY, Refusal.STOPPING))
_CHALLENGE: Final = ("www-authenticate", 'Bearer realm="edge"')

# Where Fastly's API answers another status: its clients act on it.
_FASTLY_STATUS: Final[Mapping[Refusal, int]] = {
    Refusal.VERSION_LOCKED: 422,
    Refusal.VERSION_ACTIVE: 422,
}

PROBLEM_SCHEMA: Final[Mapping[str, object]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {
            "type": "string",
            "description": "Stable: what a program should look at.",
        },
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "message": {"type": "string"},
                    "line": {"type": "integer"},
                },
            },
        },
    },
}


def refusal_reply(
    error: ApiRefused,
    request_id: str,
    *,
    fastly: bool = False,
    headers: Sequence[tuple[str, str]] = (),
) -> Reply:
    """The answer to a call that was refused."""
    refusal = error.refusal
    extra = list(headers)
    if refusal is Refusal.UNAUTHORIZED:
        extra.append(_CHALLENGE)
    if refusal in _RETRY and not any(name == "retry-after" for name, _ in extra):
        extra.append(("retry-after", str(RETRY_SECONDS)))
    if fastly:
        status = _FASTLY_STATUS.get(refusal, refusal.status)
        detail = "\n".join([error.detail, *map(str, error.problems)])
        return Reply(status, _json({"msg": refusal.title, "detail": detail}), JSON, extra)
    facts = problem_of(error)
    facts["request_id"] = request_id
    return Reply(refusal.status, _json(facts), PROBLEM, extra)


def problem_of(error: ApiRefused) -> dict[str, object]:
    """The same as plain values, for streams of events; without the request's id."""
    refusal = error.refusal
    facts: dict[str, object] = {
        "type": TYPE + refusal.code,
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        "detail": error.detail,
    }
    if error.problems:
        facts["problems"] = [
            {
                "path": problem.path,
                "message": problem.message,
                **({} if problem.line is None else {"line": problem.line}),
            }
            for problem in error.problems
        ]
    return facts


def fault_reply(request_id: str, *, fastly: bool) -> Reply:
    """Our own mistake; what it was is in the log, under this id."""
    title, detail = "The server made a mistake", f"see its log for request {request_id}"
    if fastly:
        return Reply(500, _json({"msg": title, "detail": detail}), JSON)
    facts = {
        "type": TYPE + "fault",
        "title": title,
        "status": 500,
        "code": "fault",
        "detail": detail,
        "request_id": request_id,
    }
    return Reply(500, _json(facts), PROBLEM)


def _json(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
