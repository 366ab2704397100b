"""Any number of models, timed in turns, each against the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.exporting.timing.benchmark import (
    Timed,
    percentiles,
    ratio_interval,
    time_everywhere,
)
from prunecli.exporting.timing.engines import CPU, ONNX_RUNTIME, Contestant
from prunecli.exporting.timing.peak_memory import peak_memory
from prunecli.progress import Progress, silent
from prunecli.report import ModelTiming, TimingRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.architectures.reference import InputSpec
    from prunecli.exporting.timing.energy import EnergyCounter


@dataclass(frozen=True)
class Racer:
    """A model that is timed: what people call it, and what it takes."""

    name: str
    contestant: Contestant
    input: InputSpec


def race(
    racers: Sequence[Racer],
    *,
    devices: Sequence[str] = ("cpu",),
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    runs: int = 100,
    time_limit: float = 10.0,
    seed: int = 0,
    counters: Sequence[EnergyCounter] = (),
    memory: bool = False,
    progress: Progress = silent,
) -> tuple[TimingRow, ...]:
    """Return the times of models that take turns, one row per device and batch size.

    `time_limit` is in seconds per row. `counters` tell the energy of a batch; `memory` runs every
    model in a process of its own for its peak, both on the CPU alone. Raises what `benchmark`
    raises.
    """
    return tuple(
        _row(racers, timed, seed=seed, memory=memory and timed.device == CPU)
        for timed in time_everywhere(
            [racer.contestant for racer in racers],
            [racer.input for racer in racers],
            devices=devices,
            runtimes=runtimes,
            batches=batches,
            threads=threads,
            runs=runs,
            time_limit=time_limit,
            seed=seed,
            counters=counters,
            progress=progress,
        )
    )


def _row(racers: Sequence[Racer], timed: Timed, *, seed: int, memory: bool) -> TimingRow:
    times, setting = timed.times, timed.setting
    medians = np.median(times, axis=0)
    models = []
    for at, racer in enumerate(racers):
        low, high = ratio_interval(times[:, [0, at]], seed=seed) if at else (None, None)
        peak = (
            peak_memory(
                racer.contestant.path,
                input=racer.input,
                batch=setting.batch,
                threads=setting.threads,
            )
            if memory
            else None
        )
        models.append(
            ModelTiming(
                racer.name,
                percentiles(times[:, at]),
                ratio=float(medians[at] / medians[0]) if at else None,
                ratio_low=low,
                ratio_high=high,
                peak_bytes=peak,
                joules=timed.joules[at] if timed.joules else None,
            )
        )
    return TimingRow(
        timed.device,
        timed.provider,
        setting.batch,
        setting.threads,
        len(times),
        tuple(models),
    )
