"""The command `prunecli`: one verb per file, every error turned into its exit code."""

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from prunecli.errors import (
    InputError,
    InterruptedRunError,
    PruneError,
    TerminatedRunError,
    first_line,
    is_out_of_memory,
)
from prunecli.files import no_memory
from prunecli.lifetime.interrupts import answer_termination, forget_termination, was_terminated
from prunecli.options.shared import OUTPUT
from prunecli.processes import is_lost, leave, lost_process

from . import config
from .analyze import analyze
from .bench import bench
from .compare import compare
from .compress import compress
from .demo import demo
from .env import env
from .evaluate import evaluate
from .export import ExportCommand, export
from .find_model import record
from .finetune import finetune
from .guide import guide
from .info import info
from .last_words import end_at_once
from .methods import methods
from .outcome import Outcome
from .parsing import usage_error
from .prune import prune
from .render import GITHUB, Screen, interrupted
from .session import VARIABLES, Session
from .signature import VerbCommand
from .together import exit_code_told, of_launcher

EXIT_CODES = {
    0: "done",
    1: "a gate was not met, or the budget cannot be reached",
    2: "usage, bad input, or an internal error",
    3: "the model cannot be traced, or has nothing to prune",
    4: "the file was refused: it would run code, or it is damaged",
    5: "the verification of a pruned or exported model failed, or has limits under --strict",
    6: "a device, a provider or another process is missing",
    130: "interrupted (Ctrl-C)",
    143: "terminated (SIGTERM)",
}

HELP = (
    "Prune a pretrained vision model: smaller, faster, and verified.\n\n"
    "$ prunecli prune model.pt --flops 0.5 -o slim.pt\n"
    "$ prunecli finetune slim.pt --data images/ --teacher model.pt -o tuned.pt\n"
    "$ prunecli export tuned.pt --onnx slim.onnx --against model.pt\n\n"
    "Results go to stdout, messages to stderr, so commands can be piped into each other. "
    "Every option can also be set by a variable (PRUNECLI_SEED for --seed) or in "
    "\\[tool.prunecli] of pyproject.toml. Flags win over variables, variables over the file."
)

app = typer.Typer(
    name="prunecli",
    help=HELP,
    epilog="Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + ".",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Every verb reads its options from PRUNECLI_<OPTION>, so that one variable serves all verbs.
_SETTINGS = {"auto_envvar_prefix": "PRUNECLI", "help_option_names": ["-h", "--help"]}
_WORKFLOW, _OTHER = "Workflow", "Other commands"

for verb in (compress, analyze, prune, finetune, evaluate):
    app.command(context_settings=_SETTINGS, rich_help_panel=_WORKFLOW, cls=VerbCommand)(verb)
app.command(context_settings=_SETTINGS, rich_help_panel=_WORKFLOW, cls=ExportCommand)(export)
for verb in (info, compare, bench, demo, methods, guide, env):
    app.command(context_settings=_SETTINGS, rich_help_panel=_OTHER, cls=VerbCommand)(verb)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        Screen().print_text(f"prunecli {metadata.version('prunecli')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def prepare(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - handled by the callback
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Read the settings of the project before a verb runs."""
    if context.invoked_subcommand is None:
        Screen().print_text(context.get_help())
        raise typer.Exit(2)
    commands = command_options()
    context.meta[VARIABLES] = tuple(config.check_variables(commands, os.environ))
    for warning in context.meta[VARIABLES]:
        context.obj.screen.note(f"warning: {warning}")
    context.default_map = config.load(commands, folder=Path.cwd())


def command_options() -> config.Commands:
    """Return every verb's options by name: the live command table."""
    return {
        name: dict(getattr(command.callback, "declared", {}))
        for name, command in root_command().commands.items()
    }


@cache
def root_command() -> TyperGroup:
    """Return the command `prunecli` with all its verbs."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    for command in (root, *root.commands.values()):
        context = command.context_class(command, **command.context_settings)
        for parameter in command.get_params(context):  # with --help, which `params` leaves out
            _declutter(parameter, help_panel=None if command is root else OUTPUT)
    return root


def _declutter(parameter: Any, *, help_panel: str | None) -> None:
    """Keep the help short: the variables follow one rule, and a switch needs no type."""
    parameter.show_envvar = False
    if parameter.name == "help":
        parameter.rich_help_panel = help_panel
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""


def run() -> None:
    """Run the command line and leave with its exit code: the entry point."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not (_screen_before_parsing(sys.argv[1:]).verbose or sys.warnoptions):
        _silence_libraries()
    answer_termination()
    code = main()
    _guarded(sys.stdout.flush)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing escapes but a request to exit."""
    words = tuple(sys.argv[1:] if arguments is None else arguments)
    screen, own = _screen_before_parsing(words), of_launcher()
    screen.mute = not own.is_main
    forget_termination()
    try:
        return _run(words, screen, is_main=own.is_main)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the outermost boundary: told, and made a code
        failure = _as_prune_error(error)
        told = exit_code_told(failure, own)
        if told is not None:
            return told
        try:
            _guarded(screen.fail, failure, command=_command_name(words))
        except BaseException:  # noqa: BLE001 - there is no memory or no disk to say it properly
            end_at_once(f"{failure.message} ({failure.code})", failure.exit_code)
        return failure.exit_code


def _run(words: tuple[str, ...], screen: Screen, *, is_main: bool) -> int:
    """Run a verb, remember its output, and show what came of it."""
    outcome = _invoke(Session(words, screen))
    leave()
    if not isinstance(outcome, Outcome):
        return outcome
    if is_main and outcome.output is not None and outcome.output.is_file():
        record(outcome.output, command=outcome.command)
    _guarded(screen.show, outcome)
    return outcome.exit_code


def _invoke(session: Session) -> Outcome | int:
    """Parse and run a verb; an int is the exit code of `--help`, `--version` and completion."""
    result = root_command().main(
        list(session.words), prog_name="prunecli", standalone_mode=False, obj=session
    )
    if result == interrupted().exit_code:  # the parser turns Ctrl-C into this number
        raise interrupted()
    return result if isinstance(result, Outcome) else int(result or 0)


def _screen_before_parsing(words: Sequence[str]) -> Screen:
    """Guess how to talk, so that an error in the options themselves is told in the same way."""
    own = words[: words.index("--")] if "--" in words else words
    screen = Screen(
        json="--json" in own or _switched_on("PRUNECLI_JSON"),
        quiet="--quiet" in own or "-q" in own,
        verbose="--verbose" in own or _switched_on("PRUNECLI_TRACEBACK"),
    )
    github = _value_after("--format", own) or os.environ.get("PRUNECLI_FORMAT")
    junit = _value_after("--junit", own)
    screen.report_to(
        github=github == GITHUB, junit=None if junit is None else Path(junit), words=tuple(words)
    )
    return screen


def _value_after(flag: str, words: Sequence[str]) -> str | None:
    """Return the value of an option in words that nobody has parsed yet."""
    for word, after in zip(words, (*words[1:], None), strict=False):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in {"", "0", "false", "no", "off"}


def _command_name(words: Sequence[str]) -> str | None:
    return next((word for word in words if word in root_command().commands), None)


def _as_prune_error(error: BaseException) -> PruneError:
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        error = interrupted()
    if isinstance(error, InterruptedRunError) and was_terminated():
        return TerminatedRunError(
            error.message, code="TERMINATED", where=error.where, hint=error.hint
        )
    if isinstance(error, PruneError):
        return error
    if is_lost(error):
        return lost_process()
    # The class of parser errors has no public name in typer; what it can do identifies it.
    if callable(getattr(error, "format_message", None)):
        return _as_usage_error(error)
    if is_out_of_memory(error):
        wrapped = no_memory()
    elif isinstance(error, ImportError):
        wrapped = InputError(
            f"a library cannot be loaded: {first_line(error)}",
            code="IMPORT_FAILED",
            hint="allow the process more memory (ulimit -v), or install prunecli again",
        )
    elif isinstance(error, OSError):
        wrapped = InputError(
            error.strerror or str(error),
            code="FILE_ERROR",
            where=None if error.filename is None else str(error.filename),
            hint="check the path, its permissions and the free space",
        )
    else:
        wrapped = InputError(
            f"internal error: {type(error).__name__}: {error}",
            code="INTERNAL_ERROR",
            hint="this is a fault of prunecli: run again with --verbose and report what it prints, "
            "with the output of 'prunecli env'",
        )
    wrapped.__cause__ = error
    return wrapped


def _as_usage_error(error: Any) -> InputError:
    """Return a parser's error with the place that its value came from."""
    context = getattr(error, "ctx", None)
    path = "prunecli" if context is None else context.command_path
    message = str(error.format_message()).strip().rstrip(".")
    parameter = getattr(error, "param", None)
    source = None
    if context is not None and parameter is not None:
        source = context.get_parameter_source(parameter.name)
    variable = f"PRUNECLI_{getattr(parameter, 'name', '')}".upper()
    origin = {
        "ENVIRONMENT": f"the value is that of {variable}; ",
        "DEFAULT_MAP": "the value is set in pyproject.toml; ",
    }.get(getattr(source, "name", ""), "")
    return usage_error(message, hint=f"{origin}see '{path} --help'")


def _guarded(print_it: Any, *arguments: Any, **options: Any) -> None:
    """Print, and let a reader that went away (`| head -1`) be no error: the work is done."""
    try:
        print_it(*arguments, **options)
    except BrokenPipeError:
        _give_up_output()
    except OSError:  # a full disk behind a redirection: told, and not once more at the end
        _give_up_output()
        raise


def _give_up_output() -> None:
    """Drop what is left for stdout: it would raise again when the interpreter closes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _silence_libraries() -> None:
    """Keep the warnings of libraries for `--verbose`: prunecli words its own."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.lastResort = None
