"""What the compile child and its parent agree on: arguments and exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 3  # the header on stdout says why


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may use, passed as three decimal arguments in this order."""

    cpu_seconds: int
    address_bytes: int
    module_bytes: int

    def arguments(self) -> list[str]:
        """As command-line arguments."""
        return [str(self.cpu_seconds), str(self.address_bytes), str(self.module_bytes)]

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Bounds:
        """Raises ValueError unless there are exactly three numbers."""
        cpu, address, module = arguments
        return cls(int(cpu), int(address), int(module))
