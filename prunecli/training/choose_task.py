"""Which task a run of training has: classes by labels, masks, or a teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from prunecli.architectures.examples import example_tensors
from prunecli.architectures.inputs import check_takes_images
from prunecli.errors import InputError
from prunecli.evaluation.masks import check_masks, class_maps
from prunecli.graph.tracing.running import evaluating
from prunecli.options.finetune import OUTPUTS
from prunecli.preflight.training import nobody_to_follow
from prunecli.training.augment import GEOMETRIC
from prunecli.training.imitation import make_imitation
from prunecli.training.losses import Objective
from prunecli.training.segmentation import Masks
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
    if options.loss != OUTPUTS and images.has_masks:
        return Masks(
            options.temperature,
            options.alpha,
            taught.teacher,
            label_smoothing=options.label_smoothing,
        )
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


def check_task(
    model: nn.Module,
    *images: ImageSet,
    input: InputSpec,  # noqa: A002
    options: FinetuneOptions,
) -> None:
    """Raise `InputError` for masks that a model cannot learn, before any training."""
    if options.loss == OUTPUTS or not images[0].has_masks:
        return
    if options.augment not in GEOMETRIC:
        raise InputError(
            f"--augment {options.augment} changes images in a way that masks cannot follow",
            code="BAD_OPTION",
            hint=f"take one of: {', '.join(GEOMETRIC)}",
        )
    if options.record_learnability or options.curriculum or options.importance_sampling:
        raise InputError(
            "learnability is that of images with a label each, and these have masks",
            code="BAD_OPTION",
            hint="leave --record-learnability, --curriculum and --importance-sampling out",
        )
    maps = map_count(model, input)
    for part in images:
        check_masks(maps, part)


def map_count(model: nn.Module, spec: InputSpec) -> int:
    """Return how many classes a segmentation network tells apart, by running it once.

    Raises what `class_maps` and `check_takes_images` raise.
    """
    check_takes_images(spec)
    place = next((value.device for value in model.parameters()), torch.device("cpu"))
    with evaluating(model), torch.no_grad():
        return int(class_maps(model(example_tensors(spec)[0].to(place)))[0].shape[1])


def classes_task(options: FinetuneOptions, teacher: Teacher | None) -> Classes:
    """Return the task of telling classes apart, as options say."""
    objective = Objective(options.temperature, options.alpha, options.label_smoothing)
    return Classes(objective, teacher)
