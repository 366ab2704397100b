"""Runs that were stopped: their state must not be lost by accident."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.processes import joined

if TYPE_CHECKING:
    from pathlib import Path


def check_no_run(run_dir: Path) -> None:
    """Raise `InputError` (`UNFINISHED_RUN`) where a stopped run could still go on.

    Of several processes the first one looks for all: a slower one may find the state of this very
    run.
    """
    from prunecli.training import has_state

    if joined().agreed(has_state(run_dir)):
        raise InputError(
            "an unfinished run exists in its folder",
            code="UNFINISHED_RUN",
            where=str(run_dir),
            hint="resume it (--resume), or start from the beginning (--overwrite)",
        )
