"""How `prune` comes to a cut, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from prunecli.errors import InputError
from prunecli.granularity import CHANNEL
from prunecli.options import LoadOptions, PruneOptions
from prunecli.pipeline.iterating import iterative
from prunecli.pipeline.latency import needs_table
from prunecli.pipeline.pruning import one_shot
from prunecli.pipeline.sparsifying import sparsify
from prunecli.progress import Progress, silent
from prunecli.registry import Registry
from prunecli.report import PruneReport
from prunecli.search import AUTO
from prunecli.signals.components import LATENCY_REMOVED

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.budget import Budget

Road: TypeAlias = Callable[..., PruneReport]
"""What has the arguments of `prune`."""

METHODS: Registry[Road] = Registry("pruning method")

METHODS.add("one-shot", one_shot, summary="Choose once, cut once (default).")
METHODS.add(
    "iterative",
    iterative,
    summary="A few channels at a time, with updates between during which the signal is taken.",
    source="Molchanov et al. 2017, arXiv 1611.06440; Theis et al. 2018, arXiv 1801.05787",
)


def needs_latencies(budget: Budget | None, options: PruneOptions) -> bool:
    """Tell whether a budget, a table or a signal asks for milliseconds."""
    limited = budget is not None and needs_table(budget, options)
    return limited or options.signal.endswith(f"/{LATENCY_REMOVED}")


def prune(
    model: Path,
    *,
    output: Path | None = None,
    budget: Budget | None,
    options: PruneOptions | None = None,
    load: LoadOptions | None = None,
    data: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `options.method` says how; at a granularity below channels single weights are zeroed, and a
    pattern such as 2:4 takes no budget. `output` defaults to `<stem>.pruned.pt` in the current
    folder. Nothing is written for a dry run, nor when anything fails.
    """
    options = options or PruneOptions()
    road = METHODS.get(options.method)
    if options.granularity != CHANNEL:
        if options.method != PruneOptions.method:
            raise InputError(
                f"the method {options.method} removes channels, no single weights",
                code="BAD_OPTION",
                hint="zero weights along the way with prunecli finetune --sparsity 0.9",
            )
        road = sparsify
    elif budget is None:
        raise InputError("no budget was given", code="NO_BUDGET", hint="give --flops 0.5")
    if road is not one_shot and options.dead:
        raise InputError(
            "dead channels are removed by one-shot cuts",
            code="BAD_OPTION",
            hint="remove them first with prunecli prune --dead, then go on with the result",
        )
    if road is not one_shot and options.signal == AUTO:
        raise InputError(
            "the signal auto compares one-shot cuts of channels",
            code="BAD_OPTION",
            hint="name a signal, or leave --method and --granularity out",
        )
    if road is not one_shot and needs_latencies(budget, options):
        raise InputError(
            "milliseconds are counted by one-shot cuts of channels alone",
            code="BAD_OPTION",
            hint="give --flops instead of --latency, or leave --method and --granularity out",
        )
    return road(
        model,
        output=output,
        budget=budget,
        options=options,
        load=load,
        data=data,
        dry_run=dry_run,
        overwrite=overwrite,
        command=command,
        progress=progress,
    )
