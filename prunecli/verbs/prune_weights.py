"""`prune --granularity weight` on files: read, zero weights, prove the file itself, write."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.artefacts.history import cut_step
from prunecli.artefacts.provenance import provenance, state_of
from prunecli.artefacts.sparse import save_proven
from prunecli.preflight.pruning import weight_sparsity
from prunecli.sparse.batch_norm_repair import check_norms_repair
from prunecli.sparse.road import check_weight_options, sparsify_network
from prunecli.sparse.saliency import weight_signal
from prunecli.verbs.file_road import check_target, reported, start
from prunecli.verbs.images import check_labels, images_for

if TYPE_CHECKING:
    from prunecli.report import PruneReport
    from prunecli.sparse.road import SparseResult
    from prunecli.verbs.file_road import Started
    from prunecli.verbs.job import Job


def sparsify(job: Job) -> PruneReport:
    """Zero weights of the network in `model`, prove what was written, and give it its name.

    The file holds the kept weights and their places alone. Nothing is written for a dry run, nor
    when anything fails.
    """
    options, sparsity = job.options, weight_sparsity(job.budget)
    check_target(job)
    check_weight_options(options, sparsity)
    check_norms_repair(options.repair, job.data)
    started = start(job)
    opened, checkpoint, clock = started.opened, started.opened.checkpoint, started.clock
    if job.data is not None:
        check_labels(opened.model, checkpoint, job.data)
    signal = weight_signal(options.signal)
    wanted = signal is not None and signal.needs_data
    images = images_for(checkpoint, job.data, options, job.progress, scored=wanted)
    result = sparsify_network(
        opened.network(clock),
        sparsity=sparsity,
        options=options,
        masks=checkpoint.masks,
        images=images,
        dry_run=job.dry_run,
        architecture=opened.architecture,
        clock=clock,
    )
    report = reported(started, result.report)
    if result.model is None:
        return report
    return _written(started, result, report)


def _written(started: Started, result: SparseResult, report: PruneReport) -> PruneReport:
    """Write the zeroed network, and prove that the file gives it back."""
    job, checkpoint, clock = started.job, started.opened.checkpoint, started.clock
    assert result.model is not None
    assert report.sparsity is not None
    sparse = dataclasses.replace(
        checkpoint,
        tensors=state_of(result.model),
        masks=dict(result.masks),
        metadata=provenance(
            started.opened.loaded,
            job.model,
            target=job.target,
            command=job.command,
            seed=job.options.seed,
            facts={"sparsity": {**report.plan, "weights": report.sparsity.weights}},
            step=cut_step(report, command=job.command, source=job.model.name),
        ),
    )
    with clock.stage("save"):
        dense = None if job.options.repair else checkpoint
        verified = save_proven(sparse, job.target, dense=dense)
    sizes = dataclasses.replace(
        report.sparsity,
        bytes_before=job.model.stat().st_size,
        bytes_after=job.target.stat().st_size,
    )
    return dataclasses.replace(
        report,
        output=job.target,
        verified=verified,
        sparsity=sizes,
        seconds={**report.seconds, "save": clock.seconds["save"]},
    )
