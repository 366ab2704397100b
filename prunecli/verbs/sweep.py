"""`prune --sweep` on files: read once, try every budget, write the table and the pictures."""

from __future__ import annotations

import csv
import dataclasses
import json
from io import StringIO
from typing import TYPE_CHECKING, Any

from prunecli.atomic import atomic_write, check_output
from prunecli.cost.kinds import COST_KINDS
from prunecli.data import check_classes, open_source
from prunecli.data.decode import preparation
from prunecli.lifetime.claims import claiming
from prunecli.options import LoadOptions, PruneOptions
from prunecli.preflight.outputs import PICTURES
from prunecli.preflight.pruning import check_table, no_sweep_images
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.sweep import sweep_network
from prunecli.report import finite, to_json
from prunecli.verbs.images import images_for
from prunecli.verbs.opened import open_model
from prunecli.verbs.showing import Show, check_show, shown
from prunecli.verbs.suggesting import next_command
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prunecli.budget import Sweep
    from prunecli.report import SweepReport, Trial


@claiming
def sweep(
    model: Path,
    *,
    sweep: Sweep,
    signals: Sequence[str],
    allocations: Sequence[str],
    options: PruneOptions | None = None,
    load: LoadOptions | None = None,
    data: str | None = None,
    table: Path | None = None,
    page: Path | None = None,
    plots: Path | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> SweepReport:
    """Cut the network in `model` to every budget, score the cuts on held-out images of `data`.

    No network is written: `table` (.csv or .json) gets the figures, `page` is an
    HTML file, `plots` a folder for pictures. `command` is what was typed: the report suggests what
    to type next.
    """
    options = options or PruneOptions()
    if data is None:
        raise no_sweep_images()
    if table is not None:
        _writer(table)
        check_output(table, inputs=[model], overwrite=overwrite)
    show = Show(page, plots, command)
    check_show(show, PICTURES["sweep"], inputs=[model, data, table], overwrite=overwrite)
    opened = open_model(model, load)
    network = opened.network(Clock(progress))
    check_classes(network.outputs, open_source(data), names=opened.checkpoint.classes)
    images = images_for(opened.checkpoint, data, options, progress, scored=True, measured=True)
    report = sweep_network(
        network,
        sweep,
        signals=signals,
        allocations=allocations,
        options=options,
        images=images,
        architecture=opened.architecture,
        progress=progress,
    )
    report = dataclasses.replace(
        report,
        table=table,
        preparation=preparation(opened.checkpoint.input),
        next_command=next_command(command, report, model=model, importance=options.importance),
        warnings=merged(opened.loaded.warnings, report.warnings),
    )
    if table is not None:
        text = _writer(table)(report)
        with atomic_write(table) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return shown(report, show)


def columns() -> list[str]:
    """Return what a table of a sweep holds of every trial.

    `asked` is the share of `kind` to keep, `kept_*` are the shares kept of all costs that need no
    table of measured times; a cell without a figure is empty.
    """
    kept = [f"kept_{entry.name}" for entry in COST_KINDS if entry.value.terms is not None]
    return [
        "kind", "asked", "signal", "allocation", "seed", *kept, "loss", "accuracy",
        "calibrated_loss", "repaired_loss", "repaired_accuracy", "images", "seconds", "problem",
    ]  # fmt: skip


def sweep_rows(report: SweepReport) -> list[dict[str, Any]]:
    """Return one row per trial, the dense network first."""
    return [_row(report.kind, trial) for trial in (report.dense, *report.trials)]


def _row(kind: str, trial: Trial) -> dict[str, Any]:
    score, repaired = trial.score, trial.repaired
    kept = {f"kept_{name}": round(share, 6) for name, share in trial.kept.items()}
    return {
        **dict.fromkeys(columns(), ""),
        "kind": kind,
        "asked": trial.budget.get(kind, {}).get("fraction", ""),
        "signal": trial.signal,
        "allocation": trial.allocation,
        "seed": trial.seed,
        **kept,
        "loss": "" if score is None else score.loss,
        "accuracy": "" if score is None else score.accuracy,
        "calibrated_loss": "" if score is None else score.calibrated,
        "repaired_loss": "" if repaired is None else repaired.loss,
        "repaired_accuracy": "" if repaired is None else repaired.accuracy,
        "images": "" if score is None else score.images,
        "seconds": trial.seconds,
        "problem": trial.problem,
    }


def _as_csv(report: SweepReport) -> str:
    file = StringIO(newline="")
    writer = csv.DictWriter(file, columns())
    writer.writeheader()
    writer.writerows(sweep_rows(report))
    return file.getvalue()


def _as_json(report: SweepReport) -> str:
    return json.dumps(finite(to_json(report)), indent=1, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[SweepReport], str]] = {".csv": _as_csv, ".json": _as_json}


def _writer(table: Path) -> Callable[[SweepReport], str]:
    check_table(table)
    return WRITERS[table.suffix.lower()]
