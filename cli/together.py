"""Several processes of one launcher on the command line: one of them prints, and all end."""

import os

import typer

from prunecli import processes
from prunecli.errors import PruneError
from prunecli.processes import ALONE, Processes


def of_launcher() -> Processes:
    """Return which of several processes this is; alone where the environment contradicts itself.

    A verb that works says so then, before any work (`begin`).
    """
    try:
        return processes.started(os.environ)
    except PruneError:
        return ALONE


def begin(*, splits: bool) -> str | None:
    """Have this process work with the others of its launcher, or for itself.

    What is not split is done by the first one, which warns of that in the words returned; the
    others leave with exit code 0.
    """
    own = processes.started(os.environ)
    if own.count == 1:
        return None
    if splits:
        processes.join()
        return None
    if not own.is_main:
        raise typer.Exit
    processes.forget(os.environ)
    return f"this command is not split over processes: the first of {own.count} does it alone"


def exit_code_told(error: PruneError, own: Processes) -> int | None:
    """Return the exit code of what another process tells; None where this one has to tell."""
    return None if own.count == 1 else processes.told_elsewhere(error, own)
