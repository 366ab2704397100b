"""Who teaches a module that is trained while or after it is pruned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.options import LoadOptions
from prunecli.options.methods import ITERATIVE
from prunecli.options.shared import teacher_file
from prunecli.report import TeacherReport
from prunecli.verbs.images import check_teacher, class_count

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.options import PruneOptions
    from prunecli.pruning.road import PruneResult


@dataclass(frozen=True)
class Taught:
    """The teacher, with its own input where that is another, and what the report says of it."""

    model: nn.Module | None = None
    input: InputSpec | None = None
    report: TeacherReport | None = None


NOBODY = Taught()


def teacher_of(
    model: nn.Module,
    options: PruneOptions,
    teacher: nn.Module | str | None,
    *,
    input: InputSpec,  # noqa: A002
) -> Taught:
    """Return the teacher that was given, that in a file with its own input, or the model itself.

    Raises `InputError` (`TEACHER_MISMATCH`) for one of other classes, before any work.
    """
    found = _found(model, options, teacher)
    if found.model is not None and found.model is not model:
        check_teacher(found.model, found.input or input, classes=class_count(model, input))
    return found


def _found(model: nn.Module, options: PruneOptions, teacher: nn.Module | str | None) -> Taught:
    if isinstance(teacher, nn.Module):
        return Taught(teacher, None, TeacherReport("named", None))
    asked = options.training.teacher if teacher is None else Path(teacher)
    if asked is None:
        itself = Taught(model, None, TeacherReport("itself", None))
        return NOBODY if options.method == ITERATIVE else itself
    file = teacher_file(asked)
    if file is None:
        return NOBODY
    taught = read(file, LoadOptions()).checkpoint
    return Taught(instantiate(taught), taught.input, TeacherReport("named", file))


def with_teacher(result: PruneResult, taught: Taught) -> PruneResult:
    """Return a result whose report says who taught."""
    if result.report.learning is None:
        return result
    learning = dataclasses.replace(result.report.learning, taught_by=taught.report)
    report = dataclasses.replace(result.report, learning=learning)
    return dataclasses.replace(result, report=report)
