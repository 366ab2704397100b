"""Numbers that all processes of a group count in common."""

from __future__ import annotations

import os

from prunecli.processes.ending import lost_process
from prunecli.processes.group import asked, wait_seconds


def added(name: str, more: int) -> int:
    """Return a number that all processes count, `more` added to it; raises `DeviceError`."""
    try:
        return asked(lambda store: store.add(name, more), wait_seconds(os.environ))
    except (RuntimeError, TimeoutError) as error:
        raise lost_process() from error
