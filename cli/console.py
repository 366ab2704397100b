"""Rich's console, which leaves a broken pipe to the caller; apart, so that rich is loaded late."""

from typing import NoReturn

from rich.console import Console


class PlainConsole(Console):
    """A console that never ends the process: rich's own exits with 1 on a broken pipe."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the `BrokenPipeError` that is being handled once more."""
        raise  # noqa: PLE0704 - rich calls this within its `except BrokenPipeError`
