"""What may be written into the catalogue at all: texts and JSON with bounds, and revisions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from edge.errors import ApiRefused, Refusal

COMMENT_CHARS = 4096
DATA_BYTES = 256 * 1024  # JSON of one part or of the settings of one version

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_CONTROL_BUT_SPACE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read(what: str, value: str, reader: Callable[[str], str]) -> str:
    """What a reader of `edge.model.names` makes of it; ValueError becomes INVALID."""
    try:
        return reader(value)
    except ValueError as error:
        raise ApiRefused(Refusal.INVALID, f"{what}: {error}") from None


def read_text(what: str, value: str, most: int, least: int = 1) -> str:
    """One line of Unicode without control characters."""
    if not least <= len(value) <= most:
        raise ApiRefused(
            Refusal.INVALID, f"{what} has {len(value)} characters; {least} to {most} are allowed"
        )
    if _CONTROL.search(value):
        raise ApiRefused(Refusal.INVALID, f"{what} has control characters; leave them out")
    return value


def read_comment(value: str) -> str:
    """Text for people; line breaks are allowed."""
    if len(value) > COMMENT_CHARS:
        raise ApiRefused(
            Refusal.INVALID, f"a comment has at most {COMMENT_CHARS} characters, not {len(value)}"
        )
    if _CONTROL_BUT_SPACE.search(value):
        raise ApiRefused(Refusal.INVALID, "a comment has control characters; leave them out")
    return value


def to_json(what: str, value: Mapping[str, object], most: int = DATA_BYTES) -> str:
    """Compact, with sorted keys: equal values are equal texts."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ApiRefused(Refusal.INVALID, f"{what} is not plain JSON: {error}") from None
    if len(text) > most:
        raise ApiRefused(
            Refusal.INVALID, f"{what} has {len(text)} bytes as JSON; at most {most} are kept"
        )
    return text


def from_json(text: str) -> Mapping[str, object]:
    """What `to_json` wrote."""
    found: Mapping[str, object] = json.loads(text)
    return found


def expect_revision(what: str, expect: int | None, revision: int) -> None:
    """ApiRefused PRECONDITION_FAILED when somebody else has changed it; None expects nothing."""
    if expect is not None and expect != revision:
        raise ApiRefused(
            Refusal.PRECONDITION_FAILED,
            f"{what} is at revision {revision}, not {expect}: somebody changed it; read it again",
        )
