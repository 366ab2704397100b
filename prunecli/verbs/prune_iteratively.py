"""`prune --method iterative` on files: read, shrink while training, prove, write."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import (
    check_output,
    cut_checkpoint,
    dense_architecture,
    example_input,
    read,
)
from prunecli.checkpoint import save
from prunecli.data import check_classes, open_source
from prunecli.errors import InputError
from prunecli.progress import Clock
from prunecli.verbs.images import class_count
from prunecli.verbs.warnings import filled_masks, merged

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


def iterative(job: Job) -> PruneReport:
    """Cut the network in `model` a few channels at a time, training it between.

    The log, and the state that `options.iterative.resume` goes on from, lie in
    `<output stem>.run/` beside the output.
    """
    from prunecli.methods.iterative import iterative_prune

    assert job.budget is not None
    own, target = job.options.iterative, job.target
    run_dir = target.with_suffix(".run")
    if not job.dry_run:
        given = [job.model, *([own.teacher] if own.teacher else [])]
        check_output(target, inputs=given, overwrite=job.overwrite)
        _check_no_run(run_dir, fine=own.resume or job.overwrite)
    if job.data is None:
        raise InputError(
            "an iterative cut trains the network, and no images were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add --data DIR",
        )
    clock = Clock(job.progress)
    with clock.stage("load"):
        loaded = read(job.model, job.load)
        network = instantiate(loaded.checkpoint)
        taught = None if own.teacher is None else read(own.teacher, job.load)
    checkpoint, source = loaded.checkpoint, open_source(job.data)
    check_classes(class_count(network, checkpoint.input), source, names=checkpoint.classes)
    result = iterative_prune(
        network,
        [example_input(checkpoint.input)],
        source,
        input=checkpoint.input,
        budget=job.budget,
        options=job.options,
        teacher=None if taught is None else instantiate(taught.checkpoint),
        teacher_input=None if taught is None else taught.checkpoint.input,
        run_dir=run_dir,
        dry_run=job.dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=job.progress,
    )
    report = dataclasses.replace(
        result.report,
        seconds={**clock.seconds, **result.report.seconds},
        warnings=merged(loaded.warnings, result.report.warnings),
    )
    if result.model is None:
        return report
    with clock.stage("save"):
        cut = cut_checkpoint(loaded, result, job.model, command=job.command)
        save(dataclasses.replace(cut, classes=source.classes), target)
    lost = filled_masks(checkpoint, cut, by="training")
    return dataclasses.replace(report, output=target, warnings=(*report.warnings, *lost))


def _check_no_run(run_dir: Path, *, fine: bool) -> None:
    from prunecli.training import has_state

    if not fine and has_state(run_dir):
        raise InputError(
            "a run that was stopped lies in the folder of this one",
            code="UNFINISHED_RUN",
            where=str(run_dir),
            hint="go on with it (--resume), or start from the beginning (--overwrite)",
        )
