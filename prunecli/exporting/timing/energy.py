"""The energy that a model takes on a processor that counts it (RAPL), where that may be read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POWERCAP = Path("/sys/class/powercap")

BLOCK_SECONDS = 0.5
"""A counter moves about a thousand times a second: a block is long beside that."""

BLOCKS = 2


@dataclass(frozen=True)
class EnergyCounter:
    """Counts microjoules of one processor package; it starts again at 0 after `end`."""

    file: Path
    end: int

    def read(self) -> int:
        """Return the microjoules so far."""
        return int(self.file.read_text(encoding="ascii"))

    def between(self, before: int, after: int) -> int:
        """Return the microjoules between two readings.

        >>> EnergyCounter(Path("energy_uj"), 1000).between(900, 50)
        150
        """
        return after - before if after >= before else after + self.end - before


def find_counters(root: Path = POWERCAP) -> tuple[EnergyCounter, ...]:
    """Return the counters of whole packages that may be read; usually only root may."""
    found = []
    for folder in sorted(root.glob("*-rapl:*")):
        if folder.name.count(":") > 1:  # a part of a package, which counts in that
            continue
        try:
            end = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
            counter = EnergyCounter(folder / "energy_uj", end)
            counter.read()
        except (OSError, ValueError):
            continue
        found.append(counter)
    return tuple(found)


def joules_each(
    runners: Sequence[Callable[[], None]],
    counters: Sequence[EnergyCounter],
    *,
    seconds: float = BLOCK_SECONDS,
) -> tuple[float, ...]:
    """Return the joules of one run of each runner, which take turns in blocks of some `seconds`.

    All that the packages take meanwhile is counted, other programs included.
    """
    spent = [0] * len(runners)
    runs = [0] * len(runners)
    for _ in range(BLOCKS):
        for at, runner in enumerate(runners):
            before = [counter.read() for counter in counters]
            begin = time.perf_counter()
            while not runs[at] or time.perf_counter() - begin < seconds:
                runner()
                runs[at] += 1
            after = [counter.read() for counter in counters]
            spent[at] += sum(
                counter.between(*pair)
                for counter, pair in zip(counters, zip(before, after, strict=True), strict=True)
            )
    return tuple(total / count / 1e6 for total, count in zip(spent, runs, strict=True))
