"""How processes end: one of them tells of an error, and all end with its exit code."""

from __future__ import annotations

import json
import os
import signal
import time

from prunecli.errors import DeviceError, PruneError
from prunecli.processes.group import Processes, asked, joined, wait_seconds

MAIN_FIRST_SECONDS = 2.0
"""How much earlier the first process may tell an error that all of them have."""

UNMET_SECONDS = 10.0
"""The same before they have met: the first process may still be starting."""

STORE_SECONDS = 5.0
"""How long a process that ends tries to hear what the others have told."""

_ERROR = "prunecli/error"


def is_lost(error: BaseException) -> bool:
    """Tell whether an error says that another process of the group does not answer any more."""
    if joined().count == 1:
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def lost_process(hint: str = "see why it ended, and run the command again") -> DeviceError:
    """Return the error of a process whose group has lost another one."""
    own = joined()
    return DeviceError(
        f"another one of the {own.count} processes has ended, or did not answer for "
        f"{wait_seconds(os.environ):g} s",
        code="LOST_PROCESS",
        where=f"process {own.index}",
        hint=hint,
    )


def told_elsewhere(error: PruneError, own: Processes) -> int | None:
    """Return the exit code of the error that another process tells; None where this one is to.

    The first process speaks of what all of them run into, another one of what it alone does. A
    launcher ends all others as soon as one has ended: whoever is to speak is not interrupted, and
    whoever is silent waits for that one.
    """
    met = joined().count > 1
    if not own.is_main:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if met and error.code != "LOST_PROCESS":
            time.sleep(MAIN_FIRST_SECONDS)
        elif error.code not in {"LOST_PROCESS", "MISSING_PROCESSES"}:
            time.sleep(UNMET_SECONDS)  # all have read the same command
            return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return _claimed(error, own) if met else None


def _claimed(error: PruneError, own: Processes) -> int | None:
    """Return the exit code of the error that another process told first; None where none did."""
    mine = json.dumps([own.index, error.exit_code])
    try:
        first = asked(lambda store: store.compare_set(_ERROR, "", mine).decode(), STORE_SECONDS)
    except (RuntimeError, TimeoutError):  # the store went with the process that kept it
        return None
    return None if first == mine else int(json.loads(first)[1])
