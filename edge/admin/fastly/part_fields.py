"""Fields of a form that become keys of a part: texts, counts, times.  Fastly's names for ours."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from edge.admin.fastly.shape import Form
from edge.model.units import read_duration, write_duration

Data = Mapping[str, object]


def take_texts(form: Form, keys: dict[str, object], names: Mapping[str, str]) -> None:
    """What is sent empty goes."""
    for theirs, ours in names.items():
        text = form.given(theirs)
        if text:
            keys[ours] = text
        elif text is not None:
            keys.pop(ours, None)


def take_counts(form: Form, keys: dict[str, object], names: Mapping[str, str]) -> None:
    """Whole numbers, written as the configuration has them."""
    for theirs, ours in names.items():
        number = form.number(theirs)
        if number is not None:
            keys[ours] = str(number)


def take_times(form: Form, keys: dict[str, object], names: Mapping[str, tuple[str, int]]) -> None:
    """Beside our name: how many of Fastly's units are a second."""
    for theirs, (ours, units) in names.items():
        number = form.number(theirs)
        if number is not None:
            keys[ours] = write_duration(float(Decimal(number) / units))


def seconds_of(value: object) -> float:
    """A duration that a part has."""
    return float(value) if isinstance(value, int | float) else read_duration(str(value))


def kept_of(data: Data) -> dict[str, object]:
    """What is kept for Fastly's clients alone."""
    kept = data.get("fastly")
    return dict(kept) if isinstance(kept, Mapping) else {}
