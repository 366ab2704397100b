"""`bench` on files: the times of models, in turns, each beside that of the first."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.exporting import check_devices
from prunecli.exporting.timing.energy import find_counters
from prunecli.exporting.timing.race import race
from prunecli.options import BenchOptions
from prunecli.progress import Progress, silent
from prunecli.report import BenchReport
from prunecli.report.steadiness import unsteady_timings
from prunecli.verbs.entrants import enter, racers
from prunecli.verbs.warnings import merged
from prunecli.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prunecli.options import LoadOptions
    from prunecli.report import TimingRow


def bench(
    models: Sequence[Path],
    *,
    options: BenchOptions | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Time models, artefacts and ONNX files, all as ONNX; what cannot be timed is an error.

    Memory is that of a process of its own for every model, energy that of the processor, where it
    may be read. Raises what reading any of the models raises, and `DeviceError`.
    """
    start = time.perf_counter()
    options = options or BenchOptions()
    check_devices(options.devices, runtimes=options.runtimes)
    entrants = enter(models, load, least=1, counted=False)
    counters = find_counters()
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        found = racers(entrants, Path(folder), missing, batches=options.batches)
        for name, reason in missing.items():
            raise InputError(
                reason,
                code="NOT_TIMED",
                where=name,
                hint="leave it out, give another --batch, or export it with a batch of any size",
            )
        rows = race(
            found,
            devices=options.devices,
            runtimes=options.runtimes,
            batches=options.batches,
            threads=options.threads,
            runs=options.runs,
            time_limit=options.seconds,
            seed=options.seed,
            counters=counters,
            memory=not options.no_memory,
            progress=progress,
        )
    notes = tuple(f"{one.name}: {text}" for one in entrants for text in one.warnings)
    return BenchReport(
        models={one.name: one.file for one in entrants},
        timings=rows,
        energy=bool(counters),
        precisions={one.name: one.precision for one in entrants if one.precision},
        seconds=round(time.perf_counter() - start, 3),
        warnings=merged(
            notes,
            tuple(unsteady_timings(rows)),
            () if options.no_memory else tuple(_without_memory(rows)),
        ),
    )


def _without_memory(rows: Iterable[TimingRow]) -> Iterator[str]:
    """Say of which models the peak memory was asked for and is not known."""
    for row in rows:
        names = [one.model for one in row.models if one.peak_bytes is None]
        if names:
            yield (
                f"the peak memory of {some(names)}, {row.where}, is not known: a process of its "
                "own did not run to its end"
            )
