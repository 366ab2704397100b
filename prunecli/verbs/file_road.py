"""What every way to prune does with files: check the output, read, prune, report, write."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.atomic import check_output
from prunecli.checkpoint import save
from prunecli.data.decode import preparation
from prunecli.progress import Clock
from prunecli.verbs.opened import Opened, open_model
from prunecli.verbs.warnings import filled_masks, merged

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.checkpoint import Checkpoint
    from prunecli.report import PruneReport
    from prunecli.verbs.job import Job


@dataclass(frozen=True)
class Started:
    """A job whose output can be written and whose model is read, and the time that it takes."""

    job: Job
    opened: Opened
    clock: Clock


def check_target(job: Job, *others: Path | None) -> None:
    """Raise `InputError` for an output that cannot be written; `others` are read beside the model.

    A dry run writes nothing, and its output may be anything.
    """
    if not job.dry_run:
        inputs = [job.model, *(path for path in others if path is not None)]
        check_output(job.target, inputs=inputs, overwrite=job.overwrite)


def start(job: Job) -> Started:
    """Read the model of a job."""
    clock = Clock(job.progress)
    with clock.stage("load"):
        opened = open_model(job.model, job.load)
    return Started(job, opened, clock)


def reported(started: Started, report: PruneReport) -> PruneReport:
    """Return a report with all seconds so far, and with what the file gave rise to.

    That is all for a dry run.
    """
    return dataclasses.replace(
        report,
        seconds={**started.clock.seconds, **report.seconds},
        warnings=merged(started.opened.loaded.warnings, report.warnings),
        preparation=None
        if started.job.data is None
        else preparation(started.opened.checkpoint.input),
    )


def written(
    started: Started, report: PruneReport, checkpoint: Checkpoint, *, by: str, writes: bool = True
) -> PruneReport:
    """Write what was cut; `by` names what may have filled zeroed weights again.

    Of several processes that have computed the same, one `writes`.
    """
    target, clock = started.job.target, started.clock
    with clock.stage("save"):
        if writes:
            save(checkpoint, target)
    lost = filled_masks(started.opened.checkpoint, checkpoint, by=by)
    return dataclasses.replace(
        report,
        output=target,
        seconds={**report.seconds, "save": clock.seconds["save"]},
        warnings=(*report.warnings, *lost),
    )
