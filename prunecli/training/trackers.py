"""Where else a run is logged while it trains: TensorBoard, wandb and MLflow, by accelerate."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError
from prunecli.preflight.training import TRACKERS
from prunecli.report import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from prunecli.report import EpochReport

PROJECT = "prunecli"
"""What runs stand under, where a tracker has projects."""


def nobody(_: EpochReport) -> None:
    """Tell an epoch to nobody."""


@contextmanager
def tracking(
    accelerator: Accelerator, names: tuple[str, ...], settings: Mapping[str, Any], run: Path | None
) -> Iterator[Callable[[EpochReport], None]]:
    """Give what is to hear of every epoch; it tells the trackers of these names.

    Every run begins anew, in its folder `run` and elsewhere: one that goes on tells of all its
    epochs again, so that each stands there once. Raises `InputError` (`TRACKER_FAILED`).
    """
    wanted = [name for name in names if name in TRACKERS]
    if not wanted:
        yield nobody
        return
    if run is None:
        raise InputError(
            "a run that is logged needs a folder", code="BAD_OPTION", hint="give run_dir"
        )
    if accelerator.is_main_process:
        shutil.rmtree(run / PROJECT, ignore_errors=True)
    trackers = _started(accelerator, wanted, settings, run)

    def tell(report: EpochReport) -> None:
        row = to_json(report)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for tracker in trackers:
            with _told(names):
                tracker.log(numbers, step=report.epoch)

    try:
        yield tell
    finally:
        for tracker in trackers:
            with _told(names):
                tracker.finish()


def _started(
    accelerator: Accelerator, names: list[str], settings: Mapping[str, Any], run: Path
) -> list[Any]:
    from accelerate.tracking import filter_trackers

    accelerator.log_with = filter_trackers(names, str(run))
    accelerator.project_configuration.set_directories(str(run))
    plain = {
        name: value if isinstance(value, int | float | str | bool) else str(value)
        for name, value in settings.items()
    }
    own = {"wandb": {"name": run.stem, "dir": str(run)}, "mlflow": {"run_name": run.stem}}
    with _told(names):
        accelerator.init_trackers(
            PROJECT, config=plain, init_kwargs={name: own.get(name, {}) for name in names}
        )
    return list(accelerator.trackers)


@contextmanager
def _told(names: Sequence[str]) -> Iterator[None]:
    """Say as an `InputError` what a tracker raises: they are other people's programs."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"the run cannot be logged: {error}",
            code="TRACKER_FAILED",
            where=f"--log {','.join(names)}",
            hint="set the tracker up as its documentation says, or leave it out of --log; "
            "--resume goes on from the last epoch",
        ) from error
