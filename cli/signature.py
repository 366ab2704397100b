"""A verb's command line, made from the dataclasses in its signature."""

import copy
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from prunecli.files import limited
from prunecli.options import LoadOptions
from prunecli.options.declare import FOLLOWS, Declared, assembled, declared, flag_of, values_of
from prunecli.options.shared import OUTPUT, PANELS
from prunecli.preflight.loading import check_loading
from prunecli.preflight.names import check_names

from . import parsing
from .completion import completion
from .options import Talk
from .outcome import Outcome
from .render import Screen
from .session import Session, start
from .together import begin

Verb = Callable[..., Any]

ALL = "prunecli.help_all"
"""The key under which a run remembers that all options are to be shown."""
SHOWN_EXAMPLES = 4
"""Examples in the short help of a verb that has a long one."""


@dataclass(frozen=True)
class Form:
    """How an option is typed whose value is no plain word, path or number."""

    typed: Any
    read: Callable[[str, Any], Any]
    write: Callable[[Any], str | None] = lambda value: None if value is None else str(value)


def _joined(values: Any) -> str | None:
    return ",".join(map(str, values)) or None


FORMS: Mapping[str, Form] = {
    "share": Form(str, parsing.share),
    "bytes": Form(str, parsing.byte_count, parsing.bytes_text),
    "count-or-all": Form(str, parsing.count_or_all),
    "size": Form(str, parsing.size),
    "numbers": Form(str, parsing.numbers),
    "names": Form(str, parsing.names, _joined),
    "counts": Form(str, parsing.counts, _joined),
    "shapes": Form(list[str], parsing.shapes, lambda _: None),
    "pairs": Form(list[str], parsing.arguments, lambda _: None),
    "renames": Form(list[str], parsing.renames, lambda _: None),
}


def never(_: Mapping[str, Any]) -> bool:
    """Tell that nothing of a verb is split over processes."""
    return False


def command(
    verb: Verb,
    *,
    judged: bool = True,
    works: bool = True,
    splits: Callable[[Mapping[str, Any]], bool] = never,
) -> Verb:
    """Return `verb` as the parser is to see it: every dataclass as one option per field.

    A parameter that is a `Session` is the run itself, with the options of how it talks; what is
    annotated otherwise is passed on as it is. The dataclasses are put together again for the call,
    with options of effect alone (`Session.effective`); one that knows more than the parser judges
    that itself (not `judged`). `splits` tells from the dataclasses whether several processes share
    the work; a verb that only shows what is there does no `work`.
    """
    hints = get_type_hints(verb, include_extras=True)
    taken = inspect.signature(verb).parameters
    groups = {name: hints[name] for name in taken if _holds_options(hints[name])}
    plain = [
        parameter.replace(annotation=hints[name])
        for name, parameter in taken.items()
        if name not in groups and hints[name] is not Session
    ]
    options = {kind: declared(kind) for kind in (*groups.values(), Talk)}
    flat = sorted(
        (known for own in options.values() for known in own),
        key=lambda known: PANELS.index(known.option.panel),
    )
    basic = {known.name for known in flat if known.option.basic}

    @functools.wraps(verb)
    def run(context: typer.Context, **typed: Any) -> Any:
        typed.pop(HELP_ALL.name, None)
        read = {
            kind: assembled(
                kind, {known.name: _read(known, typed.pop(known.name)) for known in own}
            )
            for kind, own in options.items()
        }
        session = start(context, read[Talk], known=flat)
        found = {name: read[kind] for name, kind in groups.items()}
        if judged:
            found = {name: session.effective(options) for name, options in found.items()}
        check_names(flat, context.params | _values(found.values()))
        load = read.get(LoadOptions, LoadOptions())
        check_loading(load)
        with limited(memory=load.max_file_memory, outside=load.allow_outside):
            note = begin(splits=splits(found)) if works else None
            if note is not None:
                session.screen.note(f"warning: {note}")
            outcome = verb(session, **typed, **found)
        if not isinstance(outcome, Outcome):  # it printed what was asked for
            return outcome
        told = [note] if note is not None and not session.screen.talks else []
        return dataclasses.replace(outcome, warnings=(*session.granted(), *outcome.warnings, *told))

    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    if len(flat) - len(basic) <= FEW:
        basic = {known.name for known in flat}
    more = [HELP_ALL] if len(basic) < len(flat) else []
    parameters = [context, *plain, *map(_parameter, flat), *more]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.declared = {known.name: known.option for known in flat}  # type: ignore[attr-defined]
    run.basic = {*basic, *(parameter.name for parameter in plain), HELP_ALL.name}  # type: ignore[attr-defined]
    return run


def _values(groups: Iterable[Any]) -> dict[str, Any]:
    """Return every option of several dataclasses by name."""
    return {name: value for options in groups for name, value in values_of(options).items()}


def _holds_options(kind: Any) -> bool:
    return is_dataclass(kind) and kind is not Session


def _parameter(known: Declared) -> inspect.Parameter:
    """Return what the parser is to make of an option."""
    said = known.option
    form = FORMS.get(said.form)
    required = known.default is MISSING
    default = inspect.Parameter.empty if required else _default(known, form)
    typed = typer.Option(
        *(said.flags.split() or (flag_of(known.name),)),
        help=said.help,
        metavar=said.metavar or None,
        rich_help_panel=said.panel or None,
        min=said.minimum,
        max=said.maximum,
        show_default=default is not None and not said.tells_default,
        autocompletion=completion(known),
    )
    kind = _typed_kind(known.kind) if form is None else form.typed
    optional = kind | None if default is None else kind
    return inspect.Parameter(
        known.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[optional, typed],
    )


def _default(known: Declared, form: Form | None) -> Any:
    """Return a default as one would type it."""
    if known.default is FOLLOWS:
        return None
    if form is not None:
        return form.write(known.default)
    return None if known.default == () else known.default


def _typed_kind(kind: Any) -> Any:
    """Return the type that one word is read as: several words make a tuple."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    return list[get_args(kind)[0]] if get_origin(kind) is tuple else kind  # type: ignore[misc]


def _read(known: Declared, value: Any) -> Any:
    """Return the value of an option from what was typed, or its default where nothing was."""
    form = FORMS.get(known.option.form)
    if value is None or value == []:
        return known.default
    return value if form is None else form.read(known.flags[0], value)


def _all_options(context: typer.Context, *, asked: bool) -> None:
    """Print the help with every option, and leave."""
    if asked and not context.resilient_parsing:
        context.meta[ALL] = True
        Screen().print_text(context.get_help())
        raise typer.Exit


HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all",
            help="Show all options and exit.",
            rich_help_panel=OUTPUT,
            callback=_all_options,
            is_eager=True,
            expose_value=False,
            allow_from_autoenv=False,
        ),
    ],
)


FEW = 3
"""So many options are shown at once: asking for them would take as many words."""


class VerbCommand(TyperCommand):
    """A command whose `--help` shows the options that most people need, `--help-all` the rest."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, short unless all of it was asked for."""
        shown = self if ALL in ctx.meta else self._in_short(ctx)
        super(VerbCommand, shown).format_help(ctx, formatter)

    def _in_short(self, ctx: Any) -> "VerbCommand":
        """Return the command without what only few need, and with a word about that."""
        basic: frozenset[str] = getattr(self.callback, "basic", frozenset())
        short = copy.copy(self)
        short.params = [parameter for parameter in self.params if parameter.name in basic]
        left_out = len(self.params) - len(short.params)
        if left_out > 0:
            lines = (self.help or "").splitlines()
            examples = [at for at, line in enumerate(lines) if line.startswith("$ ")]
            short.help = "\n".join(lines[: max(examples[:SHOWN_EXAMPLES], default=len(lines)) + 1])
            short.epilog = f"{left_out} more options: {ctx.command_path} --help-all"
        return short
