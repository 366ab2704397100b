"""What the main process lets the others do with it, while they wait for its work."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from prunecli.processes.group import ALONE, Processes, joined
from prunecli.processes.store import added

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

ASKED = "prunecli/asked"

_HELPED: ContextVar[bool] = ContextVar("helped", default=False)
_SHARING: ContextVar[Processes] = ContextVar("sharing", default=ALONE)


def sharing() -> Processes:
    """Return the processes that share the pass over images that is under way."""
    return _SHARING.get()


@contextmanager
def helped() -> Iterator[None]:
    """Let `shared` ask for help in this block, where the other processes wait in `serve`."""
    token = _HELPED.set(True)
    try:
        yield
    finally:
        _HELPED.reset(token)


class HelpFailedError(Exception):
    """Another process could not do its part."""


def pooled(make: Callable[[], T]) -> list[T]:
    """Return the parts that all processes make of a shared work, in their order: plain data.

    Raises what `make` raises here, and `HelpFailedError` where it raised elsewhere.
    """
    processes = sharing()
    try:
        own = make()
    except Exception:
        processes.gathered(None)
        raise
    parts = processes.gathered(own)
    if any(part is None for part in parts):
        raise HelpFailedError
    return parts


def shared(request: Any, work: Callable[[], T]) -> T:
    """Return what `work` gives, done by all processes together where all of them can.

    `request` is plain data that says what work it is. What is shared, `work` makes in `pooled`.
    """
    if not _HELPED.get():
        return work()
    processes = joined()
    added(ASKED, 1)
    processes.agreed(request)
    if not all(processes.gathered(True)):
        return work()
    try:
        return _together(processes, work)
    except HelpFailedError:
        return work()


def serve(processes: Processes, help_with: Callable[[Any], Callable[[], Any] | None]) -> None:
    """Do what the main process has asked for since; `help_with` gives the work, None for none."""
    asked = added(ASKED, 0)
    while added(f"prunecli/served/{processes.index}", 0) < asked:
        added(f"prunecli/served/{processes.index}", 1)
        work = help_with(processes.agreed(None))
        if all(processes.gathered(work is not None)) and work is not None:
            with suppress(Exception):  # the main process tells of it, or does it by itself
                _together(processes, work)


def _together(processes: Processes, work: Callable[[], T]) -> T:
    token = _SHARING.set(processes)
    try:
        return work()
    finally:
        _SHARING.reset(token)
