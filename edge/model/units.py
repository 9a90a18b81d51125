"""Durations, sizes, shares and counts as people write them, both ways; pure text, no YAML.

Readers raise ValueError whose message says what was wrong and how to write it.  Writers give the
shortest exact form, and what they write reads back as the same value.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-zµ%]*)", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)

_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION_FORM = "write a number and a unit: 50ms, 2s, 1us, 5m, 1h"

# KB is 1000 and KiB is 1024 (IEC 80000-13); a bare K or M could be either, so it is refused.
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_BYTES_FORM = "write a number and a unit: 64KiB, 128MiB, 69KB, 512B"
_BYTES_ORDER = ("GiB", "MiB", "KiB", "GB", "MB", "KB", "B")


def read_duration(text: str) -> float:
    """Seconds from `50ms`; a bare 0 is allowed, any other number needs its unit."""
    number, unit = _split(text, _DURATION_FORM)
    if not unit:
        if number == 0:
            return 0.0
        raise ValueError(f"{text} has no unit; {_DURATION_FORM}")
    if unit not in _SECONDS:
        raise ValueError(f"{unit!r} is not a unit of time; {_DURATION_FORM}")
    return float(number * _SECONDS[unit])


def write_duration(seconds: float) -> str:
    """The shortest exact form: 0.05 is `50ms`."""
    exact = Decimal(repr(seconds))
    for unit in ("s", "ms", "us", "ns"):
        number = exact / _SECONDS[unit]
        if number == number.to_integral_value():
            return f"{int(number)}{unit}"
    return f"{exact * 10**9:f}ns"


def read_bytes(text: str) -> int:
    """Bytes from `128MiB`; a bare 0 is allowed, any other number needs its unit."""
    number, unit = _split(text, _BYTES_FORM)
    if not unit:
        if number == 0:
            return 0
        raise ValueError(f"{text} has no unit; {_BYTES_FORM}")
    factor = _BYTES.get(unit)
    if factor is None:
        near = [known for known in _BYTES if known.lower() == unit.lower()]
        hint = f"; did you mean {near[0]}?" if near else f"; {_BYTES_FORM}"
        raise ValueError(f"{unit!r} is not a unit of size{hint}")
    size = number * factor
    if size != int(size):
        raise ValueError(f"{text} is not a whole number of bytes")
    return int(size)


def write_bytes(size: int) -> str:
    """The shortest exact form: 134217728 is `128MiB`, 69000 is `69KB`."""
    if size == 0:
        return "0B"
    unit = next(unit for unit in _BYTES_ORDER if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


def read_share(text: str) -> float:
    """A share of 1 from `50%`."""
    number, unit = _split(text, "write a percentage: 50%")
    if unit != "%":
        raise ValueError(f"{text} is not a percentage; write it as 50%")
    return float(number / 100)


def write_share(share: float) -> str:
    """0.5 is `50%`."""
    return f"{(Decimal(repr(share)) * 100).normalize():f}%"


def read_count(text: str) -> int:
    """A whole number, not negative, without separators."""
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def read_switch(text: str) -> bool:
    """`true` or `false`; YAML 1.1's yes, no, on and off are refused as too easily misread."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _split(text: str, form: str) -> tuple[Decimal, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not understood; {form}")
    return Decimal(match[1]), match[2]
