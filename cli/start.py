"""The entry point: it imports next to nothing, so that whatever happens at start-up is told."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

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
        leave("interrupted", TERMINATED if error.args else INTERRUPTED)
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        leave(f"prunecli cannot start: {type(error).__name__}: {error}", FAILED)


def leave(message: str, code: int) -> NoReturn:
    """Say one line and end at once, however little there is left to work with."""
    line = f"error: {message.splitlines()[0]}\n".encode("ascii", "backslashreplace")
    try:
        os.write(2, line)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        pass
    os._exit(code)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
