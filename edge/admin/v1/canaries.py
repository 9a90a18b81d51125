"""The terms of a canary, as callers state them: how many clients, and when it is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypedDict

from edge.admin import schema
from edge.admin.api import Call, Parameter
from edge.admin.schema import Schema
from edge.admin.v1.views import WHOLE
from edge.errors import ApiRefused, Refusal

_MAX_RATE: Final = 0.05
_MIN_REQUESTS: Final = 20
_PERCENT: Final = schema.number(0, 100, about="Of clients; 100 activates it.")
_RATE: Final = schema.number(0, 1)
_REQUESTS: Final = schema.number(1, 1_000_000, kind="integer")

CANARY_FIELDS: Final[Mapping[str, Schema]] = {
    "percent": _PERCENT,
    "max_error_rate": {
        **_RATE,
        "description": "Share of its requests that may fail (5xx, traps) before it is taken back.",
        "default": _MAX_RATE,
    },
    "max_limit_rate": {
        **_RATE,
        "description": "Share of its requests that may meet a limit before it is taken back.",
        "default": _MAX_RATE,
    },
    "min_requests": {
        **_REQUESTS,
        "description": "Requests before which no rate is believed.",
        "default": _MIN_REQUESTS,
    },
}
CANARY_QUERY: Final = tuple(
    Parameter(
        name,
        str(rule["description"]),
        {**rule, "minimum": 0.01} if name == "percent" else rule,
    )
    for name, rule in CANARY_FIELDS.items()
)


class Arguments(TypedDict):
    """What `ControlPlane.canary` is given besides who and which."""

    share: int
    max_error_rate: float
    max_limit_rate: float
    min_requests: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one canary."""

    percent: float
    max_error_rate: float = _MAX_RATE
    max_limit_rate: float = _MAX_RATE
    min_requests: int = _MIN_REQUESTS

    @property
    def is_whole(self) -> bool:
        """Whether it gets every client: no canary, then, but an activation."""
        return self.percent >= 100

    def arguments(self) -> Arguments:
        """Raises ApiRefused INVALID for a share of clients that is too small to tell from none."""
        share = round(self.percent * WHOLE / 100)
        if self.percent > 0 and share == 0:
            raise ApiRefused(Refusal.INVALID, "percent: the least share is 0.01")
        return Arguments(
            share=share,
            max_error_rate=self.max_error_rate,
            max_limit_rate=self.max_limit_rate,
            min_requests=self.min_requests,
        )


def terms_of(fields: Mapping[str, object]) -> Terms | None:
    """Terms that a document states; None where it has no `percent`.

    The schema has made sure of the types.  Raises ApiRefused INVALID for terms of no canary.
    """
    given = {name: value for name, value in fields.items() if name in CANARY_FIELDS}
    if "percent" not in given:
        if given:
            raise ApiRefused(
                Refusal.INVALID, f"{', '.join(given)}: only a canary has those; give percent"
            )
        return None
    numbers = {name: float(str(value)) for name, value in given.items()}
    least = int(numbers.pop("min_requests", _MIN_REQUESTS))
    terms = Terms(**numbers, min_requests=least)
    terms.arguments()
    return terms


def terms_of_query(call: Call) -> Terms | None:
    """The same, from the query."""
    return terms_of({name: call.asked(name) for name in CANARY_FIELDS if name in call.query})
