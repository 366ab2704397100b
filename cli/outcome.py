"""What a verb hands to the renderer: a report, the path it wrote, and whether a gate held."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecli.errors import GateError


@dataclass(frozen=True)
class Outcome:
    """A finished verb.

    `output` is the file it wrote (None for verbs whose product is the report itself); `brief` is
    what `-q` prints for such a verb; `gate` is the stated gate that was not met. `following` is the
    command that people usually run next.
    """

    command: str
    report: Any
    output: Path | None = None
    brief: str | None = None
    gate: GateError | None = None
    following: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0, or 1 where a gate was not met."""
        return 0 if self.gate is None else self.gate.exit_code
