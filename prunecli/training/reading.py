"""How the batches of an epoch are read: from memory, or image by image ahead of the training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prunecli.data import Change, StreamedImageSet, changed
from prunecli.training.recipe import Recipe, derive_seed

if TYPE_CHECKING:
    from prunecli.training.sampling import Gather

PICTURE = -2
"""Where a step's number would be, in the seeds of what pictures are changed by."""


def gather(recipe: Recipe, epoch: int) -> Gather | None:
    """Return what reads batches where each image is changed by itself, or processes decode."""
    augmentation, workers = recipe.augmentation, worker_count(recipe)
    streamed = isinstance(recipe.images, StreamedImageSet) and not recipe.images.has_masks
    if not (augmentation.changes_pictures or (streamed and workers)):
        return None
    seed = recipe.options.seed
    change = Change(
        augmentation.picture,
        lambda position: derive_seed(seed, epoch, PICTURE, position),
        whole=augmentation.whole,
    )
    return lambda batches: changed(recipe.images, batches, change, workers=workers)


def worker_count(recipe: Recipe) -> int:
    """Return how many processes decode: as many as asked for, or what a GPU can be fed by."""
    asked = recipe.options.workers
    if asked is not None:
        return asked
    if recipe.accelerator.device.type == "cpu":
        return 0
    return min((os.cpu_count() or 1) // recipe.processes.count, 8)
