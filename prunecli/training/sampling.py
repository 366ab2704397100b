"""Which images an epoch goes through, and how much each counts: by learnability, if asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from prunecli.learnability import Known, curriculum_rows, importance_weights, known_images, pace
from prunecli.preflight.training import check_sampling
from prunecli.report import SamplingReport

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.data import ImageSet
    from prunecli.options import FinetuneOptions

Gather: TypeAlias = Callable[[Sequence[Tensor]], Iterator[tuple[Tensor, Tensor]]]

Draw: TypeAlias = Callable[[int, torch.Generator], Tensor]
"""(epoch from 0, a generator) -> the positions of as many images as there are, perhaps repeated."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """What an epoch is made of: `draw`, and `weights` [images] of every image in the loss.

    `digest` stands for what was known of the images; `report` and `warnings` are for people.
    """

    draw: Draw
    weights: Tensor | None
    digest: str
    report: SamplingReport
    warnings: tuple[str, ...]

    def weights_of(self, positions: Tensor) -> Tensor | None:
        """Return the weights of the images of a batch; None where all count alike."""
        return None if self.weights is None else self.weights[positions]


def make_sampling(options: FinetuneOptions, images: ImageSet) -> Sampling | None:
    """Return how the images are sampled; None for each once per epoch.

    Raises `InputError`: those of `check_sampling` and of `known_images`.
    """
    check_sampling(options)
    for name, make in SAMPLINGS.items():
        files = getattr(options, name)
        if files:
            known = known_images(files, images.paths, images.labels.numpy(), images.classes)
            return make(known, files, images, options)
    return None


def _curriculum(
    known: Known, files: Sequence[Path], images: ImageSet, options: FinetuneOptions
) -> Sampling:
    """Go through the easiest images of every class first, until all are in (`pace`).

    An epoch has as many updates as without: it goes through its images as often as that takes, so
    that runs with and without are compared at the same number of updates. Our reconstruction.
    """
    easiness, labels = known.filled(-1.0), images.labels.numpy()
    count = len(images)

    def draw(epoch: int, generator: torch.Generator) -> Tensor:
        share = pace(epoch, options.epochs)
        rows = torch.from_numpy(curriculum_rows(easiness, labels, share))
        again = torch.randperm(len(rows), generator=generator)[: count % len(rows)]
        return torch.cat([rows.repeat(count // len(rows)), rows[again]])

    shares = tuple(pace(epoch, options.epochs) for epoch in range(options.epochs))
    late = f"{known.unknown} of {count} images are in no record: they enter last"
    return Sampling(
        draw=draw,
        weights=None,
        digest=_digest(known),
        report=SamplingReport("curriculum", tuple(files), count, known.unknown, shares),
        warnings=(*known.warnings, *([late] if known.unknown else [])),
    )


def _importance(
    known: Known, files: Sequence[Path], images: ImageSet, _options: FinetuneOptions
) -> Sampling:
    """Draw hard images more often, with replacement, and count them less each time."""
    chances, weights = importance_weights(known.filled(known.mean))
    cumulative = torch.from_numpy(np.cumsum(chances))
    count = len(images)

    def draw(_epoch: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * cumulative[-1]
        return torch.searchsorted(cumulative, drawn, right=True).clamp_(max=count - 1)

    average = (
        f"{known.unknown} of {count} images are in no record: they are drawn like the mean one"
    )
    return Sampling(
        draw=draw,
        weights=torch.from_numpy(weights).float(),
        digest=_digest(known),
        report=SamplingReport(
            "importance sampling", tuple(files), count, known.unknown,
            weights=(float(weights.min()), float(weights.max())),
        ),
        warnings=(*known.warnings, *([average] if known.unknown else [])),
    )  # fmt: skip


SAMPLINGS: dict[str, Callable[[Known, Sequence[Path], ImageSet, FinetuneOptions], Sampling]] = {
    "curriculum": _curriculum,
    "importance_sampling": _importance,
}
"""By the option that asks for them."""


def with_positions(
    images: ImageSet, batches: Sequence[Tensor], gather: Gather | None = None
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield the number, positions, images and labels of every batch, without what is unreadable.

    `gather` reads the batches where the images do not do so themselves.
    Numbers count from 0 and leave out batches of which nothing could be read.
    """
    waiting = enumerate(batches)
    for pixels, labels in (gather or images.gather)(batches):
        at, batch = next(waiting)
        while not len(positions := images.readable(batch)):
            at, batch = next(waiting)
        yield at, positions, pixels, labels


def _digest(known: Known) -> str:
    return hashlib.sha256(known.easiness.tobytes()).hexdigest()[:16]
