"""Health checks between Fastly's words and ours, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from edge.admin.fastly.shape import Form
from edge.model.backend import HealthCheck
from edge.model.units import read_duration, write_duration

Data = Mapping[str, object]

_TEXTS: Final = {"method": "method", "host": "host", "path": "path"}
_COUNTS: Final = {
    "expected_response": "expected_status",
    "window": "window",
    "threshold": "threshold",
    "initial": "initial",
}
_TIMES: Final = {"check_interval": "interval", "timeout": "timeout"}  # milliseconds
_KEPT: Final = ("comment", "http_version")  # shown, and without effect: checks speak HTTP/1.1
_DEFAULTS: Final = HealthCheck()


def changed(data: Data, form: Form) -> dict[str, object]:
    """The data of a health check after a request to make it (`data` is empty) or to change it."""
    keys = {key: value for key, value in data.items() if key != "fastly"}
    kept = _kept(data)
    for theirs, ours in _TEXTS.items():
        text = form.given(theirs)
        if text:
            keys[ours] = text
        elif text is not None:
            keys.pop(ours, None)
    for theirs, ours in _COUNTS.items():
        number = form.number(theirs)
        if number is not None:
            keys[ours] = str(number)
    for theirs, ours in _TIMES.items():
        number = form.number(theirs)
        if number is not None:
            keys[ours] = write_duration(float(Decimal(number) / 1000))
    for name in _KEPT:
        text = form.given(name)
        if text is not None:
            kept[name] = text
    if kept:
        keys["fastly"] = kept
    return keys


def shown(name: str, data: Data) -> dict[str, object]:
    """Every field of a health check but its service, version and times."""
    kept = _kept(data)
    fields: dict[str, object] = {
        "name": name,
        "comment": kept.get("comment", ""),
        "http_version": kept.get("http_version", "1.1"),
        "headers": [],
    }
    for theirs, ours in _TEXTS.items():
        fields[theirs] = data.get(ours, getattr(_DEFAULTS, ours))
    for theirs, ours in _COUNTS.items():
        fields[theirs] = int(str(data.get(ours, getattr(_DEFAULTS, ours))))
    for theirs, ours in _TIMES.items():
        value = data.get(ours, getattr(_DEFAULTS, ours))
        seconds = float(value) if isinstance(value, int | float) else read_duration(str(value))
        fields[theirs] = round(seconds * 1000)
    return fields


def _kept(data: Data) -> dict[str, object]:
    kept = data.get("fastly")
    return dict(kept) if isinstance(kept, Mapping) else {}
