"""Ctrl-C and the termination of a process, which never tear a step or a file in two."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that was asked to end."""


class TerminatedError(KeyboardInterrupt):
    """What SIGTERM raises: all that answers Ctrl-C answers it in the same way."""


_asked: list[int] = []


def answer_termination() -> None:
    """Let SIGTERM be answered as Ctrl-C is, unless the process was started to ignore it."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _terminate)


def forget_termination() -> None:
    """Begin anew: what arrived in an earlier run of this process is over."""
    _asked.clear()


def was_terminated() -> bool:
    """Tell whether SIGTERM has arrived: libraries turn an interrupt into errors of their own."""
    return signal.SIGTERM in _asked


def _terminate(number: int, _frame: FrameType | None) -> None:
    _asked.append(number)
    raise TerminatedError


def _held() -> dict[signal.Signals, Any]:
    """Return the signals that are held with their handlers: those that nobody else handles."""
    usual = {
        signal.SIGINT: (signal.default_int_handler,),
        signal.SIGTERM: (signal.SIG_DFL, _terminate),
    }
    found = {number: signal.getsignal(number) for number in usual}
    return {number: handler for number, handler in found.items() if handler in usual[number]}


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Let an interrupt that arrives within the block wait until its end, then raise it.

    A step that is cut off between two parameters could not be resumed exactly. A second interrupt
    is not held. Outside the main thread, where Python delivers no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if arrived:
            raise _interrupt(number)
        arrived.append(number)

    held = _held()
    for number in held:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if arrived:
        raise _interrupt(arrived[0])


def _interrupt(number: int) -> KeyboardInterrupt:
    _asked.append(number)
    return TerminatedError() if number == signal.SIGTERM else KeyboardInterrupt()
