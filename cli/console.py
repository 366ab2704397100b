"""Rich's console, which leaves a broken pipe to the caller; apart, so that rich is loaded late."""

from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from prunecli.wording import printable


class PlainConsole(Console):
    """A console that never ends the process, and shows text from data as what it is.

    Rich's own exits with 1 on a broken pipe, takes `[/red]` in a name for markup, and passes on
    characters that steer a terminal.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text with what steers a terminal written out."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Raise the `BrokenPipeError` that is being handled once more."""
        raise  # noqa: PLE0704 - rich calls this within its `except BrokenPipeError`
