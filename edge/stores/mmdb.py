"""MaxMind databases: what one of cities, countries or networks says, as a geolocation record.

The reader is the `maxminddb` package; it reads a copy of the file in memory of our own, so that
nobody who writes to the file can change or shorten what is mapped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import maxminddb

from edge.stores.countries import ALPHA_3

log = logging.getLogger("edge.stores")

MAX_FILE = 1 << 30
_PIECE = 1 << 24
UNKNOWN = "?"
UNKNOWN_OFFSET = 9999

# What SDKs with typed records insist on, with what says that nothing is known.
NOTHING: Mapping[str, object] = {
    "as_name": UNKNOWN,
    "as_number": 0,
    "area_code": 0,
    "city": UNKNOWN,
    "conn_speed": UNKNOWN,
    "conn_type": UNKNOWN,
    "continent": UNKNOWN,
    "country_code": UNKNOWN,
    "country_code3": UNKNOWN,
    "country_name": UNKNOWN,
    "latitude": 0.0,
    "longitude": 0.0,
    "metro_code": 0,
    "postal_code": UNKNOWN,
    "proxy_description": UNKNOWN,
    "proxy_type": UNKNOWN,
    "region": None,
    "utc_offset": UNKNOWN_OFFSET,
}


class Mmdb:
    """One database, open."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, or ValueError when it is no such database."""
        copy = _private_copy(path)
        try:
            self._reader = maxminddb.open_database(f"/proc/self/fd/{copy}", maxminddb.MODE_AUTO)
        except maxminddb.InvalidDatabaseError as error:
            raise ValueError(f"is not a MaxMind database: {error}") from None
        finally:
            os.close(copy)
        self._damaged = False

    def lookup(self, address: bytes) -> dict[str, object] | None:
        """The record of 4 or 16 octets.  Recurses as deeply as the file says, within bounds."""
        try:
            found = self._reader.get(ip_address(address))
        except maxminddb.InvalidDatabaseError as error:
            if not self._damaged:  # once for each time it is loaded
                self._damaged = True
                log.error("the geolocation database is damaged: %s", error)
            return None
        except ValueError:
            return None  # an IPv6 address, and the database has only IPv4
        return record_of(found) if isinstance(found, dict) else None

    def close(self) -> None:
        self._reader.close()


def record_of(found: Mapping[str, Any]) -> dict[str, object]:
    """The fields of GeoIP2 and GeoLite2 databases under the names that guests know."""
    country = _part(found, "country") or _part(found, "registered_country")
    location, traits = _part(found, "location"), _part(found, "traits")
    code = _text(country, "iso_code")
    given = {
        "as_name": _text(found, "autonomous_system_organization")
        or _text(traits, "autonomous_system_organization"),
        "as_number": _number(found, "autonomous_system_number")
        or _number(traits, "autonomous_system_number"),
        "city": _name(_part(found, "city")),
        "conn_type": _CONNECTIONS.get(_text(traits, "connection_type") or ""),
        "continent": _text(_part(found, "continent"), "code"),
        "country_code": code,
        "country_code3": ALPHA_3.get(code or ""),
        "country_name": _name(country),
        "latitude": _decimal(location, "latitude"),
        "longitude": _decimal(location, "longitude"),
        "metro_code": _number(location, "metro_code"),
        "postal_code": _text(_part(found, "postal"), "code"),
        "region": _region(found),
        "utc_offset": utc_offset(_text(location, "time_zone") or ""),
    }
    return dict(NOTHING) | {key: value for key, value in given.items() if value is not None}


_CONNECTIONS = {
    "Cable/DSL": "wired",
    "Corporate": "wired",
    "Cellular": "mobile",
    "Dialup": "dialup",
    "Satellite": "satellite",
}


def utc_offset(zone: str) -> int | None:
    """Hours times 100 plus minutes, now; None for a zone that this machine does not know."""
    found = _zone(zone)
    if found is None:
        return None
    offset = datetime.now(UTC).astimezone(found).utcoffset()
    if offset is None:
        return None
    minutes = round(offset.total_seconds() / 60)
    return (abs(minutes) // 60 * 100 + abs(minutes) % 60) * (-1 if minutes < 0 else 1)


@lru_cache(1024)  # there are about 600
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None


def _region(found: Mapping[str, Any]) -> str | None:
    """The most specific subdivision."""
    subdivisions = found.get("subdivisions")
    if not isinstance(subdivisions, list) or not subdivisions:
        return None
    last = subdivisions[-1]
    return _text(last, "iso_code") if isinstance(last, dict) else None


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = found.get(key)
    return part if isinstance(part, dict) else {}


def _text(found: Mapping[str, Any], key: str) -> str | None:
    text = found.get(key)
    return text if isinstance(text, str) and text else None


def _name(found: Mapping[str, Any]) -> str | None:
    return _text(_part(found, "names"), "en")


def _number(found: Mapping[str, Any], key: str) -> int | None:
    number = found.get(key)
    fits = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 32
    return number if fits else None


def _decimal(found: Mapping[str, Any], key: str) -> float | None:
    number = found.get(key)
    finite = isinstance(number, float) and abs(number) <= 360
    return number if finite else None


def _private_copy(path: Path) -> int:
    """A file descriptor of memory that holds the file's bytes."""
    copy = os.memfd_create("edge-geolocation", os.MFD_CLOEXEC)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE:
                raise ValueError(f"has more than {MAX_FILE} bytes")
            with os.fdopen(os.dup(copy), "wb") as target:
                while piece := file.read(_PIECE):
                    target.write(piece)
    except BaseException:
        os.close(copy)
        raise
    return copy
