"""How `prune` comes to a cut, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from prunecli.lifetime.claims import claiming
from prunecli.methods.default_recipe import choose
from prunecli.methods.ways import trains
from prunecli.options import LoadOptions, PruneOptions
from prunecli.options.declare import check_effect
from prunecli.options.granularity import CHANNEL
from prunecli.options.shared import teacher_file
from prunecli.preflight.outputs import PICTURES
from prunecli.preflight.pruning import check_road
from prunecli.processes import joined
from prunecli.progress import Progress, silent
from prunecli.report import PruneReport
from prunecli.verbs.job import Job
from prunecli.verbs.prune_at_once import one_shot
from prunecli.verbs.prune_training import trained
from prunecli.verbs.prune_weights import sparsify
from prunecli.verbs.showing import Show, check_show, shown

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.budget import Budget

Road: TypeAlias = Callable[[Job], PruneReport]


@claiming
def prune(
    model: Path,
    *,
    output: Path | None = None,
    budget: Budget | None,
    options: PruneOptions | None = None,
    load: LoadOptions | None = None,
    data: str | None = None,
    dry_run: bool = False,
    page: Path | None = None,
    plots: Path | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `options.method` says how; at a granularity below channels single weights are zeroed, and a
    pattern such as 2:4 takes no budget. `output` defaults to `<stem>.pruned.pt` in the current
    folder. `page` is an HTML file, `plots` a folder for pictures; nothing else is written for a dry
    run, and nothing at all when anything fails.
    """
    options = options or PruneOptions()
    check_effect(options, latency=_has_latency(budget))
    chosen = choose(options, budget, images=data is not None)
    job = Job(
        model,
        output=output,
        budget=budget,
        chosen=chosen,
        load=load,
        data=data,
        dry_run=dry_run,
        overwrite=overwrite,
        command=command,
        progress=progress,
    )
    road = road_of(job.options, budget)
    teacher = teacher_file(options.training.teacher)
    show = Show(page, plots, command)
    check_show(show, PICTURES["prune"], inputs=[model, data, teacher], overwrite=overwrite)
    report = road(job)
    report = dataclasses.replace(report, choice=report.choice or chosen.choice)
    return shown(report, show) if joined().is_main else report


def _has_latency(budget: Budget | None) -> bool:
    return budget is not None and any(limit.kind == "latency" for limit in budget.limits)


def road_of(options: PruneOptions, budget: Budget | None) -> Road:
    """Return the way to a cut; raise `InputError` for what that way cannot do, before any work."""
    check_road(options, budget)
    if options.granularity != CHANNEL:
        return sparsify
    return trained if trains(options.method) else one_shot
