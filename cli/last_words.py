"""Say one line and end, however little there is left to work with."""

import os
import sys
from typing import NoReturn


def end_at_once(message: str, code: int) -> NoReturn:
    """Say one line and end at once."""
    line = f"error: {message.splitlines()[0]}\n".encode("ascii", "backslashreplace")
    try:
        os.write(2, line)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        pass
    os._exit(code)
