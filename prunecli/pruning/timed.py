"""Budgets in milliseconds: the table before a cut, and what the cut network really takes."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.cost.latency import bind
from prunecli.evaluation.batches import NO_IMAGES, Images
from prunecli.preflight.pruning import check_latency, needs_table
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.road import PruneResult, check_choices, prune_network
from prunecli.report import BenchmarkRow, LatencyReport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.budget import Budget
    from prunecli.network.traced import Network
    from prunecli.options import LatencyOptions, PruneOptions

RUNS, SECONDS = 50, 10.0
"""Rounds in which the cut network is timed beside the dense one, and how long at most."""

TOLERANCE = 0.05
"""How far above the budget a real latency may be, as a share of it, before the budget is missed.

Predictions are often off by some percent (`tests/benchmarks/latency.csv`): a warning says so.
"""


def prune_timed(
    network: Network,
    *,
    input: InputSpec | None,  # noqa: A002 - the name that the rest of the library uses
    budget: Budget,
    options: PruneOptions,
    images: Images = NO_IMAGES,
    dry_run: bool = False,
    architecture: str = "",
    clock: Clock | None = None,
) -> PruneResult:
    """Do what `prune_network` does, and predict and measure milliseconds where these matter.

    `input` is only needed then. Raises what `prune_network` raises, and `InputError` for a table
    that is none, or is that of another network or setting.
    """
    check_timed(budget, options, images.scored_on)
    clock = clock or Clock(silent)
    bound, notes = bound_where_needed(network, input, budget, options, clock)
    result = prune_network(
        bound,
        budget=budget,
        options=options,
        images=images,
        dry_run=dry_run,
        architecture=architecture,
        clock=clock,
    )
    return with_measured(
        result, network.model, input, budget=budget, options=options, clock=clock, notes=notes
    )


def bound_where_needed(
    network: Network,
    input: InputSpec | None,  # noqa: A002
    budget: Budget,
    options: PruneOptions,
    clock: Clock,
) -> tuple[Network, list[str]]:
    """Return the network, with predicted milliseconds where these matter, and notes on the table.

    `input` is only needed then.
    """
    if not needs_table(budget, options):
        return network, []
    assert input is not None
    with clock.stage("latency table"):
        return with_latency(network, input=input, options=options.latency, progress=clock.progress)


def with_latency(
    network: Network,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    options: LatencyOptions,
    progress: Progress = silent,
) -> tuple[Network, list[str]]:
    """Return the network with predicted milliseconds, and what there is to know about the table.

    Reads the table that `options` names if it exists, else measures one and writes it there. Raises
    `InputError` for a table that is none, or is that of another network or setting.
    """
    from prunecli.exporting.timing import latency_table
    from prunecli.exporting.timing.clocks import watched

    machine = latency_table.this_machine(threads=options.threads, batch=options.batch)
    path, notes = options.table, list[str]()
    if path is not None and path.exists():
        table = latency_table.read_table(path)
        notes = latency_table.check_table(table, network, machine, path)
    else:
        with watched() as watch:
            table = latency_table.measure_table(
                network, input=input, machine=machine, progress=progress
            )
        notes.extend(watch.warnings(threads=machine.threads))
        if path is not None:
            latency_table.write_table(table, path)
    latency = bind(table, network.trace, network.coupling)
    return dataclasses.replace(network, latency=latency), notes


def with_measured(
    result: PruneResult,
    dense: nn.Module,
    input: InputSpec | None,  # noqa: A002
    *,
    budget: Budget,
    options: PruneOptions,
    clock: Clock,
    notes: Iterable[str] = (),
) -> PruneResult:
    """Return a cut with its latency in the report: as predicted, and measured beside `dense`.

    Where milliseconds do not matter it is returned as it is.
    """
    if not needs_table(budget, options):
        return result
    assert input is not None
    from prunecli.exporting.timing.clocks import watched

    found = _predicted(result, options.latency)
    if result.model is not None:
        with clock.stage("measure"), watched() as watch:
            row = _measured(dense, result.model, input, found, clock.progress)
            found = judged(found, row, budget)
        notes = (*notes, *watch.warnings(threads=found.threads))
    report = dataclasses.replace(
        result.report,
        latency=found,
        seconds=dict(clock.seconds),
        warnings=(*notes, *result.report.warnings, *_missed(found)),
    )
    return dataclasses.replace(result, report=report)


def check_timed(budget: Budget, options: PruneOptions, images: object) -> None:
    """Raise `InputError` for what a cut cannot do, milliseconds included, before any work."""
    check_latency(options.latency)
    check_choices(budget, options, images)


def _predicted(result: PruneResult, options: LatencyOptions) -> LatencyReport:
    from prunecli.exporting import physical_cores

    before, after = result.report.cost.before.latency, result.report.cost.after.latency
    assert before is not None
    assert after is not None
    return LatencyReport(
        batch=options.batch,
        threads=options.threads or physical_cores(),
        dense_ms=before,
        slim_ms=after,
        kept=after / before,
        table=options.table,
    )


def judged(found: LatencyReport, row: BenchmarkRow, budget: Budget) -> LatencyReport:
    """Return the report with what was measured, and whether the budget was kept in reality.

    It was not where all of the 95 % interval is above it by more than `TOLERANCE`.
    """
    assert row.dense_ms
    assert row.speedup_low
    assert row.speedup_high
    kept = row.slim_ms / row.dense_ms
    interval = (1 / row.speedup_high, 1 / row.speedup_low)
    limit = next((limit for limit in budget.limits if limit.kind == "latency"), None)
    asked = None if limit is None else limit.ceiling(row.dense_ms) / row.dense_ms
    return dataclasses.replace(
        found,
        measured=row,
        measured_kept=kept,
        measured_interval=interval,
        error=found.kept / kept - 1,
        asked=asked,
        met=None if asked is None else interval[0] <= asked * (1 + TOLERANCE),
    )


def _missed(found: LatencyReport) -> list[str]:
    """Return the warning about a budget that was kept in the prediction alone."""
    kept, asked, interval = found.measured_kept, found.asked, found.measured_interval
    if kept is None or asked is None or interval is None or kept <= asked:
        return []
    text = (
        f"measured, the pruned model takes {kept:.3f} of the dense one's time (95 % "
        f"{interval[0]:.3f} to {interval[1]:.3f}); {asked:.3f} was asked for, and "
        f"{found.kept:.3f} was predicted"
    )
    return [text]


def _measured(
    dense: nn.Module,
    slim: nn.Module,
    spec: InputSpec,
    found: LatencyReport,
    progress: Progress,
) -> BenchmarkRow:
    from prunecli import exporting

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("slim.onnx", "dense.onnx")]
        for model, path in zip((slim, dense), files, strict=True):
            exporting.to_onnx(model, path, input=spec)
        (row,) = exporting.benchmark(
            *files,
            input=spec,
            batches=(found.batch,),
            threads=found.threads,
            runs=RUNS,
            time_limit=SECONDS,
            progress=progress,
        )
    return row
