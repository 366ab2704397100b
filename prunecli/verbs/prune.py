"""How `prune` comes to a cut, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from prunecli.allocation import BY_IMPORTANCE
from prunecli.errors import InputError
from prunecli.lifetime.claims import claiming
from prunecli.methods.default_recipe import choose
from prunecli.methods.ways import trains
from prunecli.options import LoadOptions, PruneOptions
from prunecli.options.declare import check_effect
from prunecli.options.shared import teacher_file
from prunecli.pictures.of_reports import NAMES
from prunecli.processes import joined
from prunecli.progress import Progress, silent
from prunecli.pruning.search import AUTO
from prunecli.pruning.timed import needs_table
from prunecli.report import PruneReport
from prunecli.signals.components import LATENCY_REMOVED
from prunecli.sparse.granularity import CHANNEL
from prunecli.sparse.road import check_weights_at_once
from prunecli.verbs.job import Job
from prunecli.verbs.prune_at_once import one_shot
from prunecli.verbs.prune_training import trained
from prunecli.verbs.prune_weights import sparsify
from prunecli.verbs.showing import Show, check_show, shown

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.budget import Budget

Road: TypeAlias = Callable[[Job], PruneReport]


def needs_latencies(budget: Budget | None, options: PruneOptions) -> bool:
    """Tell whether a budget, a table or a signal asks for milliseconds."""
    limited = budget is not None and needs_table(budget, options)
    return limited or options.signal.endswith(f"/{LATENCY_REMOVED}")


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
    check_show(show, NAMES["prune"], inputs=[model, data, teacher], overwrite=overwrite)
    report = road(job)
    report = dataclasses.replace(report, choice=report.choice or chosen.choice)
    return shown(report, show) if joined().is_main else report


def _has_latency(budget: Budget | None) -> bool:
    return budget is not None and any(limit.kind == "latency" for limit in budget.limits)


def road_of(options: PruneOptions, budget: Budget | None) -> Road:
    """Return the way to a cut; raise `InputError` for what that way cannot do, before any work."""
    road = trained if trains(options.method) else one_shot
    if options.granularity != CHANNEL:
        check_weights_at_once(options)
        road = sparsify
    elif budget is None:
        raise InputError("no budget was given", code="NO_BUDGET", hint="give --flops 0.5")
    if road is one_shot:
        return road
    for asked, problem, hint in (
        (
            options.dead,
            "dead channels are removed by one-shot cuts",
            "remove them first with prunecli prune --dead, then go on with the result",
        ),
        (
            road is trained and options.allocation in BY_IMPORTANCE,
            f"the allocation {options.allocation} measures layers once, before a one-shot cut",
            "use --allocation greedy, or leave --method out",
        ),
        (
            options.signal == AUTO,
            "the signal auto compares one-shot cuts of channels",
            "name a signal, or leave --method and --granularity out",
        ),
        (
            road is trained and options.signal.endswith(f"/{LATENCY_REMOVED}"),
            f"the signal {options.signal} counts milliseconds, which is done once, before a cut",
            "name another signal; --latency itself is a budget of every method",
        ),
        (
            road is sparsify and needs_latencies(budget, options),
            "milliseconds are counted by cuts of channels alone",
            "leave --granularity out",
        ),
    ):
        if asked:
            raise InputError(problem, code="BAD_OPTION", hint=hint)
    return road
