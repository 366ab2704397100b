"""`prune` on files, all at once: read, cut, prove, write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.artefacts.provenance import cut_checkpoint
from prunecli.importance import uses_images
from prunecli.pruning.timed import check_timed, prune_timed
from prunecli.verbs.file_road import check_target, reported, start, written
from prunecli.verbs.images import check_labels, images_for

if TYPE_CHECKING:
    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


def one_shot(job: Job) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `output` defaults to `<stem>.pruned.pt` in the current folder. Nothing is written for a dry run,
    nor when anything fails; but a latency table that was measured is kept where it is to be.
    """
    assert job.budget is not None
    options = job.options
    check_timed(job.budget, options, job.data)
    check_target(job)
    started = start(job)
    opened, clock = started.opened, started.clock
    if job.data is not None:
        check_labels(opened.model, opened.checkpoint, job.data)
    wanted = uses_images(options, data=job.data is not None)
    images = images_for(opened.checkpoint, job.data, options, job.progress, scored=wanted)
    result = prune_timed(
        opened.network(clock),
        input=opened.checkpoint.input,
        budget=job.budget,
        options=options,
        images=images,
        dry_run=job.dry_run,
        architecture=opened.architecture,
        clock=clock,
    )
    report = reported(started, result.report)
    if result.model is None:
        return report
    slim = cut_checkpoint(opened.loaded, result, job.model, command=job.command)
    return written(started, report, slim, by="repair")
