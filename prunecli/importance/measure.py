"""Ask for an importance by name, and how much two of them agree."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.allocation import RECONSTRUCTION
from prunecli.preflight.pruning import chosen_importance, no_importance_images
from prunecli.progress import Progress, silent
from prunecli.registry import Registry
from prunecli.signals.oracle import spearman

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prunecli.allocation import Saliency
    from prunecli.evaluation.batches import Batches, BatchSource
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

Numbers = NDArray[np.float64]

SMALLEST = 0.01
"""The part of what there is in all that a layer is given at least: none is worth nothing."""


@dataclass(frozen=True)
class Measured:
    """What an importance may look at: the network, its saliencies, and images with labels."""

    network: Network
    saliency: Saliency
    batches: BatchSource | None
    progress: Progress = silent

    def images(self) -> Batches:
        """Return the batches, which are there for an importance that needs them."""
        assert self.batches is not None
        return self.batches()


@dataclass(frozen=True)
class Importance:
    """A way to tell how important every group is: one number each, NaN where it cannot see it."""

    function: Callable[[Measured], Numbers]
    needs_data: bool


IMPORTANCES: Registry[Importance] = Registry("importance")


def register(
    name: str, *, summary: str, needs_data: bool
) -> Callable[[Callable[[Measured], Numbers]], Callable[[Measured], Numbers]]:
    """Return the decorator that puts a function into `IMPORTANCES`."""

    def add(function: Callable[[Measured], Numbers]) -> Callable[[Measured], Numbers]:
        entry = Importance(function, needs_data)
        IMPORTANCES.add(name, entry, summary=summary, source=RECONSTRUCTION)
        return function

    return add


def check_importance(options: PruneOptions, batches: object) -> None:
    """Raise `InputError` for an importance that has no images to look at."""
    name = chosen_importance(options, data=batches is not None)
    if name is not None and IMPORTANCES.get(name).needs_data and batches is None:
        raise no_importance_images(name)


def importance_of(
    network: Network,
    saliency: Saliency,
    options: PruneOptions,
    batches: BatchSource | None,
    *,
    progress: Progress = silent,
) -> Numbers | None:
    """Return the importance of every group that an allocation uses; None where it uses none."""
    name = chosen_importance(options, data=batches is not None)
    if name is None:
        return None
    return measure_importance(name, Measured(network, saliency, batches, progress))


def uses_images(options: PruneOptions, *, data: bool) -> bool:
    """Tell whether the importance that an allocation uses looks at images."""
    name = chosen_importance(options, data=data)
    return name is not None and IMPORTANCES.get(name).needs_data


def measure_importance(name: str, measured: Measured) -> Numbers:
    """Return one importance per channel group; NaN for a group that `name` cannot see."""
    return IMPORTANCES.get(name).function(measured)


def agreements(found: Mapping[str, Numbers]) -> dict[str, float | None]:
    """Return Spearman's rank correlation of every two importances, over the groups both see."""
    result = {}
    for (first, own), (second, other) in itertools.combinations(found.items(), 2):
        seen = np.isfinite(own) & np.isfinite(other)
        value = spearman(own[seen], other[seen]) if seen.sum() > 1 else None
        result[f"{first}, {second}"] = value
    return result
