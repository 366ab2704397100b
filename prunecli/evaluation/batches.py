"""The images of one run: those that choices are made on, and those that they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from prunecli.errors import InputError

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor]]
"""Normalised images `[n, channels, height, width]` with their labels `[n]`."""

BatchSource: TypeAlias = Callable[[], Batches]
"""Gives the same batches anew at every call: images are often passed over several times."""

HELD_OUT, CALIBRATION = "held_out", "calibration"
"""What reports call images that no choice was made on, and those that it was made on."""


@dataclass(frozen=True)
class Images:
    """What a run may look at.

    `scored_on` gives the images that signals and repairs look at, `measured_on` those that the
    results are measured on: others, so that nothing is praised for what it has seen. Either may be
    missing.
    """

    scored_on: BatchSource | None = None
    measured_on: BatchSource | None = None

    @property
    def judged_on(self) -> BatchSource | None:
        """What results are measured on: images held out, or else those that were looked at."""
        return self.measured_on or self.scored_on

    @property
    def measured(self) -> str:
        """Which of the two `judged_on` gives, as reports say it."""
        return CALIBRATION if self.measured_on is None else HELD_OUT


NO_IMAGES = Images()


def count_images(batches: BatchSource) -> int:
    """Return how many images there are."""
    return sum(len(images) for images, _ in batches())


def first_images(batches: BatchSource, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches until they hold `count` images; of the last one as many as are missing."""
    for images, labels in batches():
        yield images[:count], labels[:count]
        count -= len(labels)
        if count <= 0:
            return


def check_any(count: int, split: str) -> None:
    """Raise `NO_IMAGES` where there is nothing to evaluate on."""
    if not count:
        raise InputError(
            f"there is no image to evaluate in the {split} split",
            code="NO_IMAGES",
            hint="give a data set with images to test on",
        )
