"""`prune` by a method that trains, on files: read, train while pruning, prove, write."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.artefacts.provenance import cut_checkpoint
from prunecli.data import check_classes, open_source
from prunecli.options.methods import ITERATIVE
from prunecli.options.shared import teacher_file
from prunecli.preflight.pruning import check_training_images
from prunecli.processes import join, joined
from prunecli.verbs.file_road import check_target, reported, start, written
from prunecli.verbs.images import class_count
from prunecli.verbs.teaching import NOBODY, Taught, itself, named_teacher
from prunecli.verbs.unfinished import check_no_run

if TYPE_CHECKING:
    from prunecli.data import DataSource
    from prunecli.report import PruneReport
    from prunecli.verbs.file_road import Started
    from prunecli.verbs.job import Job


def learning_from(started: Started) -> tuple[DataSource, Taught]:
    """Return what a job trains on, and its teacher; raise `InputError` for images of others."""
    job, opened = started.job, started.opened
    assert job.data is not None
    source, teacher = open_source(job.data), job.options.training.teacher
    checkpoint = opened.checkpoint
    classes = class_count(opened.model, checkpoint.input)
    check_classes(classes, source, names=checkpoint.classes)
    if teacher is not None:
        return source, named_teacher(teacher, job.load, classes=classes)
    return source, NOBODY if job.options.method == ITERATIVE else itself(opened, job.model)


def with_teacher(report: PruneReport, taught: Taught) -> PruneReport:
    """Return a report that says who taught."""
    if report.learning is None:
        return report
    learning = dataclasses.replace(report.learning, taught_by=taught.report)
    return dataclasses.replace(report, learning=learning)


def trained(job: Job) -> PruneReport:
    """Prune the network in `model` by a method that trains it meanwhile.

    The log, and the state that `options.training.resume` goes on from, lie in
    `<output stem>.run/` beside the output.
    """
    from prunecli.methods.road import check_trained, train_and_prune
    from prunecli.methods.ways import way_of

    assert job.budget is not None
    join()
    own, run_dir = job.options.training, job.target.with_suffix(".run")
    check_target(job, teacher_file(own.teacher))
    if not (job.dry_run or own.resume or job.overwrite):
        check_no_run(run_dir)
    check_training_images(job.options, images=job.data is not None)
    assert job.data is not None
    way = way_of(job.options.method)
    check_trained(way, job.options)
    started = start(job)
    opened = started.opened
    source, taught = learning_from(started)
    checkpoint = opened.checkpoint
    result = train_and_prune(
        way,
        opened.network(started.clock),
        source,
        input=checkpoint.input,
        budget=job.budget,
        options=job.options,
        teacher=taught.model,
        teacher_input=taught.input,
        run_dir=run_dir,
        dry_run=job.dry_run,
        architecture=opened.architecture,
        clock=started.clock,
    )
    report = with_teacher(reported(started, result.report), taught)
    if result.model is None:
        return report
    cut = cut_checkpoint(opened.loaded, result, job.model, target=job.target, command=job.command)
    trained = dataclasses.replace(cut, classes=source.classes)
    return written(started, report, trained, by="training", writes=joined().is_main)
