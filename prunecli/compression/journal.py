"""What is kept of a search, so that one that was stopped goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
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
class Cut:
    """A pruned model that is kept in `file`, before it is trained.

    `budget` is what it was pruned to, as typed; `kept` are the shares of the original's costs.
    """

    strength: float
    budget: str
    file: str
    kept: Mapping[str, float]
    speedup: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Journal:
    """The file of a search: `asked` is what tells it from others, `attempts` what was tried.

    `model` is the SHA-256 of the original.

    `scale` tightens budgets by what was measured (`Wishes.budget`), `dense` are the costs of the
    original; empty before anything was cut.
    """

    path: Path
    asked: Mapping[str, Any]
    model: str = ""
    cuts: tuple[Cut, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    scale: Mapping[str, float] = field(default_factory=dict)
    dense: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it lies, with everything that is tried."""
        return self.path.parent

    def of_model(self, sha256: str) -> Journal:
        """Return the journal of a search for a smaller model; raise if it was begun with another.

        The error is an `InputError` (`OTHER_SEARCH`).
        """
        if self.model not in ("", sha256):
            raise _other(self.folder, "model")
        return dataclasses.replace(self, model=sha256)

    def cut_at(self, strength: float) -> Cut | None:
        """Return the model that was pruned to a strength, if its file still is there."""
        found = (one for one in self.cuts if one.strength == strength)
        return next((one for one in found if (self.folder / one.file).exists()), None)

    def tried_at(self, strength: float, epochs: int) -> Attempt | None:
        """Return the attempt at a strength that was trained that long, if its file is there."""
        found = (one for one in self.attempts if one.strength == strength and one.epochs >= epochs)
        return next((one for one in found if (self.folder / one.file).exists()), None)

    def write(self) -> None:
        """Write it; raises `InputError` where that cannot be."""
        told = {**dataclasses.asdict(self), "schema": SCHEMA}
        del told["path"]
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(told, indent=1, sort_keys=True), encoding="utf-8")


def open_journal(
    folder: Path, asked: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Journal:
    """Return the journal of a search: a new one, or the one that is to go on.

    With `overwrite`, what an earlier search left in its folder is removed. Raises `InputError`:
    `UNFINISHED_RUN` where one is there and nothing is said of it, `OTHER_SEARCH` where that was for
    something else, `NO_RUN` where there is none, `OUTPUT_EXISTS` for a folder of something else.
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
    if not found and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "the folder for what is tried holds something else",
            code="OUTPUT_EXISTS",
            where=str(folder),
            hint="move it away, or give another output (--out)",
        )
    if resume:
        return _read(path, new)
    if found:  # states of trainings and pruned models of another search would be taken for ours
        shutil.rmtree(folder)
    return new


def _read(path: Path, new: Journal) -> Journal:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        read = dataclasses.replace(
            new,
            model=str(told["model"]),
            cuts=tuple(Cut(**_with_warnings(one)) for one in told["cuts"]),
            attempts=tuple(Attempt(**_with_warnings(one)) for one in told["attempts"]),
            scale=dict(told["scale"]),
            dense=dict(told["dense"]),
        )
        before = dict(told["asked"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the journal of the search cannot be read: {error}",
            code="CORRUPT_FILE",
            where=str(path),
            hint="start from the beginning: --overwrite",
        ) from error
    changed = sorted(name for name, value in new.asked.items() if before.get(name) != value)
    if changed:
        raise _other(path.parent, ", ".join(changed))
    return read


def _other(folder: Path, what: str) -> InputError:
    return InputError(
        f"the search was begun with another {what}",
        code="OTHER_SEARCH",
        where=str(folder),
        hint="repeat the options of the first run, or start from the beginning (--overwrite)",
    )


def _with_warnings(told: Mapping[str, Any]) -> dict[str, Any]:
    return {**told, "warnings": tuple(told["warnings"])}
