"""What the compile child and its parent agree on: arguments and exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 3  # the header on stdout says why


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may use, passed as decimal arguments in this order."""

    cpu_seconds: int
    address_bytes: int
    module_bytes: int
    exceptions: bool = False  # whether the engine takes the exception handling proposal

    def arguments(self) -> list[str]:
        """As command-line arguments."""
        numbers = (self.cpu_seconds, self.address_bytes, self.module_bytes, int(self.exceptions))
        return [str(number) for number in numbers]

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Bounds:
        """Raises ValueError unless there are exactly four numbers."""
        cpu, address, module, exceptions = arguments
        return cls(int(cpu), int(address), int(module), bool(int(exceptions)))
