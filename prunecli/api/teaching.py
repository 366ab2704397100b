"""Who teaches a module that is trained while or after it is pruned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.options import LoadOptions
from prunecli.options.prune import ITERATIVE
from prunecli.options.shared import teacher_file
from prunecli.report import TeacherReport

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.options import PruneOptions
    from prunecli.pruning.road import PruneResult


def teacher_of(
    model: nn.Module, options: PruneOptions, teacher: nn.Module | str | None
) -> tuple[nn.Module | None, InputSpec | None, TeacherReport | None]:
    """Return the teacher that was given, that in a file with its own input, or the model itself."""
    if isinstance(teacher, nn.Module):
        return teacher, None, TeacherReport("named", None)
    asked = options.training.teacher if teacher is None else Path(teacher)
    if asked is None:
        if options.method == ITERATIVE:
            return None, None, None
        return model, None, TeacherReport("itself", None)
    file = teacher_file(asked)
    if file is None:
        return None, None, None
    taught = read(file, LoadOptions()).checkpoint
    return instantiate(taught), taught.input, TeacherReport("named", file)


def with_teacher(result: PruneResult, teacher: TeacherReport | None) -> PruneResult:
    """Return a result whose report says who taught."""
    if result.report.learning is None:
        return result
    learning = dataclasses.replace(result.report.learning, taught_by=teacher)
    report = dataclasses.replace(result.report, learning=learning)
    return dataclasses.replace(result, report=report)
