"""The only place that prints: data on stdout, talk on stderr."""

import io
import json as json_text
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prunecli.errors import InterruptedRunError, PruneError
from prunecli.progress import Progress
from prunecli.wording import printable

from .outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
SHOWN_ROWS = 20
LOADING = "loading torch ..."
GITHUB = "github"
"""The format of messages that the log of a GitHub workflow reads as annotations."""


class Screen:
    """How one run talks: as a person wants it, in JSON, or hardly at all.

    Of several processes all but one are `mute`: they tell of errors alone.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.mute = False
        self.github = False
        self.junit: Path | None = None
        self.words: tuple[str, ...] = ()
        self.started = time.monotonic()

    def report_to(self, *, github: bool, junit: Path | None, words: tuple[str, ...]) -> None:
        """Tell continuous integration as well: by annotations and a summary, or a JUnit file."""
        self.github, self.junit, self.words = github, junit, words

    def configure(self, *, json: bool, quiet: bool, verbose: bool) -> None:
        """Take over what the verb's options say; what was set before stays."""
        self.json = self.json or json
        self.quiet = self.quiet or quiet
        self.verbose = self.verbose or verbose

    @property
    def talks(self) -> bool:
        """Return whether people are told how things go."""
        return not (self.json or self.quiet or self.mute)

    def note(self, text: str) -> None:
        """Say one line on stderr, where talk is wanted."""
        if self.talks:
            _say(text)

    def heading(self, text: str) -> None:
        """Say one line that stands out."""
        if self.talks:
            _say(text, style="bold cyan")

    @contextmanager
    def working(self) -> Iterator[Progress]:
        """Yield the callback that shows progress while the library works.

        What libraries print meanwhile goes to stderr, so that stdout holds data only.
        """
        try:
            with redirect_stdout(sys.stderr), self._progress() as progress:
                yield progress
        except KeyboardInterrupt as error:
            raise interrupted() from error

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Say on a terminal that torch is being loaded, and take that away again."""
        shown = "torch" not in sys.modules and not self.mute and _is_animated(sys.stderr)
        if shown:
            _write(sys.stderr, LOADING)
        try:
            yield
        finally:
            if shown:
                _write(sys.stderr, "\r" + " " * len(LOADING) + "\r")

    def show(self, outcome: Outcome) -> None:
        """Print a finished verb."""
        if self.mute:
            return
        self._show(outcome)
        self._tell_ci(outcome.command, outcome.gate, outcome)

    def _show(self, outcome: Outcome) -> None:
        if self.json:
            self._show_envelope(outcome)
            return
        for warning in outcome.warnings:
            _say(f"warning: {warning}", style="yellow")
        if self.talks:
            self._show_report(outcome)
            self._show_next(outcome)
        if outcome.gate is not None:
            _say_error(outcome.gate)
        else:
            self._show_path(outcome)

    def show_beside(self, outcome: Outcome) -> None:
        """Print a step of something larger: all of it is talk."""
        for warning in outcome.warnings:
            self.note(f"warning: {warning}")
        if self.talks:
            self._print_view(outcome.report, sys.stderr)

    def fail(self, error: PruneError, *, command: str | None) -> None:
        """Print an error: on stderr for people, and as an envelope on stdout with `--json`."""
        if self.json:
            _print_json(
                {
                    "schema_version": SCHEMA_VERSION,
                    "command": command,
                    "ok": False,
                    "error": error.to_json(),
                }
            )
        _say_error(error)
        if self.verbose and error.__cause__ is not None:
            _write(sys.stderr, printable("".join(traceback.format_exception(error.__cause__))))
        try:
            self._tell_ci(command, error)
        except PruneError as failure:  # the first error is the one that counts
            _say(f"warning: {failure.message}")

    def print_text(self, text: str) -> None:
        """Print text that is the product itself, such as generated Markdown, on stdout."""
        if self.mute:
            return
        _write(sys.stdout, f"{text}\n")

    def _tell_ci(
        self, command: str | None, error: PruneError | None, outcome: Outcome | None = None
    ) -> None:
        """Say what came of a run where continuous integration reads it, if that is asked for."""
        if not self.github and self.junit is None:
            return
        from . import ci

        name = " ".join(("prunecli", *([command] if command else [])))
        text = "" if outcome is None else self._as_text(outcome.report)
        warnings = () if outcome is None else outcome.warnings
        if self.github:
            for warning in warnings:
                _write(sys.stderr, ci.annotation("warning", warning, title=name) + "\n")
            if error is not None:
                _write(sys.stderr, ci.annotation("error", ci.told(error), title=name) + "\n")
            try:
                ci.add_summary(name, error, text=text, warnings=warnings)
            except OSError as failure:
                _say(f"warning: the summary of the job cannot be written: {failure}")
        if self.junit is not None:
            ci.write_junit(
                self.junit, name, error, words=self.words, text=text,
                seconds=time.monotonic() - self.started,
            )  # fmt: skip

    def _as_text(self, report: Any) -> str:
        """Return what is shown of a report, without colours, 100 columns wide."""
        from .console import PlainConsole
        from .tables import view

        written = io.StringIO()
        console = PlainConsole(
            file=written, highlight=False, markup=False, width=100, color_system=None
        )
        for part in view(report, rows=SHOWN_ROWS):
            console.print(part)
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())

    def _progress(self) -> AbstractContextManager[Progress]:
        from .bars import bars, lines, nothing

        if self.mute:
            return nothing()
        if _is_animated(sys.stderr):  # where a person looks, whatever becomes of stdout
            return bars(_console(sys.stderr))
        return nothing() if self.quiet else lines(_say)

    def _show_envelope(self, outcome: Outcome) -> None:
        from prunecli.report import to_json

        data = to_json(outcome.report)
        data.pop("warnings", None)
        envelope = {
            "schema_version": SCHEMA_VERSION,
            "command": outcome.command,
            "ok": outcome.gate is None,
            "data": data,
            "warnings": list(outcome.warnings),
        }
        if outcome.gate is not None:
            envelope["error"] = outcome.gate.to_json()
        _print_json(envelope)
        if outcome.gate is not None:
            _say_error(outcome.gate)

    def _show_report(self, outcome: Outcome) -> None:
        """Print the report: on stderr beside a file that was written, else as the data it is."""
        self._print_view(outcome.report, sys.stdout if outcome.output is None else sys.stderr)

    def _show_next(self, outcome: Outcome) -> None:
        if outcome.following is not None and outcome.gate is None:
            self.note(f"next: {outcome.following}")

    def _print_view(self, report: Any, stream: TextIO) -> None:
        from .tables import view

        console = _console(stream)
        for part in view(report, rows=None if self.verbose else SHOWN_ROWS):
            console.print(part)

    def _show_path(self, outcome: Outcome) -> None:
        if outcome.output is None:
            if self.quiet and outcome.brief is not None:
                _write(sys.stdout, f"{outcome.brief}\n")
        elif self.quiet or not _is_terminal(sys.stdout):
            _write(sys.stdout, f"{outcome.output}\n")


def interrupted() -> InterruptedRunError:
    """Return the error of a run that was stopped with Ctrl-C."""
    return InterruptedRunError(
        "interrupted", code="INTERRUPTED", hint="nothing was written; run the command again"
    )


def _print_json(envelope: dict[str, Any]) -> None:
    from prunecli.report import finite

    indent = 2 if _is_terminal(sys.stdout) else None
    _write(sys.stdout, json_text.dumps(finite(envelope), indent=indent, allow_nan=False) + "\n")


def _say_error(error: PruneError) -> None:
    _say(f"error: {error.message}", style="bold red")
    if error.where is not None:
        _say(f"  where: {error.where}")
    if error.hint is not None:
        _say(f"  hint: {error.hint}")
    _say(f"  code: {error.code} (exit {error.exit_code})", style="dim")


def _say(text: str, *, style: str | None = None) -> None:
    whole = not _is_terminal(sys.stderr)  # a terminal breaks at words, a log keeps its lines
    try:
        if whole and not os.environ.get("FORCE_COLOR"):  # an error does not wait for rich
            _write(sys.stderr, f"{printable(text)}\n")
            return
        _console(sys.stderr).print(text, style=style, markup=False, soft_wrap=whole)
    except (AttributeError, OSError, ValueError):  # nobody can hear it: the work goes on
        return


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _console(stream: TextIO) -> "Console":
    from .console import PlainConsole

    return PlainConsole(file=stream, highlight=False, markup=False)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _is_animated(stream: TextIO) -> bool:
    """Return whether bars may redraw themselves: a real terminal, and no continuous integration."""
    in_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return _is_terminal(stream) and not in_ci and os.environ.get("TERM") != "dumb"
