"""What a network's output is compared with: labels, and a teacher when there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunecli.errors import InputError

AUXILIARY_WEIGHT = 0.4
"""Weight of the loss of each auxiliary classifier (Szegedy et al. 2016; torchvision's recipe)."""


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return (1 - alpha) CE(student, labels) + alpha T^2 KL(teacher/T || student/T), a scalar.

    Logits are [n, classes]; the teacher's are detached; both terms are means over the n images.
    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    hard = nn.functional.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    soft = nn.functional.kl_div(
        nn.functional.log_softmax(student_logits / temperature, dim=1),
        nn.functional.log_softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft


@dataclass(frozen=True)
class Objective:
    """The loss of one batch; without teacher logits it is cross-entropy alone."""

    temperature: float
    alpha: float
    label_smoothing: float

    def __call__(
        self, logits: Tensor, auxiliary: tuple[Tensor, ...], labels: Tensor, teacher: Tensor | None
    ) -> Tensor:
        """Return the scalar loss of float32 `logits` [n, classes] and auxiliary ones alike."""
        smoothing = self.label_smoothing
        if teacher is None:
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        else:
            loss = distillation_loss(
                logits,
                teacher,
                labels,
                temperature=self.temperature,
                alpha=self.alpha,
                label_smoothing=smoothing,
            )
        for extra in auxiliary:
            extra_loss = nn.functional.cross_entropy(extra, labels, label_smoothing=smoothing)
            loss = loss + AUXILIARY_WEIGHT * extra_loss
        return loss


def class_logits(output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return (float32 logits [n, classes], those of auxiliary classifiers) from any model output.

    Understands a tensor, a (named) tuple whose `logits` or first field comes first, and a mapping
    with `logits` or `out`. Raises `InputError` (`NO_LOGITS`) for anything else.
    """
    if isinstance(output, Tensor):
        found = [output]
    elif isinstance(output, Mapping):
        found = [output[name] for name in ("logits", "out") if name in output][:1]
        found += [value for name, value in output.items() if "aux" in str(name)]
    elif hasattr(output, "logits"):
        rest = output if isinstance(output, tuple) else ()
        found = [output.logits, *(value for value in rest if value is not output.logits)]
    elif isinstance(output, tuple | list):
        found = list(output)
    else:
        found = []
    tensors = [value for value in found if isinstance(value, Tensor)]
    if not tensors or tensors[0].ndim != 2:
        described = f"shape {list(tensors[0].shape)}" if tensors else type(output).__name__
        raise InputError(
            f"the network does not return one row of class scores per image, but {described}",
            code="NO_LOGITS",
            hint="training and evaluation take classifiers with outputs [images, classes]",
        )
    logits, *others = tensors
    alike = tuple(other.float() for other in others if other.shape == logits.shape)
    return logits.float(), alike
