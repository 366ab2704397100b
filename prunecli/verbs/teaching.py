"""Who teaches a training: the model that was named, the one it was pruned from, or nobody."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.artefacts.origin import choices_of, dense_architecture, find_origin, origin_of
from prunecli.errors import PruneError
from prunecli.options import LoadOptions
from prunecli.options.shared import teacher_file
from prunecli.report import TeacherReport
from prunecli.verbs.images import check_teacher
from prunecli.verbs.opened import Opened, open_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec


@dataclass(frozen=True)
class Taught:
    """The teacher, where there is one, and what the report says of it."""

    opened: Opened | None = None
    report: TeacherReport | None = None
    warnings: tuple[str, ...] = ()

    @property
    def model(self) -> nn.Module | None:
        """The module, in evaluation mode."""
        return None if self.opened is None else self.opened.model

    @property
    def classes(self) -> int | None:
        """How many classes its file says that it tells apart; None where it does not."""
        known = None if self.opened is None else self.opened.checkpoint.classes
        return None if known is None else len(known)

    @property
    def input(self) -> InputSpec | None:
        """What its images have to be like."""
        return None if self.opened is None else self.opened.checkpoint.input


NOBODY = Taught()


def named_teacher(teacher: Path, load: LoadOptions | None, *, classes: int | None) -> Taught:
    """Return the teacher that was named, or nobody for the word for that.

    It has to tell as many `classes` apart (None: whatever it returns is fine). Raises what
    `open_model` and `check_teacher` raise.
    """
    file = teacher_file(teacher)
    if file is None:
        return NOBODY
    opened = open_model(file, load)
    if classes is not None:
        check_teacher(opened.model, opened.checkpoint.input, classes=classes)
    return Taught(opened, TeacherReport("named", file))


def itself(opened: Opened, model: Path) -> Taught:
    """Return a model as the teacher of what it is pruned to."""
    return Taught(opened, TeacherReport("itself", model))


def teacher_from_history(opened: Opened, model: Path, *, classes: int | None) -> Taught:
    """Return the model that the one in the file `model` was pruned from, if it still is there.

    The file says where that is, and is not trusted: the other one is taken if it is the very same
    that was pruned (`prunecli.artefacts.origin`), and read without running any code. Otherwise
    there is no teacher, and a warning; none where the history knows of no cut.
    """
    origin = origin_of(opened.checkpoint)
    if origin is None:
        return NOBODY
    name = origin.name[:200]
    file = find_origin(origin, model)
    if file is None:
        return _without(f"{name}, which it was pruned from, is not where it was, or not the same")
    try:
        found = _opened(file, opened)
        if classes is not None:
            check_teacher(found.model, found.checkpoint.input, classes=classes)
    except PruneError as error:
        return _without(f"{name}, which it was pruned from, cannot teach it: {error.message}")
    return Taught(found, TeacherReport("history", file))


def _without(why: str) -> Taught:
    return Taught(warnings=(f"trained without a teacher: {why} (name one with --teacher MODEL)",))


def _opened(file: Path, pruned: Opened) -> Opened:
    """Read what a model was pruned from, for the images that this model takes.

    What was said of its weights when it was pruned holds again. The architecture that the model
    names is of use where a file fits several; code is not run for it, and only what is registered
    counts.
    """
    said = choices_of(pruned.checkpoint)
    load = dataclasses.replace(pruned.load or LoadOptions(), allow_pickle=False, **said)
    dense = dense_architecture(pruned.checkpoint)
    try:
        found = open_model(file, load)
    except PruneError as error:
        if error.code not in ("AMBIGUOUS_ARCHITECTURE", "UNKNOWN_ARCHITECTURE") or dense.is_factory:
            raise
        named = dataclasses.replace(
            load, architecture=dense.name, architecture_args=dict(dense.kwargs)
        )
        found = open_model(file, named)
    checkpoint = dataclasses.replace(found.checkpoint, input=pruned.checkpoint.input)
    return dataclasses.replace(
        found, loaded=dataclasses.replace(found.loaded, checkpoint=checkpoint)
    )
