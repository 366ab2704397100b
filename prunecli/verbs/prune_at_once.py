"""`prune` on files, all at once: read, cut, prove, write."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from prunecli.artefacts.dense import dense_shapes
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import (
    check_output,
    cut_checkpoint,
    dense_architecture,
    example_input,
    read,
)
from prunecli.checkpoint import save
from prunecli.importance import uses_images
from prunecli.progress import Clock
from prunecli.pruning.road import prune_network
from prunecli.pruning.timed import check_latency, needs_table, prune_timed
from prunecli.verbs.images import check_labels, measuring_batches, scoring_batches
from prunecli.verbs.warnings import filled_masks

if TYPE_CHECKING:
    from prunecli.network.traced import Network
    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


def one_shot(job: Job) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `output` defaults to `<stem>.pruned.pt` in the current folder. Nothing is written for a dry run,
    nor when anything fails; but a latency table that was measured is kept where it is to be.
    """
    assert job.budget is not None
    check_latency(job.options.latency)
    target = job.target
    if not job.dry_run:
        check_output(target, inputs=[job.model], overwrite=job.overwrite)
    clock = Clock(job.progress)
    with clock.stage("load"):
        loaded = read(job.model, job.load)
        network = instantiate(loaded.checkpoint)
    checkpoint = loaded.checkpoint
    if job.data is not None:
        check_labels(network, checkpoint, job.data)
    cut = partial(
        prune_network,
        network,
        [example_input(checkpoint.input)],
        budget=job.budget,
        options=job.options,
        batches=scoring_batches(
            checkpoint,
            job.data,
            job.options,
            job.progress,
            wanted=uses_images(job.options, data=job.data is not None),
        ),
        measured_on=measuring_batches(checkpoint, job.data, job.options, job.progress),
        dry_run=job.dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=job.progress,
    )

    def prepare(traced: Network) -> Network:
        return dataclasses.replace(traced, dense_shapes=dense_shapes(checkpoint, job.load))

    if needs_table(job.budget, job.options):
        result = prune_timed(
            cut,
            network,
            input=checkpoint.input,
            budget=job.budget,
            options=job.options.latency,
            prepare=prepare,
            progress=job.progress,
        )
    else:
        result = cut(prepare=prepare)
    seconds = {**clock.seconds, **result.report.seconds}
    warnings = (*loaded.warnings, *result.report.warnings)
    report = dataclasses.replace(result.report, seconds=seconds, warnings=warnings)
    if job.dry_run or result.model is None:
        return report
    with clock.stage("save"):
        slim = cut_checkpoint(loaded, result, job.model, command=job.command)
        save(slim, target)
    seconds = {**seconds, "save": clock.seconds["save"]}
    return dataclasses.replace(
        report,
        output=target,
        seconds=seconds,
        warnings=(*report.warnings, *filled_masks(checkpoint, slim, by="repair")),
    )
