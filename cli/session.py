"""One run of the command line: what was typed, and the screen to talk on."""

import dataclasses
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import typer

from prunecli.atomic import check_place
from prunecli.options.declare import Declared, assembled, declared, idle, refuse_idle
from prunecli.preflight.files import check_file
from prunecli.processes import joined

from .config import variable_of
from .find_model import find_checkpoint
from .options import Talk
from .parsing import usage_error
from .render import GITHUB, Screen

T = TypeVar("T")

VARIABLES = "prunecli.variables"
"""The key under which a run keeps the warnings about its variables."""


@dataclass(frozen=True)
class Session:
    """What every verb is handed: the words that were typed, and the screen.

    While a verb runs, `context` is the parser's, and `known` are the options of the verb.
    """

    words: tuple[str, ...]
    screen: Screen
    context: typer.Context | None = None
    known: Sequence[Declared] = ()

    @property
    def command_line(self) -> str:
        """Return the command as it could be typed again, for the artefact's provenance."""
        return shlex.join(("prunecli", *self.words))

    def checkpoint(self, given: Path | None, *, exported: bool = False) -> Path:
        """Return the model to work on: the one given, piped in, or the newest in this folder.

        Of several processes the first one looks for all.
        """
        if given is not None and str(given) != "-":
            check_file(given)
            return given
        own = joined()
        found = (
            find_checkpoint(given, say=self.screen.note, exported=exported) if own.is_main else None
        )
        told = own.agreed(found)
        assert told is not None
        check_file(told)
        return told

    def library(self) -> ModuleType:
        """Return the verbs of the library; says that torch is being loaded where that takes time.

        Everything that can be known without it has to be checked before.
        """
        with self.screen.loading():
            from prunecli import verbs

            return verbs

    @property
    def typed(self) -> frozenset[str]:
        """The options that were typed, and not taken from settings."""
        names = (known.name for known in self.known)
        return frozenset(name for name in names if self._source(name) == "COMMANDLINE")

    def granted(self) -> tuple[str, ...]:
        """Return a sentence for every variable that lets code run or something be written.

        And those about variables that are no options, where nobody was told at the beginning.
        """
        assert self.context is not None
        values = self.context.params
        unknown = () if self.screen.talks else self.context.meta.get(VARIABLES, ())
        return (
            *unknown,
            *(
                f"{known.flags[0]} {values[known.name]} is taken from {variable_of(known.name)}"
                for known in self.known
                if known.option.trusts is not None
                and self._source(known.name) == "ENVIRONMENT"
                and known.option.trusts(values[known.name])
            ),
        )

    def is_said(self, name: str) -> bool:
        """Tell whether a flag, a variable or the settings say something about an option."""
        return self._source(name) not in {"", "DEFAULT"}

    def effective(self, options: T, **given: Any) -> T:
        """Return the options of a verb that have an effect, and those without at their defaults.

        Raises the error of one that was typed and that nothing follows; a setting of the project
        is no contradiction. `given` is what the verb knows better than the parser.
        """
        assert self.context is not None
        typed = self.typed
        known = self._settled({**self.context.params, **given}, typed)
        refuse_idle(self.known, typed, known)
        own = declared(type(options))
        return assembled(
            type(options), {each.name: each.default for each, _ in idle(own, known)}, options
        )

    def _settled(self, given: Mapping[str, Any], typed: Collection[str]) -> Mapping[str, Any]:
        """Return what is `given` without the settings that nothing follows.

        One that is left out can be what another one needs, or what excludes it.
        """
        left = {
            each.name: (each.default, need.tests.keys())
            for each, need in idle(self.known, given)
            if each.name not in typed and given[each.name] != each.default
        }
        first = {
            name: default for name, (default, asked) in left.items() if not asked & left.keys()
        }
        changes = first or {name: default for name, (default, _) in left.items()}
        return self._settled({**given, **changes}, typed) if changes else given

    def _source(self, name: str) -> str:
        source = None if self.context is None else self.context.get_parameter_source(name)
        return "" if source is None else str(source.name)


def start(context: typer.Context, talk: Talk, *, known: Sequence[Declared] = ()) -> Session:
    """Return the session of a verb, its screen set as the verb's own options say."""
    if talk.json and talk.quiet:
        raise usage_error("--json and --quiet exclude each other", hint="choose one of the two")
    session = context.find_object(Session)
    assert session is not None
    session.screen.configure(json=talk.json, quiet=talk.quiet, verbose=talk.verbose)
    if talk.junit is not None:
        check_place(talk.junit)
    session.screen.report_to(github=talk.format == GITHUB, junit=talk.junit, words=session.words)
    return dataclasses.replace(session, context=context, known=known)
