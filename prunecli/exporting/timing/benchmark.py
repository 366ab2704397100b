"""Dense against slim, timed in one interleaved run: medians, percentiles and an honest interval."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.exporting.onnx.runtime import fixed_batch, open_session, physical_cores
from prunecli.exporting.timing.clocks import Run, clock_kind
from prunecli.exporting.timing.energy import EnergyCounter, joules_each
from prunecli.exporting.timing.engines import (
    CPU,
    ONNX_RUNTIME,
    Contestant,
    Runner,
    Setting,
    check_devices,
    find_engines,
)
from prunecli.progress import Progress, Step, silent
from prunecli.report import BenchmarkRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from prunecli.architectures.reference import InputSpec

PERCENTILES = (50, 90, 95, 99)
# A blink tells nothing of a fast network, and a slow one must not take minutes.
_SHORTEST_SECONDS = 0.5
_WARM_UP_SECONDS = 0.2
_LEAST_ROUNDS = 5
_MOST_ROUNDS = 5000
_RESAMPLES = 1000
_CONFIDENCE = 0.95


def benchmark(
    slim_onnx: Path,
    dense_onnx: Path | None = None,
    *,
    float_onnx: Path | None = None,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    devices: Sequence[str] = ("cpu",),
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
    batches: Sequence[int] = (1, 8),
    threads: int | None = None,
    flops_ratio: float | None = None,
    slim_model: nn.Module | None = None,
    dense_model: nn.Module | None = None,
    runs: int = 100,
    time_limit: float = 10.0,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[BenchmarkRow, ...]:
    """Time slim and dense alternately (A B A B ...), one row per device and batch.

    A file with a fixed batch is timed with that one. Each row takes `runs` rounds after a warm-up,
    more if they are over in half a second, fewer if `time_limit` seconds are over (five at least).
    `threads=None` takes one per physical core. The interval of the speed-up is a 95 % bootstrap
    over the rounds. `slim_model` and `dense_model` serve torch on CUDA where onnxruntime-gpu is
    missing. `float_onnx` is what slim was made of, in another precision. All devices are looked for
    before anything is timed: raises `DeviceError`
    (`DEVICE_MISSING`, `PROVIDER_FELL_BACK`).
    """
    slim = Contestant(slim_onnx, slim_model)
    others = {"dense": dense_onnx, "float": float_onnx}
    names = ["slim", *(name for name, file in others.items() if file is not None)]
    contestants = [
        slim,
        *(
            Contestant(file, dense_model if name == "dense" else None)
            for name, file in others.items()
            if file is not None
        ),
    ]
    check_devices(devices, contestants, runtimes=runtimes)
    only = fixed_batch(open_session(slim_onnx, threads=threads))
    return tuple(
        summarise(
            dict(zip(names, timed.times.T, strict=True)),
            timed.device,
            timed.provider,
            timed.setting,
            flops_ratio=flops_ratio,
        )
        for timed in time_everywhere(
            contestants,
            [input] * len(contestants),
            devices=devices,
            runtimes=runtimes,
            batches=batches if only is None else (only,),
            threads=threads,
            runs=runs,
            time_limit=time_limit,
            seed=seed,
            progress=progress,
        )
    )


@dataclass(frozen=True)
class Timed:
    """Seconds `[rounds, contestants]` of one device and batch size.

    `joules` are those of one run of each contestant, where counters were read.
    """

    device: str
    provider: str
    setting: Setting
    times: NDArray[np.float64]
    joules: tuple[float, ...] = ()


def time_everywhere(
    contestants: Sequence[Contestant],
    inputs: Sequence[InputSpec],
    *,
    devices: Sequence[str],
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
    batches: Sequence[int],
    threads: int | None,
    runs: int,
    time_limit: float,
    seed: int,
    progress: Progress,
    counters: Sequence[EnergyCounter] = (),
) -> Iterator[Timed]:
    """Yield the times of contestants that take turns, for every device and batch size.

    `inputs` are what each of them takes; `counters` count the energy of the CPU. All devices are
    looked for before anything is timed; see `benchmark`.
    """
    count = threads or physical_cores()
    engines = find_engines(devices, runtimes, contestants)
    plan = [(where, batch) for where in engines for batch in batches]
    for done, (where, batch) in enumerate(plan):
        name, engine = where[1], engines[where]
        progress(Step("benchmark", done, len(plan), {"device": name, "batch": batch}))
        settings = [Setting(spec, batch, count, seed) for spec in inputs]
        runners = [
            engine.prepare(contestant, setting)
            for contestant, setting in zip(contestants, settings, strict=True)
        ]
        times = time_interleaved(runners, runs=runs, time_limit=time_limit)
        joules = joules_each(runners, counters) if counters and name == CPU else ()
        del runners
        yield Timed(name, engine.provider, settings[0], times, joules)
    progress(Step("benchmark", len(plan), len(plan)))


def time_interleaved(
    runners: Sequence[Runner], *, runs: int, time_limit: float
) -> NDArray[np.float64]:
    """Return seconds `[rounds, runners]`: every round runs each runner once, in turn."""
    for runner in runners:
        _warm_up(runner, seconds=min(_WARM_UP_SECONDS, time_limit / 10))
    rounds: list[list[float]] = []
    with _no_garbage_collection():
        begin = time.perf_counter()
        while not _enough(len(rounds), time.perf_counter() - begin, runs, time_limit):
            rounds.append([_timed(runner) for runner in runners])
    return np.array(rounds)


def summarise(
    times: Mapping[str, NDArray[np.float64]],
    device: str,
    provider: str,
    setting: Setting,
    *,
    flops_ratio: float | None = None,
) -> BenchmarkRow:
    """Return the row of timings `[rounds]` in seconds of `slim`, and of `dense` and `float`."""
    medians = {name: percentiles(values) for name, values in times.items()}
    slim, dense, plain = (medians.get(name, {}) for name in ("slim", "dense", "float"))
    low, high = _interval(times, "dense", setting.seed)
    gain_low, gain_high = _interval(times, "float", setting.seed)
    return BenchmarkRow(
        device=device,
        provider=provider,
        batch=setting.batch,
        threads=setting.threads,
        dense_ms=dense.get("p50"),
        slim_ms=slim["p50"],
        speedup=dense["p50"] / slim["p50"] if dense else None,
        speedup_low=low,
        speedup_high=high,
        flops_ratio=flops_ratio,
        dense_percentiles=dense,
        slim_percentiles=slim,
        runs=len(times["slim"]),
        clock=clock_kind(device, setting.threads),
        float_ms=plain.get("p50"),
        gain=plain["p50"] / slim["p50"] if plain else None,
        gain_low=gain_low,
        gain_high=gain_high,
    )


def _interval(
    times: Mapping[str, NDArray[np.float64]], name: str, seed: int
) -> tuple[float, float] | tuple[None, None]:
    if name not in times:
        return None, None
    return ratio_interval(np.stack([times["slim"], times[name]], axis=1), seed=seed)


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Return `{"p50": ..., "p90": ..., "p95": ..., "p99": ...}` in milliseconds."""
    values = np.percentile(seconds, PERCENTILES) * 1e3
    return {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}


def ratio_interval(times: NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `median(dense) / median(slim)`.

    Whole rounds are drawn, so that what slowed both networks down stays with both (Efron and
    Tibshirani 1993, chapter 13: the percentile interval).
    """
    generator = np.random.default_rng(seed)
    ratios = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        sample = times[generator.integers(0, len(times), len(times))]
        slim, dense = np.median(sample, axis=0)
        ratios[index] = dense / slim
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)


def _warm_up(runner: Runner, *, seconds: float) -> None:
    begin = time.perf_counter()
    for count in range(100):
        runner()
        if count >= 2 and time.perf_counter() - begin > seconds:
            return


def _timed(runner: Runner) -> float:
    clock = runner.clock if isinstance(runner, Run) else time.perf_counter
    begin = clock()
    runner()
    return clock() - begin


def _enough(rounds: int, seconds: float, runs: int, time_limit: float) -> bool:
    if rounds < _LEAST_ROUNDS:
        return False
    if rounds >= _MOST_ROUNDS or seconds >= time_limit:
        return True
    return rounds >= runs and seconds >= min(_SHORTEST_SECONDS, time_limit)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
