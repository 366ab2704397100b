"""How many weights every layer keeps: pure functions of shapes, saliencies and a total.

Every rule meets the total exactly. A layer keeps at least one weight, so that none dies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunecli.allocation import RECONSTRUCTION, layer_sparsities
from prunecli.errors import GateError
from prunecli.registry import Registry

Counts = NDArray[np.int64]
"""Kept weights of every layer."""

LAST_LAYER = 0.2
"""The share of its weights that the last layer keeps under `uniform-plus`."""


@dataclass(frozen=True)
class WeightProblem:
    """What an allocation may look at, layer by layer in the order of execution.

    `saliencies` and `magnitudes` are flat arrays of the layers' sizes; `keep` is how many weights
    stay in all; `floors` and `ceilings` how few and how many every layer may keep.
    """

    shapes: tuple[tuple[int, ...], ...]
    saliencies: tuple[NDArray[np.float64], ...]
    magnitudes: tuple[NDArray[np.float64], ...]
    keep: int
    floors: Counts
    ceilings: Counts

    @property
    def sizes(self) -> Counts:
        """The number of weights of every layer."""
        return np.asarray([math.prod(shape) for shape in self.shapes], np.int64)


WeightAllocation = Callable[[WeightProblem], Counts]
WEIGHT_ALLOCATIONS: Registry[WeightAllocation] = Registry("weight allocation")


def allocate_weights(rule: str, problem: WeightProblem) -> Counts:
    """Return how many weights every layer keeps under a rule; they sum to `problem.keep`.

    Raises `InputError` for an unknown rule, and `GateError` (`INFEASIBLE_BUDGET`) with the highest
    reachable sparsity.
    """
    return WEIGHT_ALLOCATIONS.get(rule)(problem)


def check_reachable(problem: WeightProblem, floors: Counts, *, held: str) -> None:
    """Raise `GateError` unless the total lies between the floors and the ceilings."""
    total, lowest = int(problem.sizes.sum()), int(floors.sum())
    if problem.keep < lowest:
        reachable = math.floor((1 - lowest / total) * 10000) / 10000
        raise GateError(
            f"a sparsity of {1 - problem.keep / total:.4f} cannot be reached: {lowest} of {total} "
            f"weights stay in any case, the highest reachable is {reachable:.4f}",
            code="INFEASIBLE_BUDGET",
            where=held,
            hint=f"ask for --sparsity {reachable:g} or less, or hold fewer layers fast",
        )


def spread(
    wanted: NDArray[np.float64], problem: WeightProblem, floors: Counts, *, held: str = ""
) -> Counts:
    """Return counts in proportion to `wanted` between floors and ceilings, summing to the total.

    What a layer cannot take goes to the others in the same proportion. Rounding is by the largest
    remainder, ties to the earlier layer. Raises what `check_reachable` raises.
    """
    check_reachable(problem, floors, held=held or "every layer keeps one weight at least")
    ceilings = problem.ceilings.astype(np.float64)

    def shares(scale: float) -> NDArray[np.float64]:
        return np.clip(wanted * scale, floors, ceilings)

    low, high = 0.0, 1.0
    while shares(high).sum() < min(problem.keep, ceilings.sum()) and math.isfinite(high):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if shares(middle).sum() <= problem.keep else (low, middle)
    exact = shares(low)
    counts = np.floor(exact + 1e-9).astype(np.int64)
    counts = np.clip(counts, floors, problem.ceilings)
    order = np.argsort(counts - exact, kind="stable")
    while (missing := problem.keep - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        limits = problem.ceilings if missing > 0 else floors
        able = [at for at in (order if missing > 0 else order[::-1]) if counts[at] != limits[at]]
        counts[able[: abs(missing)]] += step
    return counts


@WEIGHT_ALLOCATIONS.register(
    "uniform", summary="Every layer keeps the same share of its weights (default)."
)
def uniform(problem: WeightProblem) -> Counts:
    """Return counts in proportion to the layers' sizes."""
    return spread(problem.sizes.astype(np.float64), problem, problem.floors)


@WEIGHT_ALLOCATIONS.register(
    "uniform-plus",
    summary="The first layer stays dense, the last keeps 20 % at least, the rest is uniform.",
    source="Gale et al. 2019, arXiv 1902.09574; as in Lee et al. 2021",
)
def uniform_plus(problem: WeightProblem) -> Counts:
    """Return uniform counts with the floors of the first and of the last layer."""
    floors = problem.floors.copy()
    floors[0] = problem.ceilings[0]
    if floors.size > 1:
        floors[-1] = max(floors[-1], math.ceil(LAST_LAYER * problem.sizes[-1]))
    held = f"the first layer stays dense, the last keeps {LAST_LAYER:.0%}"
    return spread(problem.sizes.astype(np.float64), problem, floors, held=held)


@WEIGHT_ALLOCATIONS.register(
    "erdos-renyi",
    summary="Kept shares in proportion to the sum of a weight's sizes over their product (ERK).",
    source="Mocanu et al. 2018; Evci et al. 2020 (RigL), arXiv 1911.11134",
)
def erdos_renyi(problem: WeightProblem) -> Counts:
    """Return counts in proportion to `C_out + C_in + K_h + K_w`, none above a layer's size.

    Layers that would be more than dense are dense, and the rest takes what they leave.
    """
    sums = np.asarray([sum(shape) for shape in problem.shapes], np.float64)
    return spread(sums, problem, problem.floors)


@WEIGHT_ALLOCATIONS.register(
    "global", summary="One threshold on the saliency of all weights together."
)
def global_threshold(problem: WeightProblem) -> Counts:
    """Return how many weights of every layer are among the most salient ones."""
    return above_threshold(problem.saliencies, problem)


@WEIGHT_ALLOCATIONS.register(
    "lamp",
    summary="One threshold on squared magnitudes as a share of all larger ones of their layer.",
    source="Lee et al. 2021 (LAMP), arXiv 2010.07611",
)
def lamp(problem: WeightProblem) -> Counts:
    """Return how many weights of every layer have the highest LAMP scores.

    The counts come from magnitudes whatever the signal; it chooses within the layers.
    """
    return above_threshold([lamp_scores(values) for values in problem.magnitudes], problem)


def lamp_scores(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `w_u^2 / sum of all w_v^2 that are as large or come later`, in ascending order.

    >>> lamp_scores(np.asarray([1.0, -2.0, 3.0])).round(6).tolist()
    [0.071429, 0.307692, 1.0]
    """
    squares = np.square(magnitudes)
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.where(rest == 0, 1.0, rest)
    return scores


@WEIGHT_ALLOCATIONS.register(
    "inverse-importance",
    summary="What is pruned of a layer is proportional to 1 / its mean saliency.",
    source=RECONSTRUCTION,
)
def inverse_importance(problem: WeightProblem) -> Counts:
    """Return counts that leave out most where a weight is worth least on average."""
    return by_importance(problem, "inverse")


@WEIGHT_ALLOCATIONS.register(
    "proportional-importance",
    summary="What stays of a layer is proportional to its mean saliency.",
    source=RECONSTRUCTION,
)
def proportional_importance(problem: WeightProblem) -> Counts:
    """Return counts that keep most where a weight is worth most on average."""
    return by_importance(problem, "proportional")


MOST = 0.999
"""The share of its weights that a layer loses at most by its importance."""

SMALLEST = 0.01
"""The least importance of a layer, as a part of the mean one: none is worth nothing."""


def by_importance(problem: WeightProblem, rule: str) -> Counts:
    """Return counts by `layer_sparsities`; the importance of a layer is its mean saliency in size.

    Under the signal `l2` that is the energy of its weights. Layers that are frozen take no part.
    """
    check_reachable(problem, problem.floors, held="every layer keeps one weight at least")
    free = np.flatnonzero(problem.floors < problem.ceilings)
    wanted = problem.ceilings.astype(np.float64)
    if free.size:
        left = problem.keep - int(np.delete(problem.ceilings, free).sum())
        sparsity = 1.0 - left / problem.ceilings[free].sum()
        means = [_mean_size(problem.saliencies[at]) for at in free]
        importance = np.maximum(means, SMALLEST * (np.mean(means) or 1.0))
        shares = layer_sparsities(
            problem.ceilings[free], importance, max(sparsity, 0.0), rule=rule,
            most=max(MOST, sparsity),
        )  # fmt: skip
        wanted[free] *= 1.0 - shares
    return spread(wanted, problem, problem.floors)


def _mean_size(saliency: NDArray[np.float64]) -> float:
    finite = np.abs(saliency[np.isfinite(saliency)])
    return float(finite.mean()) if finite.size else 0.0


def above_threshold(scores: Sequence[NDArray[np.float64]], problem: WeightProblem) -> Counts:
    """Return how many entries of every layer are among the highest of all.

    Every layer has its floor and its ceiling; ties at the threshold go to the earlier layers.
    """
    held = "every layer keeps one weight at least"
    check_reachable(problem, problem.floors, held=held)
    free = problem.keep - int(problem.floors.sum())
    # The best of a layer are its floor in any case, and beyond its ceiling none counts.
    pools = [
        _ranked(own, int(floor), int(ceiling))
        for own, floor, ceiling in zip(scores, problem.floors, problem.ceilings, strict=True)
    ]
    together = np.concatenate(pools)
    if free >= together.size:
        return problem.ceilings.copy()
    counts = problem.floors.copy()
    if free == 0:
        return counts
    threshold = np.partition(together, together.size - free)[together.size - free]
    for at, pool in enumerate(pools):
        counts[at] += int((pool > threshold).sum())
    for at, pool in enumerate(pools):
        left = problem.keep - int(counts.sum())
        counts[at] += min(left, int((pool == threshold).sum()))
    return counts


def _ranked(values: NDArray[np.float64], first: int, last: int) -> NDArray[np.float64]:
    """Return the entries that come at `first` to below `last` from the top, in no order."""
    if first >= last:
        return values[:0]
    size = values.size
    bounds = [at for at in (size - last, size - first) if 0 < at < size]
    return np.partition(values, bounds)[size - last : size - first] if bounds else values


def keep_masks(
    saliencies: Sequence[NDArray[np.float64]], counts: Counts
) -> list[NDArray[np.bool_]]:
    """Return flat masks of the most salient entries of every layer; ties by lowest index."""
    masks = []
    for own, count in zip(saliencies, counts.tolist(), strict=True):
        mask = np.zeros(own.size, np.bool_)
        if count:
            threshold = np.partition(own, own.size - count)[own.size - count]
            mask[own > threshold] = True
            ties = np.flatnonzero(own == threshold)
            mask[ties[: count - int(mask.sum())]] = True
        masks.append(mask)
    return masks
