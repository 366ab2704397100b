"""What people type, read into what the library takes; a misfit is a usage error."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from prunecli.errors import InputError
from prunecli.options import LoadOptions

CHECKPOINTS = (".pt", ".pth", ".safetensors")
_BYTES = re.compile(r"^([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?b|)$", re.IGNORECASE)
_SIZE = re.compile(r"^(\d+)(?:[x,](\d+))?$")


def usage_error(message: str, *, hint: str) -> InputError:
    """Return the error of a command line that cannot be followed."""
    return InputError(message, code="USAGE", hint=hint)


def is_typed(context: typer.Context, name: str) -> bool:
    """Tell whether an option was typed; a setting of the project is no contradiction."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_idle(context: typer.Context, names: Collection[str], what: str, *, hint: str) -> None:
    """Raise the usage error of an option that was typed where it does nothing."""
    for parameter in context.command.params:
        if parameter.name in names and is_typed(context, parameter.name):
            raise usage_error(f"{parameter.opts[0]} {what}", hint=hint)


def share(option: str, text: str | None) -> float | None:
    """Read `0.9` or `90%` as a fraction between 0 and 1.

    >>> share("--min-accuracy", "90%")
    0.9
    """
    if text is None:
        return None
    number = _number(option, text.removesuffix("%"))
    fraction = number / 100 if text.endswith("%") else number
    if not 0 <= fraction <= 1:
        _misfit(option, text, "a fraction between 0 and 1, or a percentage such as 90%")
    return fraction


def size(option: str, text: str | None) -> tuple[int, int] | None:
    """Read `224` or `224x192` as height and width."""
    if text is None:
        return None
    match = _SIZE.match(text.strip().lower())
    if match is None or int(match[1]) == 0 or match[2] == "0":
        _misfit(option, text, "one number (224) or height x width (224x192)")
    return int(match[1]), int(match[2] or match[1])


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read `0.5,0.5,0.5` as numbers."""
    return None if text is None else tuple(_number(option, part) for part in text.split(","))


def counts(option: str, text: str) -> tuple[int, ...]:
    """Read `1,8` as whole numbers above 0."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        _misfit(option, text, "whole numbers above 0 with commas between, such as 1,8")
    return tuple(dict.fromkeys(int(part) for part in parts))


def names(option: str, text: str) -> tuple[str, ...]:
    """Read `cpu,cuda` as words."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        _misfit(option, text, "words with commas between, such as cpu,cuda")
    return tuple(dict.fromkeys(parts))


def byte_count(option: str, text: str) -> int:
    """Read `512MB` or `2GiB` as bytes.

    >>> byte_count("--memory", "512MB")
    512000000
    """
    match = _BYTES.match(text.strip())
    if match is None or float(match[1]) <= 0:
        _misfit(option, text, "an amount of bytes, such as 512MB or 2GB")
    base = 1024 if match[3].lower() == "ib" else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def count_or_all(option: str, text: str) -> int | None:
    """Read a whole number above 0, or `all` as None.

    >>> count_or_all("--survey", "5000"), count_or_all("--survey", "all")
    (5000, None)
    """
    word = text.strip().lower()
    if word != "all" and not (word.isdecimal() and int(word) > 0):
        _misfit(option, text, "a whole number above 0, or all")
    return None if word == "all" else int(word)


def arguments(option: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read `width=64` pairs; a value that is JSON is taken as such, all else as text.

    >>> arguments("--arch-arg", ["width=64", "norm=batch", "bias=false"])
    {'width': 64, 'norm': 'batch', 'bias': False}
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            _misfit(option, pair, "name=value, such as num_classes=10")
        found[key.strip()] = _json_or_text(value.strip())
    return found


def load_options(
    *,
    arch: str | None,
    arch_arg: Sequence[str] | None,
    input_size: str | None,
    mean: str | None,
    std: str | None,
    allow_pickle: bool,
) -> LoadOptions:
    """Gather the options that say how a checkpoint is read."""
    if arch_arg and arch is None:
        raise usage_error("--arch-arg was given without --arch", hint="add --arch NAME")
    return LoadOptions(
        architecture=arch,
        architecture_args=arguments("--arch-arg", arch_arg),
        input_size=size("--input-size", input_size),
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        allow_pickle=allow_pickle,
    )


def output_path(given: Path | None, *, model: Path, ending: str) -> Path:
    """Return the path to write: what was given, else `<stem><ending>` in the current folder."""
    return given if given is not None else Path(f"{model.stem}{ending}")


def checkpoint_path(given: Path | None, *, model: Path, ending: str) -> Path:
    """Return the checkpoint to write; refuse a name of no format before any work is done."""
    path = output_path(given, model=model, ending=ending)
    if path.suffix.lower() not in CHECKPOINTS:
        raise InputError(
            f"cannot write the output: the suffix {path.suffix!r} names no format",
            code="UNWRITABLE_OUTPUT",
            where=str(path),
            hint=f"end the name in one of {', '.join(CHECKPOINTS)}",
        )
    return path


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _misfit(option, text, "a number")


def _misfit(option: str, text: str, expected: str) -> NoReturn:
    raise usage_error(f"{option} {text!r} cannot be read", hint=f"give {expected}")
