"""Work that one process does for all: the others wait as long as it shows signs of life."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from prunecli.processes.ending import lost_process
from prunecli.processes.group import Processes, wait_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

_ALIVE, _DONE = "prunecli/alive", "prunecli/done"
_BEATS = 20
"""Signs of life in the time that a process waits for an answer."""

_LOOK_SECONDS = 0.1


def done_by_main(processes: Processes, work: Callable[[], T]) -> T:
    """Return in every process what the main one has made: plain data of any kind.

    That may take longer than an answer: raises `DeviceError` (`LOST_PROCESS`) where the main
    process has been silent for as long as that.
    """
    if processes.count == 1:
        return work()
    from torch.distributed import distributed_c10d

    store = distributed_c10d._get_default_store()  # noqa: SLF001
    made = None
    if processes.is_main:
        with _alive(store):
            made = work()
        store.add(_DONE, 1)
    else:
        _wait_for_main(store, store.add(_DONE, 0))
    return processes.agreed(made)  # type: ignore[return-value]


@contextmanager
def _alive(store: Store) -> Iterator[None]:
    """Show signs of life while the block runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(wait_seconds(os.environ) / _BEATS):
            store.add(_ALIVE, 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for_main(store: Store, done: int) -> None:
    """Return when the main process has done one work more."""
    beats, since = -1, time.monotonic()
    while store.add(_DONE, 0) == done:
        found = store.add(_ALIVE, 0)
        if found != beats:
            beats, since = found, time.monotonic()
        elif time.monotonic() - since > wait_seconds(os.environ):
            raise lost_process()
        time.sleep(_LOOK_SECONDS)
