"""What a training has brought: scores before and after, on images that chose nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from prunecli.artefacts.instantiate import instantiate
from prunecli.evaluation.images import evaluate
from prunecli.report import AccuracyChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.processes import Processes
    from prunecli.progress import Progress
    from prunecli.report import OutputAgreement
    from prunecli.training import Imitation
    from prunecli.verbs.teaching import Taught


@dataclass(frozen=True)
class Scores:
    """What the model and its teacher score on the images that the result is reported on.

    `outputs` are those of a model that follows its teacher, one by one.
    """

    accuracy: AccuracyChange
    teacher: float | None
    warnings: tuple[str, ...]
    outputs: tuple[OutputAgreement, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The images that results are reported on, as the model takes them, shared by `processes`.

    `device` is where models look at them (None: `evaluate` chooses).
    """

    images: ImageSet
    input: InputSpec
    device: torch.device | None
    processes: Processes
    progress: Progress

    def by_labels(
        self,
        before: nn.Module,
        after: nn.Module,
        taught: Taught,
        images_for: Callable[[InputSpec], ImageSet],
    ) -> Scores:
        """Return accuracies, that of the teacher too."""
        score = partial(
            evaluate, device=self.device, processes=self.processes, progress=self.progress
        )
        first, last = (score(model, self.images, input=self.input) for model in (before, after))
        dense = None
        if taught.opened is not None:
            own = taught.opened.checkpoint.input
            # As it is stored, whatever training made of it.
            teacher = instantiate(taught.opened.checkpoint)
            dense = score(teacher, images_for(own), input=own).accuracy
        change = AccuracyChange(first.accuracy, last.accuracy, self.images.split, first.measure)
        return Scores(change, dense, self.images.warnings)

    def following(self, task: Imitation, before: nn.Module, after: nn.Module) -> Scores:
        """Return the agreement with the teacher."""
        found = []
        for model in (before, after):
            home = next((value.device for value in model.parameters()), torch.device("cpu"))
            model.to(task.device)
            try:
                found.append(
                    task.evaluate(
                        model,
                        self.images,
                        input=self.input,
                        device=task.device,
                        processes=self.processes,
                        progress=self.progress,
                    )
                )
            finally:
                model.to(home)
        first, last = found
        change = AccuracyChange(first.accuracy, last.accuracy, self.images.split, task.measure)
        return Scores(change, None, self.images.warnings, last.outputs)
