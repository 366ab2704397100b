"""Loss and accuracy of a network on batches of images, for every part that has to know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.evaluation.outputs import check_label_range, first_tensor, image_losses
from prunecli.graph.tracing.running import evaluating

if TYPE_CHECKING:
    from prunecli.evaluation.batches import BatchSource

NO_TENSORS: Mapping[str, Tensor] = {}

TEMPERATURES = torch.logspace(-2, 8, 41, base=2, dtype=torch.float64)
"""What logits are divided by to find the calibrated loss: a quarter of an octave apart."""

UNTEMPERED = torch.ones(0, dtype=torch.float64)

LossSum: TypeAlias = Callable[[Tensor, Tensor], float]
"""How the loss of a batch is summed. Sums of float32 depend on their order in the last bits."""


def sum_at_once(logits: Tensor, labels: Tensor) -> float:
    """Return the loss of a batch, summed by the loss itself in float32."""
    return float(functional.cross_entropy(logits.float(), labels, reduction="sum"))


def sum_of_images(logits: Tensor, labels: Tensor) -> float:
    """Return the loss of a batch, as the float32 sum of the losses of its images."""
    return float(image_losses(logits.float(), labels).sum())


def exact_sum(logits: Tensor, labels: Tensor) -> float:
    """Return the loss of a batch, summed in float64: for differences smaller than float32 tells."""
    return float(image_losses(logits, labels).double().sum())


class UnscorableError(InputError):
    """A network or images without a loss: what is no classifier, or no images at all."""


@dataclass(frozen=True)
class Scores:
    """The mean loss over images, and the share that was right.

    `calibrated` is the least mean loss at any of the temperatures that were asked for.
    """

    loss: float
    accuracy: float
    images: int
    calibrated: float | None = None


def score_on(
    network: nn.Module,
    batches: BatchSource,
    *,
    tensors: Mapping[str, Tensor] = NO_TENSORS,
    summed: LossSum = sum_at_once,
    temperatures: Tensor = UNTEMPERED,
) -> Scores:
    """Score a network in evaluation mode; `tensors` take the place of its own.

    Raises `UnscorableError` (`NOT_A_CLASSIFIER`, `NO_IMAGES`), and `InputError`
    (`CLASS_COUNT_MISMATCH`) for a label that there is no logit for.
    """
    loss, right, count = 0.0, 0, 0
    tempered = torch.zeros(len(temperatures), dtype=torch.float64)
    with evaluating(network), torch.no_grad():
        for images, labels in batches():
            output = functional_call(network, dict(tensors), (images,)) if tensors else None
            logits = first_tensor(network(images) if output is None else output)
            check_answers(logits, labels)
            loss += summed(logits, labels)
            for at, temperature in enumerate(temperatures.tolist()):
                tempered[at] += sum_at_once(logits.float() / temperature, labels)
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    if not count:
        raise UnscorableError(
            "there are no images to score the model on",
            code="NO_IMAGES",
            hint="give a data set with images to train on",
        )
    calibrated = float(tempered.min()) / count if len(temperatures) else None
    return Scores(loss / count, right / count, count, calibrated)


def check_answers(logits: Tensor, labels: Tensor) -> None:
    """Raise where a batch of outputs is not one row of class scores per image, or lacks a class."""
    if logits.dim() != 2 or labels.dim() != 1:
        raise UnscorableError(
            "loss and accuracy need logits [images, classes]; this model's first output is "
            f"{list(logits.shape)}",
            code="NOT_A_CLASSIFIER",
            hint="leave out what is measured on images (--repair, --signal auto, a sweep): only "
            "classifiers can be",
        )
    check_label_range(tuple(logits.shape), labels)
