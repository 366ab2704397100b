"""`prune --method iterative` on files: read, shrink while training, prove, write."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.artefacts.provenance import cut_checkpoint, example_input
from prunecli.data import check_classes, open_source
from prunecli.errors import InputError
from prunecli.verbs.file_road import check_target, reported, start, written
from prunecli.verbs.images import class_count
from prunecli.verbs.opened import open_model
from prunecli.verbs.unfinished import check_no_run

if TYPE_CHECKING:
    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


def iterative(job: Job) -> PruneReport:
    """Cut the network in `model` a few channels at a time, training it between.

    The log, and the state that `options.iterative.resume` goes on from, lie in
    `<output stem>.run/` beside the output.
    """
    from prunecli.methods.iterative import iterative_prune
    from prunecli.training import is_main_process

    assert job.budget is not None
    own, run_dir = job.options.iterative, job.target.with_suffix(".run")
    check_target(job, own.teacher)
    if not (job.dry_run or own.resume or job.overwrite):
        check_no_run(run_dir)
    if job.data is None:
        raise InputError(
            "an iterative cut trains the network, and no images were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add --data DIR",
        )
    started = start(job)
    opened, source = started.opened, open_source(job.data)
    taught = None if own.teacher is None else open_model(own.teacher, job.load)
    checkpoint = opened.checkpoint
    check_classes(class_count(opened.model, checkpoint.input), source, names=checkpoint.classes)
    result = iterative_prune(
        opened.model,
        [example_input(checkpoint.input)],
        source,
        input=checkpoint.input,
        budget=job.budget,
        options=job.options,
        teacher=None if taught is None else taught.model,
        teacher_input=None if taught is None else taught.checkpoint.input,
        run_dir=run_dir,
        dry_run=job.dry_run,
        architecture=opened.architecture,
        progress=job.progress,
    )
    report = reported(started, result.report)
    if result.model is None:
        return report
    cut = cut_checkpoint(opened.loaded, result, job.model, command=job.command)
    trained = dataclasses.replace(cut, classes=source.classes)
    return written(started, report, trained, by="training", writes=is_main_process())
