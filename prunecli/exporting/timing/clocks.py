"""Which clock a timing is read from, and what other programs did to the machine meanwhile.

On one thread a network is timed by the processor time of that thread, which other programs do not
lengthen; several threads wait for each other, so that only the wall clock tells how long they take.
The predictions of a latency table are of the same kind: they add up the shortest of many runs of
every operator, during which the thread was left alone.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WALL, PROCESSOR = "wall", "processor"

CLOCKS: dict[str, Callable[[], float]] = {WALL: time.perf_counter, PROCESSOR: time.thread_time}

_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Fields of a line of `/proc/stat` that count idle time: idle itself, and waiting for a disk."""

CROWDED = 0.25
"""Cores that programs may want beyond those there are, before a timing is called uncertain."""

LEFT_ALONE = 0.8
"""The share of the wall clock that a single thread has to get of its processor."""


def clock_kind(device: str, threads: int) -> str:
    """Return the clock that a timing on a device is read from.

    >>> clock_kind("cpu", 1), clock_kind("cpu", 4), clock_kind("cuda", 1)
    ('processor', 'wall', 'wall')
    """
    return PROCESSOR if device == "cpu" and threads == 1 else WALL


@dataclass(frozen=True)
class Run:
    """Runs a network once; `clock` is what its time is read from, in seconds."""

    once: Callable[[], None]
    clock: Callable[[], float] = time.perf_counter

    def __call__(self) -> None:
        """Run it."""
        self.once()


@dataclass
class Watch:
    """What a machine did while something was timed: cores on average, 0 where nothing tells.

    `others` are those that other programs kept busy, of `cores` that this process may use; `own`
    are those that it used itself.
    """

    cores: int
    others: float = 0.0
    own: float = 0.0

    def warnings(self, *, threads: int) -> list[str]:
        """Say that the machine was busy, where that shows."""
        if self.others + threads > self.cores + CROWDED and self.others > CROWDED:
            what = f"other programs kept {self.others:.1f} of {self.cores} cores busy meanwhile"
        elif threads == 1 and 0 < self.own < LEFT_ALONE:
            what = f"this program had its processor for {self.own:.0%} of the time"
        else:
            return []
        load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        return [f"times are uncertain: {what}{load}; measure again on an idle machine"]


@contextmanager
def watched() -> Iterator[Watch]:
    """Yield a watch that knows, once the block has ended, what the machine did during it."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    watch = Watch(len(cpus) or os.cpu_count() or 1)
    begin, busy, own = time.perf_counter(), _busy(cpus), time.process_time()
    try:
        yield watch
    finally:
        seconds, used = time.perf_counter() - begin, time.process_time() - own
        later = _busy(cpus)
        watch.own = used / seconds
        if busy is not None and later is not None:
            watch.others = max(0.0, (later - busy - used) / seconds)


def _busy(cpus: set[int]) -> float | None:
    """Return the seconds that these CPUs have worked for any program; None where nothing tells."""
    try:
        lines = _STAT.read_text(encoding="ascii").splitlines()
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):  # not Linux
        return None
    names = {f"cpu{number}" for number in cpus}
    rows = [line.split() for line in lines]
    ticks = [[int(each) for each in row[1:9]] for row in rows if row and row[0] in names]
    return sum(sum(row) - sum(row[at] for at in _IDLE) for row in ticks) / tick
