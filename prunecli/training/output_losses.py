"""By which loss an output follows a teacher's: one for each kind, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional

from prunecli.evaluation.output_kinds import (
    EMBEDDING,
    MAP,
    SCORES,
    VALUES,
    OutputKind,
    image_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class OutputLoss:
    """How outputs of a kind follow a teacher's: `errors` gives a loss for every image [n].

    It takes the output, that of the teacher, the kind and a temperature. `name` says what it is,
    with its source.
    """

    name: str
    errors: Callable[[Tensor, Tensor, OutputKind, float], Tensor]


def _softened(own: Tensor, its: Tensor, _: OutputKind, temperature: float) -> Tensor:
    imitated = functional.log_softmax(own.float() / temperature, dim=1)
    wanted = functional.log_softmax(its.float() / temperature, dim=1)
    apart = functional.kl_div(imitated, wanted, reduction="none", log_target=True).sum(1)
    return temperature**2 * apart.reshape(len(apart), -1).mean(1)


def _turned(own: Tensor, its: Tensor, _: OutputKind, __: float) -> Tensor:
    return 1 - functional.cosine_similarity(own.float(), its.float(), dim=1)


def _scaled(own: Tensor, its: Tensor, kind: OutputKind, _: float) -> Tensor:
    return image_errors(kind, own, its)


def _attended(own: Tensor, its: Tensor, _: OutputKind, __: float) -> Tensor:
    return attention_errors(own, its)


def attention_errors(own: Tensor, reference: Tensor) -> Tensor:
    """Return how far the attention maps of features [n, C, h, w] of any widths are apart [n].

    A map is the sum of squares over the channels, of length 1; the error is the squared distance.
    """
    one, other = (
        functional.normalize(value.float().square().mean(1).flatten(1), dim=1)
        for value in (own, reference)
    )
    return (one - other).square().sum(1)


LOSSES = {
    SCORES: OutputLoss("softened KL (Hinton et al. 2015)", _softened),
    MAP: OutputLoss("softened KL of every pixel (Liu et al. 2019)", _softened),
    EMBEDDING: OutputLoss("cosine (Duong et al. 2019)", _turned),
    VALUES: OutputLoss("scaled squared error (Ba, Caruana 2014)", _scaled),
}
"""By kind of output.

Softened KL is times the temperature squared. Liu et al.: Structured Knowledge Distillation for
Dense Prediction, arXiv 1903.04197. Duong et al.: ShrinkTeaNet, arXiv 1905.10620. Ba, Caruana: Do
Deep Nets Really Need to be Deep?, arXiv 1312.6184; scaled by the variance of every channel, so that
boxes in pixels and probabilities count alike.
"""

HINTS = OutputLoss("scaled squared error (hints, Romero et al. 2015)", _scaled)
"""For features of layers of equal width (arXiv 1412.6550)."""

ATTENTION = OutputLoss("attention (Zagoruyko, Komodakis 2017)", _attended)
"""For features of layers whose channels were removed: maps have none (arXiv 1612.03928)."""
