"""Runs that were stopped: their state must not be lost by accident."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def check_no_run(run_dir: Path) -> None:
    """Raise `InputError` (`UNFINISHED_RUN`) where a stopped run could still go on.

    Of several processes the first alone looks: a slower one may find the state of this very run.
    """
    from prunecli.training import has_state, is_main_process

    if has_state(run_dir) and is_main_process():
        raise InputError(
            "an unfinished run exists in its folder",
            code="UNFINISHED_RUN",
            where=str(run_dir),
            hint="resume it (--resume), or start from the beginning (--overwrite)",
        )
