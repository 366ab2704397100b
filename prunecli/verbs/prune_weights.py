"""`prune --granularity weight` on files: read, zero weights, prove the file itself, write."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.artefacts.history import cut_step
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import (
    check_output,
    dense_architecture,
    example_input,
    provenance,
    read,
    state_of,
)
from prunecli.artefacts.sparse import save_proven
from prunecli.errors import InputError
from prunecli.progress import Clock
from prunecli.sparse.road import sparsify_network
from prunecli.sparse.saliency import weight_signal
from prunecli.verbs.images import check_labels, measuring_batches, scoring_batches

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


def sparsify(job: Job) -> PruneReport:
    """Zero weights of the network in `model`, prove what was written, and give it its name.

    The file holds the kept weights and their places alone. Nothing is written for a dry run, nor
    when anything fails.
    """
    target = job.target
    if not job.dry_run:
        check_output(target, inputs=[job.model], overwrite=job.overwrite)
    clock = Clock(job.progress)
    sparsity = weight_sparsity(job.budget)
    signal = weight_signal(job.options.signal)
    with clock.stage("load"):
        loaded = read(job.model, job.load)
        network = instantiate(loaded.checkpoint)
    checkpoint = loaded.checkpoint
    if job.data is not None:
        check_labels(network, checkpoint, job.data)
    needed = signal is not None and signal.needs_data
    result = sparsify_network(
        network,
        [example_input(checkpoint.input)],
        sparsity=sparsity,
        options=job.options,
        masks=checkpoint.masks,
        batches=scoring_batches(checkpoint, job.data, job.options, job.progress, wanted=needed),
        measured_on=measuring_batches(checkpoint, job.data, job.options, job.progress),
        dry_run=job.dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=job.progress,
    )
    report = dataclasses.replace(
        result.report,
        seconds={**clock.seconds, **result.report.seconds},
        warnings=(*loaded.warnings, *result.report.warnings),
    )
    if job.dry_run or result.model is None:
        return report
    assert report.sparsity is not None
    facts = {"sparsity": {**report.plan, "weights": report.sparsity.weights}}
    sparse = dataclasses.replace(
        checkpoint,
        tensors=state_of(result.model),
        masks=dict(result.masks),
        metadata=provenance(
            loaded,
            job.model,
            command=job.command,
            seed=job.options.seed,
            facts=facts,
            step=cut_step(report, command=job.command, source=job.model.name),
        ),
    )
    with clock.stage("save"):
        dense = None if job.options.repair else checkpoint
        verified = save_proven(sparse, target, dense=dense)
    sizes = dataclasses.replace(
        report.sparsity, bytes_before=job.model.stat().st_size, bytes_after=target.stat().st_size
    )
    return dataclasses.replace(
        report,
        output=target,
        verified=verified,
        sparsity=sizes,
        seconds={**report.seconds, "save": clock.seconds["save"]},
    )


def weight_sparsity(budget: Budget | None) -> float | None:
    """Return the share of weights to zero; raise `InputError` for a budget of something else."""
    if budget is None:
        return None
    for limit in budget.limits:
        if limit.kind != "channels" or limit.fraction is None:
            raise InputError(
                f"--{limit.kind} is no budget for single weights: the network keeps its shape",
                code="BAD_BUDGET",
                hint="give the share of the weights to zero, such as --sparsity 0.9",
            )
    fraction = budget.limits[0].fraction
    assert fraction is not None
    return 1.0 - fraction
