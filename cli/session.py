"""One run of the command line: what was typed, and the screen to talk on."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import typer

from .find_model import find_checkpoint
from .parsing import usage_error
from .render import Screen


@dataclass(frozen=True)
class Session:
    """What every verb is handed: the words that were typed, and the screen."""

    words: tuple[str, ...]
    screen: Screen

    @property
    def command_line(self) -> str:
        """Return the command as it could be typed again, for the artefact's provenance."""
        return shlex.join(("prunecli", *self.words))

    def checkpoint(self, given: Path | None, *, exported: bool = False) -> Path:
        """Return the model to work on: the one given, piped in, or the newest in this folder."""
        return find_checkpoint(given, say=self.screen.note, exported=exported)


def start(context: typer.Context, *, json: bool, quiet: bool, verbose: bool) -> Session:
    """Return the session of a verb, its screen set as the verb's own options say."""
    if json and quiet:
        raise usage_error("--json and --quiet exclude each other", hint="choose one of the two")
    session = context.find_object(Session)
    assert session is not None
    session.screen.configure(json=json, quiet=quiet, verbose=verbose)
    return session
