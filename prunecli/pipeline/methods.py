"""How `prune` comes to a cut, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from prunecli.options import LoadOptions, PruneOptions
from prunecli.pipeline.iterating import iterative
from prunecli.pipeline.pruning import one_shot
from prunecli.progress import Progress, silent
from prunecli.registry import Registry
from prunecli.report import PruneReport

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


def prune(
    model: Path,
    *,
    output: Path | None = None,
    budget: Budget,
    options: PruneOptions | None = None,
    load: LoadOptions | None = None,
    data: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `options.method` says how. `output` defaults to `<stem>.pruned.pt` in the current folder.
    Nothing is written for a dry run, nor when anything fails.
    """
    options = options or PruneOptions()
    return METHODS.get(options.method)(
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
