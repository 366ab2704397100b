"""How much to remove from each layer, from one importance per layer: pure functions of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.errors import GateError, InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Numbers = NDArray[np.float64]

RECONSTRUCTION = "our reconstruction; the idea is that of Jung et al. 2019, arXiv 1901.02757"

LAYER_RULES: Registry[Callable[[Numbers, Numbers, float, float], Numbers]] = Registry("layer rule")


def layer_sparsities(
    sizes: Sequence[int] | NDArray[np.int64],
    importance: Sequence[float] | Numbers,
    sparsity: float,
    *,
    rule: str = "inverse",
    most: float = 0.999,
) -> Numbers:
    """Return the share to remove from each layer, `sum(sizes * result) == sparsity * sum(sizes)`.

    `sizes` counts the parameters (or channels) of each layer, `importance` is one positive number
    for each; no layer loses more than `most`. The rules are `inverse` (what goes is proportional to
    1 / importance) and `proportional` (what stays is proportional to the importance). Layers of
    equal importance get equal shares.

    This is *our reconstruction* of a layer-wise allocation from importances: "How Compact?" (Jung
    et al. 2019, arXiv 1901.02757) has the idea, its formulas were not at hand.

    Raises `GateError` (`INFEASIBLE_BUDGET`) for more than `most`, and `InputError` for sizes or
    importances that are not positive.

    >>> layer_sparsities([1000, 4000, 5000], [4.0, 2.0, 1.0], 0.5).round(6).tolist()
    [0.172414, 0.344828, 0.689655]
    """
    counts, weights = np.asarray(sizes, np.float64), np.asarray(importance, np.float64)
    _check(counts, weights, sparsity, most)
    return LAYER_RULES.get(rule)(counts, weights, float(sparsity), float(most))


@LAYER_RULES.register(
    "inverse", summary="What is pruned is proportional to 1 / importance.", source=RECONSTRUCTION
)
def inverse(sizes: Numbers, importance: Numbers, sparsity: float, most: float) -> Numbers:
    """Return `min(most, c / importance)`.

    This minimises `sum(sizes * importance * s**2) / 2` at the given total.
    """
    total = sparsity * sizes.sum()
    return proportional_shares(sizes, 1.0 / importance, total, low=0.0, high=most)


@LAYER_RULES.register(
    "proportional", summary="What stays is proportional to the importance.", source=RECONSTRUCTION
)
def proportional(sizes: Numbers, importance: Numbers, sparsity: float, most: float) -> Numbers:
    """Return `1 - min(1, c * importance)`, at most `most`."""
    total = (1.0 - sparsity) * sizes.sum()
    return 1.0 - proportional_shares(sizes, importance, total, low=1.0 - most, high=1.0)


def proportional_shares(
    sizes: Numbers, slopes: Numbers, total: float, *, low: float, high: float
) -> Numbers:
    """Return `clip(c * slopes, low, high)` with the `c` at which `sizes @ result == total`.

    The sum grows with `c` along straight lines between the points where a share meets a bound, so
    that `c` is found exactly. `total` must lie between `low` and `high` times the sum of sizes.
    """
    knots = np.unique(np.concatenate([low / slopes, high / slopes]))
    sums = np.clip(knots[:, None] * slopes, low, high) @ sizes
    at = int(np.clip(np.searchsorted(sums, total), 1, knots.size - 1)) if knots.size > 1 else 0
    if at == 0 or sums[at] <= sums[at - 1]:
        scale = knots[at]
    else:
        share = np.clip((total - sums[at - 1]) / (sums[at] - sums[at - 1]), 0.0, 1.0)
        scale = knots[at - 1] + share * (knots[at] - knots[at - 1])
    return np.asarray(np.clip(scale * slopes, low, high), np.float64)


def _check(sizes: Numbers, importance: Numbers, sparsity: float, most: float) -> None:
    if sizes.shape != importance.shape or sizes.ndim != 1 or not sizes.size:
        raise InputError(
            f"one importance per layer is needed: {sizes.size} layers, {importance.size} of them",
            code="BAD_IMPORTANCE",
        )
    for what, values in (("size", sizes), ("importance", importance)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise InputError(
                f"the {what} of layer {bad[0]} is {values[bad[0]]}: it has to be above 0",
                code="BAD_IMPORTANCE",
            )
    if not 0.0 <= sparsity < 1.0 or not 0.0 < most <= 1.0:
        raise InputError(f"a sparsity of {sparsity} is not in [0, 1)", code="BAD_OPTION")
    if sparsity > most:
        raise GateError(
            f"a sparsity of {sparsity} is out of reach: no layer may lose more than {most}",
            code="INFEASIBLE_BUDGET",
            hint=f"ask for {most} or less",
        )
