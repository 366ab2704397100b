"""What people type, read into what the library takes; a misfit is a usage error."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from prunecli.errors import InputError

CHECKPOINTS = (".pt", ".pth", ".safetensors")
_BYTES = re.compile(r"^([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?b|)$", re.IGNORECASE)
_SHAPE = re.compile(r"^(?:([A-Za-z_]\w*)=)?(\d+(?:x\d+)*)(?::(\w+))?$")
_SIZE = re.compile(r"^(\d+)(?:[x,](\d+))?$")


def usage_error(message: str, *, hint: str) -> InputError:
    """Return the error of a command line that cannot be followed."""
    return InputError(message, code="USAGE", hint=hint)


def share(option: str, text: str) -> float:
    """Read `0.9` or `90%` as a fraction between 0 and 1.

    >>> share("--min-accuracy", "90%")
    0.9
    """
    number = _number(option, text.removesuffix("%"))
    fraction = number / 100 if text.endswith("%") else number
    if not 0 <= fraction <= 1:
        _misfit(option, text, "a fraction between 0 and 1, or a percentage such as 90%")
    return fraction


def size(option: str, text: str) -> tuple[int, int]:
    """Read `224` or `224x192` as height and width."""
    match = _SIZE.match(text.strip().lower())
    if match is None or int(match[1]) == 0 or match[2] == "0":
        _misfit(option, text, "one number (224) or height x width (224x192)")
    return int(match[1]), int(match[2] or match[1])


def shapes(option: str, texts: Sequence[str]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Read `image=3x224x224` or `ids=77:int64` as names, shapes and types; a name may be missing.

    >>> shapes("--input-shape", ["image=3x8x8", "ids=77:int64"])
    (('image', (3, 8, 8), 'float32'), ('ids', (77,), 'int64'))
    """
    found = []
    for text in texts:
        match = _SHAPE.match(text.strip())
        sizes = tuple(int(size) for size in match[2].split("x")) if match else ()
        if match is None or 0 in sizes:
            _misfit(option, text, "a shape without the batch, such as 3x224x224 or ids=77:int64")
        found.append((match[1] or "", sizes, match[3] or "float32"))
    return tuple(found)


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Read `0.5,0.5,0.5` as numbers."""
    return tuple(_number(option, part) for part in text.split(","))


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


def bytes_text(count: int) -> str:
    """Write an amount of bytes as `byte_count` reads it.

    >>> bytes_text(10**9)
    '1GB'
    """
    power = next(power for power in (4, 3, 2, 1, 0) if count % 1000**power == 0)
    return f"{count // 1000**power}{' KMGT'[power].strip()}B"


def count_or_all(option: str, text: str) -> int | None:
    """Read a whole number above 0, or `all` as None.

    >>> count_or_all("--survey", "5000"), count_or_all("--survey", "all")
    (5000, None)
    """
    word = text.strip().lower()
    if word != "all" and not (word.isdecimal() and int(word) > 0):
        _misfit(option, text, "a whole number above 0, or all")
    return None if word == "all" else int(word)


def arguments(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Read `width=64` pairs; a value that is JSON is taken as such, all else as text.

    >>> arguments("--arch-arg", ["width=64", "norm=batch", "bias=false"])
    {'width': 64, 'norm': 'batch', 'bias': False}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            _misfit(option, pair, "name=value, such as num_classes=10")
        found[key.strip()] = _json_or_text(value.strip())
    return found


def renames(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """Read `my_head=fc` pairs; either side may be empty.

    >>> renames("--map", ["my_head=fc", "backbone="])
    {'my_head': 'fc', 'backbone': ''}
    """
    found: dict[str, str] = {}
    for pair in pairs:
        before, equals, after = (part.strip() for part in pair.partition("="))
        if not equals or before == after:
            _misfit(option, pair, "two names, such as my_head=fc")
        found[before.rstrip(".")] = after.rstrip(".")
    return found


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
