"""Geolocation: where an address is, from settings, a JSON file or a MaxMind database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address

from edge.errors import ConfigError, Problem
from edge.settings import Geolocation
from edge.stores.acl import plain_address
from edge.stores.mmdb import NOTHING, Mmdb
from edge.stores.records import Signature, encode, in_words, read_records, signature

# What the official local server answers for its own machine.
LOOPBACK = {
    "as_name": "Fastly, Inc",
    "as_number": 54113,
    "area_code": 415,
    "city": "San Francisco",
    "conn_speed": "broadband",
    "conn_type": "wired",
    "continent": "NA",
    "country_code": "US",
    "country_code3": "USA",
    "country_name": "United States of America",
    "latitude": 37.77869,
    "longitude": -122.39557,
    "metro_code": 0,
    "postal_code": "94107",
    "proxy_description": "?",
    "proxy_type": "?",
    "region": "CA",
    "utc_offset": -700,
}


class Geo:
    """What is known; immutable.  `load` makes one."""

    def __init__(
        self,
        records: dict[bytes, bytes],
        database: Mmdb | None = None,
        *,
        default_loopback: bool = False,
        read: Signature = None,
    ) -> None:
        """`records` by 4 or 16 octets; `read`: the signature of the file that was read."""
        self._records = records
        self._database = database
        self._loopback = encode(LOOPBACK) if default_loopback else None
        self.signature = read

    @classmethod
    def load(cls, settings: Geolocation, *, default_loopback: bool = False) -> Geo:
        """Reads the file: not on an event loop.  Raises ConfigError.

        `default_loopback`: loopback addresses that nothing else knows are in San Francisco.
        """
        found: dict[bytes, bytes] = {}
        database = None
        path, read = settings.file, signature(settings.file)
        try:
            if path is not None and path.suffix == ".mmdb":
                database = Mmdb(path)
            elif path is not None:
                for key, record in read_records(path).items():
                    found[_octets(key)] = complete(record)
            for key, text in settings.addresses.items():
                found[_octets(key)] = complete(json.loads(text))
        except (OSError, ValueError) as error:
            raise ConfigError(Problem("geolocation", in_words(path, error))) from None
        return cls(found, database, default_loopback=default_loopback, read=read)

    def known(self, address: bytes) -> bytes | None:
        """A record as JSON, of what is in memory.  `address` is a `plain_address`."""
        found = self._records.get(address)
        if found is None and self._loopback is not None and not self.searches:
            return self._loopback if ip_address(address).is_loopback else None
        return found

    @property
    def searches(self) -> bool:
        """Whether `search` may know more; it recurses on the data of a file."""
        return self._database is not None

    def search(self, address: bytes) -> bytes | None:
        """The same, in the database too."""
        found = self._records.get(address)
        if found is None and self._database is not None:
            record = self._database.lookup(address)
            found = None if record is None else encode(record)
        if found is None and self._loopback is not None and ip_address(address).is_loopback:
            return self._loopback
        return found


def complete(record: Mapping[str, object]) -> bytes:
    """A record as JSON, with all fields that typed SDKs insist on."""
    return encode({**NOTHING, **record})


def _octets(key: str) -> bytes:
    return plain_address(ip_address(key).packed)
