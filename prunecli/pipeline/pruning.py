"""`prune` on files, all at once: read, cut, prove, write."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts import check_output, cut_checkpoint, dense_architecture, example_input, read
from prunecli.checkpoint import save
from prunecli.dense_network import dense_shapes
from prunecli.importance import uses_images
from prunecli.instantiate import instantiate
from prunecli.network import Clock
from prunecli.network_data import check_labels, measuring_batches, scoring_batches
from prunecli.options import LoadOptions, PruneOptions
from prunecli.pipeline.latency import check_latency, needs_table, prune_timed, unused
from prunecli.progress import Progress, silent
from prunecli.pruning import prune_network

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.network import Network
    from prunecli.report import PruneReport


def one_shot(
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

    `output` defaults to `<stem>.pruned.pt` in the current folder. Nothing is written for a dry run,
    nor when anything fails; but a latency table that was measured is kept where it is to be.
    """
    options = options or PruneOptions()
    check_latency(options.latency)
    target = output or Path(f"{model.stem}.pruned.pt")
    if not dry_run:
        check_output(target, inputs=[model], overwrite=overwrite)
    clock = Clock(progress)
    with clock.stage("load"):
        loaded = read(model, load)
        network = instantiate(loaded.checkpoint)
    checkpoint = loaded.checkpoint
    if data is not None:
        check_labels(network, checkpoint, data)
    cut = partial(
        prune_network,
        network,
        [example_input(checkpoint.input)],
        budget=budget,
        options=options,
        batches=scoring_batches(
            checkpoint,
            data,
            options,
            progress,
            wanted=uses_images(options, data=data is not None),
        ),
        measured_on=measuring_batches(checkpoint, data, options, progress),
        dry_run=dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=progress,
    )

    def prepare(traced: Network) -> Network:
        return dataclasses.replace(traced, dense_shapes=dense_shapes(checkpoint, load))

    if needs_table(budget, options):
        result = prune_timed(
            cut,
            network,
            input=checkpoint.input,
            budget=budget,
            options=options.latency,
            prepare=prepare,
            progress=progress,
        )
    else:
        result = cut(prepare=prepare)
    seconds = {**clock.seconds, **result.report.seconds}
    warnings = (*loaded.warnings, *unused(budget, options), *result.report.warnings)
    report = dataclasses.replace(result.report, seconds=seconds, warnings=warnings)
    if dry_run or result.model is None:
        return report
    with clock.stage("save"):
        slim = cut_checkpoint(loaded, result, model, command=command)
        save(slim, target)
    seconds = {**seconds, "save": clock.seconds["save"]}
    lost = len(checkpoint.masks) - len(slim.masks)
    filled = (f"{lost} of {len(checkpoint.masks)} sparse weights are dense after the repair",)
    return dataclasses.replace(
        report,
        output=target,
        seconds=seconds,
        warnings=(*report.warnings, *(filled if lost else ())),
    )
