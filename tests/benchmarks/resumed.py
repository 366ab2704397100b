"""The table of a script whose rows take long: one row at a time, and none twice."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Rows:
    """A CSV file of `fields`, of which the first `keys` say what a row is about."""

    path: Path
    fields: tuple[str, ...]
    keys: int

    def done(self) -> set[tuple[str, ...]]:
        """Return what the file has rows about, as text."""
        if not self.path.exists():
            return set()
        with self.path.open(newline="") as file:
            return {
                tuple(row[field] for field in self.fields[: self.keys])
                for row in csv.DictReader(file)
            }

    def append(self, row: Mapping[str, Any] | Sequence[Any]) -> None:
        """Add one row, by field or in the order of the fields, and show it."""
        values = [row[field] for field in self.fields] if isinstance(row, Mapping) else row
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(self.fields)
            writer.writerow(values)
        print(*values, flush=True)
