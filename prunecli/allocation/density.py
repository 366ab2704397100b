"""Densities from the shapes of weights (Erdos-Renyi-kernel), as widths of channel groups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem
from prunecli.allocation.uniform import largest_within
from prunecli.errors import InputError

if TYPE_CHECKING:
    from prunecli.cost.model import Widths


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
