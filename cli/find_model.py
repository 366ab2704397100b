"""Which checkpoint a verb works on when none is named: the pipe's, or this folder's newest."""

import json
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunecli.atomic import atomic_write
from prunecli.errors import InputError, PruneError
from prunecli.files import read_json

FOLDER = ".prunecli"
STATE = "last.json"
KEPT_RUNS = 20
PATIENCE = 30.0  # seconds of silence after which a waiting verb says what it waits for

Say = Callable[[str], None]


def find_checkpoint(given: Path | None, *, say: Say, exported: bool = False) -> Path:
    """Return the path that a verb works on.

    A path on the command line comes first, then one on piped stdin, then the newest output of this
    folder that is still there (what `export` wrote only where `exported`), which `say` announces.
    """
    if given is not None and str(given) != "-":
        return given
    if given is not None or is_piped():
        text = read_pipe(say)
        if text is not None:
            return path_from(text)
    newest = next(outputs(exported=exported), None)
    if newest is None:
        raise InputError(
            "no model was given, nothing is piped in, and no earlier output is in this folder",
            code="NO_MODEL",
            hint="name a checkpoint: prunecli <verb> model.pt",
        )
    say(f"working on {newest}, the newest output of the last run in this folder")
    return newest


def is_piped() -> bool:
    """Return whether stdin carries something: a pipe or a file, but not a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without a file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISREG(mode) and _has_bytes())


def read_pipe(say: Say) -> str | None:
    """Return what stdin carries, once its writer is done; None where there is no stdin."""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], PATIENCE)
        if not ready:
            say("waiting for a checkpoint path on standard input")
        return sys.stdin.read()
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def path_from(text: str) -> Path:
    """Read what a verb printed: one path on a line, or the JSON envelope that holds it."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(
            "standard input is a pipe, and nothing came through it",
            code="EMPTY_PIPE",
            where="stdin",
            hint="the command before the pipe failed or wrote nothing; see its message, "
            "or name the model instead",
        )
    if lines[0].lstrip().startswith("{"):
        return _path_in_envelope(text)
    if len(lines) > 1:
        raise InputError(
            f"standard input holds {len(lines)} lines, expected one path",
            code="BAD_PIPE",
            where="stdin",
            hint="pipe one checkpoint path at a time",
        )
    return Path(lines[0].rstrip("\r\n"))


def outputs(folder: Path | None = None, *, exported: bool = True) -> Iterator[Path]:
    """Yield the outputs recorded in `folder` that are still there, newest first.

    What `export` wrote can be evaluated only; it comes where `exported`.
    """
    for entry in reversed(_recorded(_state(folder))):
        if entry.get("command") == "export" and not exported:
            continue
        output = entry.get("output")
        if isinstance(output, str) and "\0" not in output:
            path = Path(output)
            if (folder or Path()).joinpath(path).is_file():
                yield path


def record(output: Path, *, command: str, folder: Path | None = None) -> bool:
    """Remember an output of this folder; return False where the folder cannot be written."""
    path = _state(folder)
    entry = {"command": command, "output": str(output)}
    earlier = [item for item in _recorded(path) if item.get("output") != str(output)]
    state = {"schema_version": 1, "outputs": [*earlier, entry][-KEPT_RUNS:]}
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    except (OSError, PruneError):
        return False
    return True


def _path_in_envelope(text: str) -> Path:
    try:
        envelope = json.loads(text)
        output = envelope["data"]["output"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            "the JSON on standard input holds no output path",
            code="BAD_PIPE",
            where="stdin",
            hint="pipe what 'prunecli prune' or 'prunecli finetune' printed",
        ) from error
    if not envelope.get("ok") or not output:
        raise InputError(
            "the command before the pipe did not succeed",
            code="EMPTY_PIPE",
            where="stdin",
            hint="see its message, or name the model instead",
        )
    return Path(output)


def _has_bytes() -> bool:
    return os.fstat(sys.stdin.fileno()).st_size > 0


def _state(folder: Path | None) -> Path:
    return (folder or Path()) / FOLDER / STATE


def _recorded(path: Path) -> list[dict[str, Any]]:
    """Return the recorded entries; a state file that cannot be read counts as empty."""
    try:
        entries = read_json(path)["outputs"]
        return [entry for entry in entries if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, PruneError):
        return []
