"""The entry point: it imports next to nothing, so that whatever happens at start-up is told."""

import signal
from types import FrameType

from .last_words import end_at_once

INTERRUPTED = 130
TERMINATED = 143
FAILED = 2


def run() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        from .main import run as run_command_line

        run_command_line()
    except KeyboardInterrupt as error:
        end_at_once("interrupted", TERMINATED if error.args else INTERRUPTED)
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        end_at_once(f"prunecli cannot start: {type(error).__name__}: {error}", FAILED)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
