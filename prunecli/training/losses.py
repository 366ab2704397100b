"""What a network's output is compared with: labels, and a teacher when there is one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

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
    weights: Tensor | None = None,
) -> Tensor:
    """Return (1 - alpha) CE(student, labels) + alpha T^2 KL(teacher/T || student/T), a scalar.

    Logits are [n, classes]; the teacher's are detached; both terms are means over the n images, of
    weights [n] times theirs if there are any.
    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    hard = entropy(student_logits, labels, label_smoothing, weights)
    imitated = nn.functional.log_softmax(student_logits / temperature, dim=1)
    wanted = nn.functional.log_softmax(teacher_logits.detach() / temperature, dim=1)
    if weights is None:
        soft = nn.functional.kl_div(imitated, wanted, reduction="batchmean", log_target=True)
    else:
        apart = nn.functional.kl_div(imitated, wanted, reduction="none", log_target=True)
        soft = (weights * apart.sum(1)).mean()
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, weights: Tensor | None
) -> Tensor:
    """Return the mean cross-entropy over n images, of weights [n] times theirs if there are any."""
    if weights is None:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    apart = nn.functional.cross_entropy(
        logits, labels, label_smoothing=label_smoothing, reduction="none"
    )
    return (weights * apart).mean()


@dataclass(frozen=True)
class Objective:
    """The loss of one batch; without teacher logits it is cross-entropy alone."""

    temperature: float
    alpha: float
    label_smoothing: float

    def __call__(
        self,
        logits: Tensor,
        auxiliary: tuple[Tensor, ...],
        labels: Tensor,
        teacher: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of float32 `logits` [n, classes] and auxiliary ones alike.

        With `weights` [n] every image's part counts as often, those of a teacher too.
        """
        smoothing = self.label_smoothing
        if teacher is None:
            loss = entropy(logits, labels, smoothing, weights)
        else:
            loss = distillation_loss(
                logits,
                teacher,
                labels,
                temperature=self.temperature,
                alpha=self.alpha,
                label_smoothing=smoothing,
                weights=weights,
            )
        for extra in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * entropy(extra, labels, smoothing, weights)
        return loss
