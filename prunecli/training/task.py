"""What a run trains for: the loss of a batch, and the score that the best epoch is chosen by.

Labels of classes are the first task (`Classes`); others have a file of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from prunecli.data import plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.images import check_outputs, tally_batches, to_evaluation
from prunecli.evaluation.outputs import class_logits
from prunecli.training.hits import EVALUATION_BATCH

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.processes import Processes
    from prunecli.progress import Progress
    from prunecli.report import Evaluation
    from prunecli.training.losses import Objective


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode whose outputs are imitated, and how it takes its input."""

    model: nn.Module
    input: InputSpec
    memory_format: torch.memory_format


@dataclass(frozen=True)
class Judged:
    """A batch of n images: its loss, a scalar; its main output in float32; how right each is [n].

    `right` is 0 to 1, or a truth value.
    """

    loss: Tensor
    output: Tensor
    right: Tensor


class Task(Protocol):
    """What a network is trained for. All processes of a run call `evaluate` together."""

    @property
    def measure(self) -> str:
        """What the score is called: `accuracy`, `agreement`, ..."""

    def train_(self, model: nn.Module) -> None:
        """Put a network into the mode in which it is trained."""

    def run(self, model: nn.Module, bare: nn.Module, pixels: Tensor) -> Any:
        """Return what `judge` takes of a network in training; `bare` is it without a wrapping."""

    def teach(self, images: Tensor) -> Any:
        """Return what the teacher says of uint8 images as the student sees them, or None."""

    def judge(
        self, output: Any, labels: Tensor, taught: Any, weights: Tensor | None = None
    ) -> Judged:
        """Return the loss of a batch, in which image i counts `weights` [n] times."""

    def evaluate(
        self,
        model: nn.Module,
        images: ImageSet,
        *,
        input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
        device: torch.device,
        processes: Processes,
        progress: Progress,
    ) -> Evaluation:
        """Score a network on images, which the processes share."""


@dataclass(frozen=True)
class Classes:
    """Tell classes apart, as labels say and, if there is one, as a teacher does."""

    objective: Objective
    teacher: Teacher | None = None
    measure: str = "accuracy"

    def train_(self, model: nn.Module) -> None:
        """Put a network into training mode."""
        model.train()

    def run(self, model: nn.Module, bare: nn.Module, pixels: Tensor) -> Any:  # noqa: ARG002
        """Return what the network returns."""
        return model(pixels)

    def teach(self, images: Tensor) -> Tensor | None:
        """Return the teacher's logits for the batch that the student sees, or None without one."""
        if self.teacher is None:
            return None
        return class_logits(answer(self.teacher, images))[0]

    def judge(
        self, output: Any, labels: Tensor, taught: Tensor | None, weights: Tensor | None = None
    ) -> Judged:
        """Return the loss of a batch, and whether the largest logit is that of the label."""
        logits, auxiliary = class_logits(output)
        _check_teacher(logits, taught)
        loss = self.objective(logits, auxiliary, labels, taught, weights)
        true = labels if labels.ndim == 1 else labels.argmax(1)  # shares of mixed images
        return Judged(loss, logits, logits.detach().argmax(1) == true)

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
        """Return the accuracy on images."""
        batches = processes.share(plan_batches(len(images), EVALUATION_BATCH))
        tally = tally_batches(model, images, batches, input=input, device=device, progress=progress)
        images.hear(processes)
        return to_evaluation(tally.over(processes), images)


def answer(teacher: Teacher, images: Tensor) -> Any:
    """Return what a teacher returns for uint8 images, without gradients."""
    with torch.no_grad():
        pixels = normalise(images, teacher.input, memory_format=teacher.memory_format)
        return teacher.model(pixels)


def _check_teacher(logits: Tensor, taught: Tensor | None) -> None:
    """Raise `TEACHER_MISMATCH` unless both models have the same number of outputs."""
    if taught is not None:
        try:
            check_outputs(taught, logits.shape[1])
        except InputError as error:
            raise InputError(
                f"the teacher has {taught.shape[1]} outputs, the model {logits.shape[1]}",
                code="TEACHER_MISMATCH",
                hint="a teacher has the classes of its student",
            ) from error
