"""`prune` on files, all at once: read, cut, prove, write."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import cut_checkpoint
from prunecli.importance import uses_images
from prunecli.methods.default_recipe import prune_chosen
from prunecli.options.shared import teacher_file
from prunecli.processes import done_by_main, joined
from prunecli.progress import Clock, silent
from prunecli.pruning.road import PruneResult
from prunecli.pruning.scoring import help_score
from prunecli.pruning.timed import check_timed
from prunecli.verbs.file_road import check_target, reported, start, written
from prunecli.verbs.images import check_labels, images_for
from prunecli.verbs.prune_training import learning_from, with_teacher
from prunecli.verbs.unfinished import check_no_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.checkpoint import Checkpoint
    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network
    from prunecli.options import FinetuneOptions
    from prunecli.plan import PruningPlan
    from prunecli.report import PruneReport
    from prunecli.verbs.file_road import Started
    from prunecli.verbs.job import Job


def one_shot(job: Job) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `output` defaults to `<stem>.pruned.pt` in the current folder. Nothing is written for a dry run,
    nor when anything fails; but a latency table that was measured is kept where it is to be.
    """
    assert job.budget is not None
    options = job.options
    check_timed(job.budget, options, job.data)
    check_target(job, teacher_file(options.training.teacher))
    training, run_dir = _training(job), job.target.with_suffix(".run")
    started = start(job)
    learning = None if training is None else learning_from(started)
    opened, clock = started.opened, started.clock
    if training is not None:
        from prunecli.training import check_frozen

        check_frozen(opened.model, training.freeze)
    if job.data is not None:
        check_labels(opened.model, opened.checkpoint, job.data)
    result = _cut_by_main(started)
    if training is not None and result.model is None:
        from prunecli.methods.after_cut import planned_for

        result = planned_for(result, training)
    if training is not None and learning is not None and result.model is not None:
        from prunecli.methods.after_cut import train_cut

        source, taught = learning
        result = train_cut(
            result,
            source,
            training,
            input=opened.checkpoint.input,
            teacher=taught.model,
            teacher_input=taught.input,
            run_dir=run_dir,
            resume=options.training.resume,
            clock=clock,
        )
    report = reported(started, result.report)
    report = report if learning is None else with_teacher(report, learning[1])
    if result.model is None:
        return report
    slim = cut_checkpoint(opened.loaded, result, job.model, target=job.target, command=job.command)
    by, writes = "repair" if training is None else "training", joined().is_main
    return written(started, report, slim, by=by, writes=writes)


def _cut_by_main(started: Started) -> PruneResult:
    """Return the cut, before any training; the first one of several processes makes it for all."""
    processes, job = joined(), started.job
    if processes.count == 1:
        return _cut(started)
    made: list[PruneResult] = []

    def work() -> tuple[Checkpoint, PruningPlan, PruneReport]:
        made.append(_cut(started))
        loaded, (result,) = started.opened.loaded, made
        slim = cut_checkpoint(loaded, result, job.model, target=job.target, command=job.command)
        return slim, result.plan, result.report

    slim, plan, report = done_by_main(processes, work, _help(started))
    return made[0] if made else PruneResult(instantiate(slim), plan, report, slim.graph)


def _help(started: Started) -> Callable[[Any], Callable[[], Any] | None]:
    """Return what gives the part of this process in a pass over the images of a job."""
    job, opened = started.job, started.opened

    @functools.cache
    def ready() -> tuple[Network, BatchSource | None]:
        images = images_for(opened.checkpoint, job.data, job.options, silent, scored=True)
        return opened.network(Clock(silent)), images.scored_on

    def help_with(request: Any) -> Callable[[], Any] | None:
        network, batches = ready()
        return help_score(network, job.chosen.options, batches, request)

    return help_with


def _cut(started: Started) -> PruneResult:
    """Cut the network of a job, and prove it."""
    job, opened = started.job, started.opened
    assert job.budget is not None
    wanted = uses_images(job.options, data=job.data is not None)
    return prune_chosen(
        opened.network(started.clock),
        job.chosen,
        input=opened.checkpoint.input,
        budget=job.budget,
        images=images_for(opened.checkpoint, job.data, job.options, job.progress, scored=wanted),
        dry_run=job.dry_run,
        architecture=opened.architecture,
        clock=started.clock,
    )


def _training(job: Job) -> FinetuneOptions | None:
    """Return the training that follows the cut, checked before any work; None for none."""
    if job.options.training.epochs is None:
        return None
    from prunecli.methods.after_cut import training_after

    own = job.options.training
    if not (job.dry_run or own.resume or job.overwrite):
        check_no_run(job.target.with_suffix(".run"))
    return training_after(job.options, data=job.data is not None)
