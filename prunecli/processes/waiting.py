"""Work that one process does for all: the others wait as long as it shows signs of life."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from prunecli.processes.ending import lost_process
from prunecli.processes.group import Processes, wait_seconds
from prunecli.processes.helping import helped, serve
from prunecli.processes.store import added

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

_ALIVE, _DONE = "prunecli/alive", "prunecli/done"
_BEATS = 20
"""Signs of life in the time that a process waits for an answer."""

_LOOK_SECONDS = 0.2


Help = Callable[[Any], "Callable[[], Any] | None"]
"""Gives the part of a process in what is asked for; None where it has none."""


def done_by_main(processes: Processes, work: Callable[[], T], help_with: Help | None = None) -> T:
    """Return in every process what the main one has made: plain data of any kind.

    While they wait, the others help with what the main one asks for (`helping.shared`). It may take
    longer than an answer: raises `DeviceError` (`LOST_PROCESS`) where the main process has been
    silent for as long as that.
    """
    if processes.count == 1:
        return work()
    made = None
    begun = added(f"prunecli/begun/{processes.index}", 1)
    if processes.is_main:
        with _alive(), helped() if help_with is not None else nullcontext():
            made = work()
        added(_DONE, 1)
    else:
        _wait_for_main(processes, begun, help_with)
    return processes.agreed(made)  # type: ignore[return-value]


@contextmanager
def _alive() -> Iterator[None]:
    """Show signs of life while the block runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(wait_seconds(os.environ) / _BEATS):
            added(_ALIVE, 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for_main(processes: Processes, begun: int, help_with: Help | None) -> None:
    """Return when the main process has done as many works as this one has begun."""
    beats, since = -1, time.monotonic()
    while added(_DONE, 0) < begun:
        if help_with is not None:
            serve(processes, help_with)
        found = added(_ALIVE, 0)
        if found != beats:
            beats, since = found, time.monotonic()
        elif time.monotonic() - since > wait_seconds(os.environ):
            raise lost_process()
        time.sleep(_LOOK_SECONDS)
