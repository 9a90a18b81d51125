"""Tells the operator once of each call that guests of a service make and that we do not have."""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger("edge.hostcalls")

# Services times functions; what comes after so many is not told.
MAX_TOLD: Final = 4096


class UnsupportedLog:
    """One per process."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, service: str, module: str, name: str, reason: str) -> None:
        """One line at the first call of this function by this service."""
        key = (service, module, name)
        if key in self._told or len(self._told) >= MAX_TOLD:
            return
        self._told.add(key)
        log.warning(
            "a guest called %s.%s, which answers UNSUPPORTED: %s",
            module,
            name,
            reason,
            extra={"service": service},
        )


UNSUPPORTED_LOG: Final = UnsupportedLog()
