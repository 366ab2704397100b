"""Which task a run of training has: classes by labels, or a teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.options.finetune import OUTPUTS
from prunecli.preflight.training import nobody_to_follow
from prunecli.training.imitation import make_imitation
from prunecli.training.losses import Objective
from prunecli.training.task import Classes

if TYPE_CHECKING:
    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.options import FinetuneOptions
    from prunecli.training.task import Task, Teacher


@dataclass(frozen=True)
class Taught:
    """Who teaches, if anybody does; `classes` is how many its file says that it tells apart."""

    teacher: Teacher | None = None
    classes: int | None = None


def choose_task(
    student: nn.Module,
    taught: Taught,
    images: ImageSet,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    options: FinetuneOptions,
) -> Task:
    """Return the task of a run on images; raises what `make_imitation` raises, and `NO_TEACHER`."""
    if options.loss != OUTPUTS:
        return classes_task(options, taught.teacher)
    if taught.teacher is None:
        raise nobody_to_follow()
    return make_imitation(
        student,
        taught.teacher,
        images,
        input=input,
        match=options.match,
        temperature=options.temperature,
        classes=taught.classes,
    )


def classes_task(options: FinetuneOptions, teacher: Teacher | None) -> Classes:
    """Return the task of telling classes apart, as options say."""
    objective = Objective(options.temperature, options.alpha, options.label_smoothing)
    return Classes(objective, teacher)
