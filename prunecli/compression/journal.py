"""What is kept of a search, so that one that was stopped goes on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.atomic import atomic_write
from prunecli.errors import InputError
from prunecli.report import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JOURNAL = "search.json"
SCHEMA = 1


@dataclass(frozen=True)
class Journal:
    """The file of a search: `asked` is what tells it from others, `attempts` what was tried.

    `scale` tightens budgets by what was measured (`Wishes.budget`), `dense` are the costs of the
    original; empty before anything was tried.
    """

    path: Path
    asked: Mapping[str, Any]
    attempts: tuple[Attempt, ...] = ()
    scale: Mapping[str, float] = dataclasses.field(default_factory=dict)
    dense: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    def write(self) -> None:
        """Write it; raises `InputError` where that cannot be."""
        told = {
            "schema": SCHEMA,
            "asked": self.asked,
            "scale": self.scale,
            "dense": self.dense,
            "attempts": [dataclasses.asdict(one) for one in self.attempts],
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(told, indent=1, sort_keys=True), encoding="utf-8")


def open_journal(
    folder: Path, asked: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Journal:
    """Return the journal of a search: a new one, or the one that is to go on.

    Raises `InputError`: `UNFINISHED_RUN` where one is there and nothing is said of it,
    `OTHER_SEARCH` where that was for something else, `NO_RUN` where there is none.
    """
    path = folder / JOURNAL
    new = Journal(path, json.loads(json.dumps(asked)))
    found = path.exists()
    if resume and not found:
        raise InputError(
            "there is no search to go on with",
            code="NO_RUN",
            where=str(folder),
            hint="leave --resume out",
        )
    if found and not (resume or overwrite):
        raise InputError(
            "an unfinished search exists in its folder",
            code="UNFINISHED_RUN",
            where=str(folder),
            hint="go on with it (--resume), or start from the beginning (--overwrite)",
        )
    return _read(path, new) if resume else new


def _read(path: Path, new: Journal) -> Journal:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        attempts = tuple(Attempt(**one) for one in told["attempts"])
        read = dataclasses.replace(
            new, attempts=attempts, scale=dict(told["scale"]), dense=dict(told["dense"])
        )
        before = told["asked"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the journal of the search cannot be read: {error}",
            code="CORRUPT_FILE",
            where=str(path),
            hint="start from the beginning: --overwrite",
        ) from error
    changed = sorted(name for name, value in new.asked.items() if before.get(name) != value)
    if changed:
        raise InputError(
            f"the search was begun with another {', '.join(changed)}",
            code="OTHER_SEARCH",
            where=str(path.parent),
            hint="repeat the options of the first run, or start from the beginning (--overwrite)",
        )
    return read
