"""Any number of models, timed in turns, each against the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.exporting.timing.benchmark import (
    Contestant,
    Timed,
    percentiles,
    ratio_interval,
    time_everywhere,
)
from prunecli.progress import Progress, silent
from prunecli.report import ModelTiming, TimingRow

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Racer:
    """A model that is timed: what people call it, and the shape of its images."""

    name: str
    contestant: Contestant
    shape: tuple[int, int, int]


def race(
    racers: Sequence[Racer],
    *,
    devices: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    runs: int = 100,
    time_limit: float = 10.0,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[TimingRow, ...]:
    """Return the times of models that take turns, one row per device and batch size.

    `time_limit` is in seconds per row. Raises what `benchmark` raises.
    """
    return tuple(
        _row(racers, timed, seed=seed)
        for timed in time_everywhere(
            [racer.contestant for racer in racers],
            [racer.shape for racer in racers],
            devices=devices,
            batches=batches,
            threads=threads,
            runs=runs,
            time_limit=time_limit,
            seed=seed,
            progress=progress,
        )
    )


def _row(racers: Sequence[Racer], timed: Timed, *, seed: int) -> TimingRow:
    times = timed.times
    medians = np.median(times, axis=0)
    models = [ModelTiming(racers[0].name, percentiles(times[:, 0]))]
    for at, racer in enumerate(racers[1:], start=1):
        low, high = ratio_interval(times[:, [0, at]], seed=seed)
        ratio = float(medians[at] / medians[0])
        models.append(ModelTiming(racer.name, percentiles(times[:, at]), ratio, low, high))
    return TimingRow(
        timed.device,
        timed.provider,
        timed.setting.batch,
        timed.setting.threads,
        len(times),
        tuple(models),
    )
