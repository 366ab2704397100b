"""Work that one process does for all: the others wait as long as it shows signs of life."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from prunecli.processes.ending import lost_process
from prunecli.processes.group import Processes, asked, wait_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_ALIVE, _DONE = "prunecli/alive", "prunecli/done"
_BEATS = 20
"""Signs of life in the time that a process waits for an answer."""

_LOOK_SECONDS = 0.2


def done_by_main(processes: Processes, work: Callable[[], T]) -> T:
    """Return in every process what the main one has made: plain data of any kind.

    That may take longer than an answer: raises `DeviceError` (`LOST_PROCESS`) where the main
    process has been silent for as long as that.
    """
    if processes.count == 1:
        return work()
    made = None
    if processes.is_main:
        with _alive():
            made = work()
        _added(_DONE, 1)
    else:
        _wait_for_main(_added(_DONE, 0))
    return processes.agreed(made)  # type: ignore[return-value]


@contextmanager
def _alive() -> Iterator[None]:
    """Show signs of life while the block runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(wait_seconds(os.environ) / _BEATS):
            _added(_ALIVE, 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _added(name: str, more: int) -> int:
    """Return a number that all processes count, `more` added to it."""
    try:
        return asked(lambda store: store.add(name, more), wait_seconds(os.environ))
    except (RuntimeError, TimeoutError) as error:
        raise lost_process() from error


def _wait_for_main(done: int) -> None:
    """Return when the main process has done one work more."""
    beats, since = -1, time.monotonic()
    while _added(_DONE, 0) == done:
        found = _added(_ALIVE, 0)
        if found != beats:
            beats, since = found, time.monotonic()
        elif time.monotonic() - since > wait_seconds(os.environ):
            raise lost_process()
        time.sleep(_LOOK_SECONDS)
