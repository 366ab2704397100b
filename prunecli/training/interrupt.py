"""Ctrl-C that never tears a training step in two."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HELD_SIGNALS: dict[signal.Signals, tuple[Any, ...]] = {
    signal.SIGINT: (signal.default_int_handler,),
    signal.SIGTERM: (signal.SIG_DFL, signal.default_int_handler),
}
"""What is held, as long as nobody has decided otherwise about it than this."""


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
            raise KeyboardInterrupt
        arrived.append(number)

    held = {number: signal.getsignal(number) for number in HELD_SIGNALS}
    held = {number: own for number, own in held.items() if own in HELD_SIGNALS[number]}
    for number in held:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, usual in held.items():
            signal.signal(number, usual)
    if arrived:
        raise KeyboardInterrupt
