"""Health checks between Fastly's words and ours, both ways."""

from __future__ import annotations

from typing import Final

from edge.admin.fastly.part_fields import (
    Data,
    kept_of,
    seconds_of,
    take_counts,
    take_texts,
    take_times,
)
from edge.admin.fastly.shape import Form
from edge.model.backend import HealthCheck

_TEXTS: Final = {"method": "method", "host": "host", "path": "path"}
_COUNTS: Final = {
    "expected_response": "expected_status",
    "window": "window",
    "threshold": "threshold",
    "initial": "initial",
}
_TIMES: Final = {"check_interval": ("interval", 1000), "timeout": ("timeout", 1000)}
_KEPT: Final = ("comment", "http_version")  # shown, and without effect: checks speak HTTP/1.1
_DEFAULTS: Final = HealthCheck()


def changed(data: Data, form: Form) -> dict[str, object]:
    """The data of a health check after a request to make it (`data` is empty) or to change it."""
    keys = {key: value for key, value in data.items() if key != "fastly"}
    kept = kept_of(data)
    take_texts(form, keys, _TEXTS)
    take_counts(form, keys, _COUNTS)
    take_times(form, keys, _TIMES)
    for name in _KEPT:
        text = form.given(name)
        if text is not None:
            kept[name] = text
    if kept:
        keys["fastly"] = kept
    return keys


def shown(name: str, data: Data) -> dict[str, object]:
    """Every field of a health check but its service, version and times."""
    kept = kept_of(data)
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
    for theirs, (ours, units) in _TIMES.items():
        fields[theirs] = round(seconds_of(data.get(ours, getattr(_DEFAULTS, ours))) * units)
    return fields
