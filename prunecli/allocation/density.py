"""Densities from the shapes of weights (Erdos-Renyi-kernel), and what they mean for channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.layerwise import Numbers, proportional_shares
from prunecli.allocation.problem import ALLOCATIONS, Problem
from prunecli.allocation.uniform import LAST, largest_within
from prunecli.errors import GateError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.cost.model import Widths

Shape = tuple[int, ...]


def erdos_renyi_densities(shapes: Sequence[Shape], sparsity: float) -> Numbers:
    """Return the share of each weight tensor that stays, in proportion to sum(shape) / prod(shape).

    What would exceed 1 stays dense, and the rest share what is left of the total, so that
    `1 - sparsity` of all weights stay. Evci et al. 2020 (arXiv 1911.11134) name this ERK.

    >>> erdos_renyi_densities([(64, 3, 3, 3), (128, 64, 3, 3), (10, 128)], 0.9).round(4).tolist()
    [0.9967, 0.0634, 1.0]
    """
    sizes = _sizes(shapes, sparsity)
    dims = np.asarray([sum(shape) for shape in shapes], np.float64)
    total = (1.0 - sparsity) * sizes.sum()
    return proportional_shares(sizes, dims / sizes, total, low=0.0, high=1.0)


def uniform_plus_densities(shapes: Sequence[Shape], sparsity: float) -> Numbers:
    """Return the share of each weight tensor that stays: the first whole, a fifth of the last.

    All others keep the same share, and so does the last where that is more than a fifth. Raises
    `GateError` (`INFEASIBLE_BUDGET`) where the two ends alone are more than what may stay.
    """
    sizes = _sizes(shapes, sparsity)
    total = (1.0 - sparsity) * sizes.sum()
    least = np.zeros(sizes.size)
    least[-1] = LAST
    least[0] = 1.0
    if least @ sizes > total:
        lowest = float(1.0 - least @ sizes / sizes.sum())
        raise GateError(
            f"a sparsity of {sparsity} is out of reach: with the first layer whole and a fifth of "
            f"the last, {lowest:.3f} can go",
            code="INFEASIBLE_BUDGET",
            hint=f"ask for {math.floor(lowest * 1000) / 1000:g} or less",
        )
    share = max(0.0, (total - sizes[0]) / max(sizes[1:].sum(), 1.0))
    if sizes.size > 1 and share < LAST:
        share = (total - least @ sizes) / max(sizes[1:-1].sum(), 1.0)
    return np.asarray(np.maximum(least, share), np.float64)


def _sizes(shapes: Sequence[Shape], sparsity: float) -> Numbers:
    if not 0.0 <= sparsity < 1.0:
        raise InputError(f"a sparsity of {sparsity} is not in [0, 1)", code="BAD_OPTION")
    return np.asarray([math.prod(shape) for shape in shapes], np.float64)


@ALLOCATIONS.register(
    "erdos-renyi",
    summary="Layers with fewer weights for their width keep more (Erdos-Renyi-kernel).",
    source="Evci et al. 2020, arXiv 1911.11134 (ERK); for channels: prunecli, an extension",
)
def erdos_renyi(problem: Problem) -> Widths:
    """Return widths at the square roots of densities in proportion to those of ERK.

    A layer whose input and output both keep the fraction f has f squared of its weights, hence the
    root: *our translation* to channels. The density of a group is that of the weights that make it,
    their dimensions and their sizes summed where several do; the factor is the largest that fits.
    """
    if len(problem.shapes) != len(problem.groups) or not all(problem.shapes):
        raise InputError(
            "erdos-renyi needs the shapes of the weights that make each group",
            code="NO_SHAPES",
        )
    slopes = np.asarray(
        [sum(map(sum, shapes)) / max(sum(map(math.prod, shapes)), 1) for shapes in problem.shapes]
    )
    most = 1.0 / slopes.min()
    return largest_within(problem, lambda part: np.sqrt(np.minimum(1.0, part * most * slopes)))
