"""Device detection: records by the exact text of a User-Agent."""

from __future__ import annotations

import json

from edge.errors import ConfigError, Problem
from edge.settings import DeviceDetection
from edge.stores.records import Signature, encode, in_words, read_records, signature


class Devices:
    """What is known; immutable.  `load` makes one."""

    def __init__(self, records: dict[str, bytes], read: Signature = None) -> None:
        """`read`: the signature of the file that was read."""
        self._records = records
        self.signature = read

    @classmethod
    def load(cls, settings: DeviceDetection) -> Devices:
        """Reads the file: not on an event loop.  Raises ConfigError."""
        found: dict[str, bytes] = {}
        read = signature(settings.file)
        try:
            if settings.file is not None:
                for agent, record in read_records(settings.file).items():
                    found[agent] = encode(record)
            for agent, text in settings.user_agents.items():
                found[agent] = encode(json.loads(text))
        except (OSError, ValueError) as error:
            words = in_words(settings.file, error)
            raise ConfigError(Problem("device_detection", words)) from None
        return cls(found, read)

    def lookup(self, user_agent: str) -> bytes | None:
        """A record as JSON."""
        return self._records.get(user_agent)
