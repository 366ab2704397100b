"""Fractions of layers that one number decides: the same for all, or in a given proportion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.allocation.filling import check_feasible
from prunecli.allocation.problem import ALLOCATIONS, Problem, floor_width, nearest_width
from prunecli.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import ChannelGroup

Fractions = NDArray[np.float64]
"""The fraction of its channels that each group keeps."""

LAST = 0.2
"""What `uniform-plus` keeps at least of the channels that the last layer reads."""


def largest_within(
    problem: Problem,
    fractions: Callable[[float], Fractions],
    *,
    rounded: Callable[[NDArray[np.int64], float], int] = nearest_width,
) -> Widths:
    """Return the widths at the largest number in [0, 1] that fits the budget, by bisection.

    `fractions` must grow with the number; `rounded` takes what they come to at an allowed width, by
    default the nearest: where few are allowed, rounding down would take from every group. Where two
    groups decide about the channels of one layer (heads, and the width inside them), each keeps the
    square root of its fraction.
    """
    roots = np.asarray([1.0 / group.axes for group in problem.groups])

    def widths(number: float) -> Widths:
        kept = fractions(number) ** roots
        return np.asarray(
            [
                rounded(options, share * options[-1])
                for share, options in zip(kept.tolist(), problem.widths, strict=True)
            ],
            np.int64,
        )

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if problem.load(widths(middle)) <= 1.0:
            low = middle
        else:
            high = middle
    return widths(low)


@ALLOCATIONS.register(
    "uniform", summary="Every layer keeps the same fraction of its channels (default)."
)
def uniform(problem: Problem) -> Widths:
    """Return the largest common fraction that fits the budget."""
    return largest_within(
        problem, lambda fraction: np.full(len(problem.groups), fraction), rounded=floor_width
    )


@ALLOCATIONS.register(
    "uniform-plus",
    summary="As `uniform`, but the first layer stays whole and the last reads 20 % or more.",
    source="Gale et al. 2019, arXiv 1902.09574; for channels: prunecli, an extension",
)
def uniform_plus(problem: Problem) -> Widths:
    """Return the largest common fraction of all groups but those at the ends of the network.

    In channels: a group that a layer makes which reads no group (the image) stays whole, and of a
    group that a layer reads which makes none (the classifier) a fifth stays. Raises `GateError`
    where the budget cannot be met like that.
    """
    options = []
    ends = zip(problem.groups, problem.widths, _first(problem), _last(problem), strict=True)
    for group, widths, first, last in ends:
        least = LAST ** (1 / group.axes) * widths[-1] if last else 0
        options.append(widths[-1:] if first else widths[widths >= least])
    spared = replace(problem, widths=tuple(options))
    try:
        check_feasible(spared)
    except GateError as error:
        raise GateError(
            f"with its first layer whole, {error.message}",
            code=error.code,
            where=error.where,
            hint="--allocation uniform reaches lower",
        ) from error
    return uniform(spared)


def _first(problem: Problem) -> list[bool]:
    """Tell of every group whether it is made from the input; the first one, where unknown."""
    reading = _tensors(problem, lambda group: group.consumers)
    found = [any(name not in reading for name, _ in group.producers) for group in problem.groups]
    return found if any(found) else [at == 0 for at in range(len(found))]


def _last(problem: Problem) -> list[bool]:
    """Tell of every group whether the outputs are made from it; the last one, where unknown."""
    making = _tensors(problem, lambda group: group.producers)
    found = [any(name not in making for name, _ in group.consumers) for group in problem.groups]
    return found if any(found) else [at == len(found) - 1 for at in range(len(found))]


def _tensors(
    problem: Problem, sites: Callable[[ChannelGroup], tuple[tuple[str, int], ...]]
) -> set[str]:
    return {name for group in problem.groups for name, _ in sites(group)}
