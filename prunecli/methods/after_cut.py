"""Training after a cut at once, in the same command: what a cut loses is recovered at once too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.methods.training_options import training_of
from prunecli.preflight.pruning import no_training_images
from prunecli.report import AccuracyChange, CoursePoint, LearningReport
from prunecli.report.cuts import TRAIN
from prunecli.training.devices import make_accelerator, precision_of
from prunecli.training.finetune import finetune

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import DataSource
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.progress import Clock
    from prunecli.pruning.road import PruneResult
    from prunecli.report import PruneReport
    from prunecli.training.result import FinetuneResult


def training_after(options: PruneOptions, *, data: bool) -> FinetuneOptions | None:
    """Return the training that follows a cut at once; None for none.

    Raises `InputError` where there are no images to train on, or where it cannot be trained so. A
    limit on images that nobody gave is one on those that channels are scored on, not on these.
    """
    if options.training.epochs is None:
        return None
    if not data:
        raise no_training_images(options.training.epochs)
    followed = getattr(options, "followed", ())
    return training_of(options, **({"limit": None} if "limit" in followed else {}))


def train_cut(
    result: PruneResult,
    source: DataSource,
    training: FinetuneOptions,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    teacher: nn.Module | None = None,
    teacher_input: InputSpec | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    clock: Clock,
) -> PruneResult:
    """Return the cut with the weights of the best epoch; its proof was on those before training.

    Those before training are kept, and a warning says so, where no epoch is as good on held-out
    images: a short training can lose what a repair has gained.
    """
    assert result.model is not None
    with clock.stage("train"):
        tuned = finetune(
            result.model,
            source,
            input=input,
            options=training,
            teacher=teacher,
            teacher_input=teacher_input,
            run_dir=run_dir,
            resume=resume,
            progress=clock.progress,
        )
    report = dataclasses.replace(
        result.report,
        seconds={**result.report.seconds, **clock.seconds},
        learning=_told(result.report, tuned, training),
        warnings=(*result.report.warnings, *tuned.warnings),
    )
    return dataclasses.replace(result, model=tuned.model, report=report)


def planned_for(result: PruneResult, training: FinetuneOptions) -> PruneResult:
    """Return a dry run that says how the cut would be trained."""
    learning = LearningReport(
        method="one-shot",
        epochs=training.epochs,
        search_epochs=0.0,
        gates=0,
        precision=precision_of(make_accelerator(training.amp, training.device)),
    )
    return dataclasses.replace(result, report=dataclasses.replace(result.report, learning=learning))


def _told(report: PruneReport, tuned: FinetuneResult, training: FinetuneOptions) -> LearningReport:
    """Return what the training did, in the words of methods that learn what to prune."""
    kind = next(iter(report.plan.get("budget") or {"flops": {}}))
    kept = report.cost.kept.get(kind)
    widths = {group.name: group.after for group in report.groups}
    before, after = tuned.held_out_before, tuned.held_out_after
    return LearningReport(
        method="one-shot",
        epochs=training.epochs,
        search_epochs=0.0,
        gates=0,
        kept=kept,
        accuracy=AccuracyChange(before.accuracy, after.accuracy, before.split),
        loss=(before.loss, after.loss),
        images=before.count,
        best_epoch=tuned.best_epoch,
        course=tuple(
            CoursePoint(
                updates=tuned.steps_per_epoch * epoch.epoch,
                epoch=float(epoch.epoch),
                phase=TRAIN,
                budget=kept or 1.0,
                expected=kept or 1.0,
                cost=kept or 1.0,
                alive=sum(widths.values()),
                flips=0,
                widths=widths,
                train_loss=epoch.train_loss,
                loss=epoch.loss,
                accuracy=epoch.accuracy,
                learning_rate=epoch.learning_rate,
                images_per_second=epoch.images_per_second,
            )
            for epoch in tuned.epochs
        ),
        log=tuned.log,
        precision=tuned.precision,
        shares=tuned.epochs[-1].shares,
    )
