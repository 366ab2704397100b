"""Tell classes apart at every pixel, as masks say and, if there is one, as a teacher does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.data.masks import IGNORED
from prunecli.errors import InputError
from prunecli.evaluation.masks import at_size, class_maps, evaluate_masks, mask_losses
from prunecli.evaluation.output_kinds import MAP, OutputKind
from prunecli.report import MEAN_IOU
from prunecli.training.losses import AUXILIARY_WEIGHT
from prunecli.training.output_losses import LOSSES
from prunecli.training.task import Judged, Teacher, answer

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.processes import Processes
    from prunecli.progress import Progress
    from prunecli.report import Evaluation


@dataclass(frozen=True)
class Masks:
    """Cross-entropy at every pixel that is not ignored, and softened KL from a teacher's maps."""

    temperature: float
    alpha: float
    teacher: Teacher | None = None
    label_smoothing: float = 0.0
    measure: str = MEAN_IOU

    def train_(self, model: nn.Module) -> None:
        """Put a network into training mode."""
        model.train()

    def run(self, model: nn.Module, bare: nn.Module, pixels: Tensor) -> Any:  # noqa: ARG002
        """Return what the network returns."""
        return model(pixels)

    def teach(self, images: Tensor) -> Tensor | None:
        """Return the teacher's maps for the batch that the student sees, or None without one."""
        return None if self.teacher is None else class_maps(answer(self.teacher, images))[0]

    def judge(
        self, output: Any, labels: Tensor, taught: Tensor | None, weights: Tensor | None = None
    ) -> Judged:
        """Return the loss of a batch of masks, and the share of pixels that is right."""
        maps, auxiliary = class_maps(output)
        each = mask_losses(maps, labels, self.label_smoothing)
        if taught is not None:
            if taught.shape != maps.shape:
                raise _mismatch(maps, taught)
            kind = OutputKind("maps", MAP, tuple(maps.shape[1:]), torch.ones(maps.shape[1]))
            soft = LOSSES[MAP].errors(maps, taught.detach(), kind, self.temperature)
            each = (1 - self.alpha) * each + self.alpha * soft
        for extra in auxiliary:
            each = each + AUXILIARY_WEIGHT * mask_losses(extra, labels, self.label_smoothing)
        loss = (each if weights is None else weights * each).mean()
        known = labels != IGNORED
        right = ((at_size(maps.detach(), labels).argmax(1) == labels) & known).flatten(1).sum(1)
        return Judged(loss, maps, right / known.flatten(1).sum(1).clamp(min=1))

    def evaluate(
        self,
        model: nn.Module,
        images: ImageSet,
        *,
        input: InputSpec,  # noqa: A002
        device: torch.device,
        processes: Processes,
        progress: Progress,
    ) -> Evaluation:
        """Return the mean intersection over union on images."""
        return evaluate_masks(
            model, images, input=input, device=device, processes=processes, progress=progress
        )


def _mismatch(own: Tensor, taught: Tensor) -> InputError:
    mine, its = ("x".join(map(str, value.shape[1:])) for value in (own, taught))
    return InputError(
        f"the teacher has maps of {its}, the model of {mine}",
        code="TEACHER_MISMATCH",
        hint="a teacher has the classes and the size of its student",
    )
