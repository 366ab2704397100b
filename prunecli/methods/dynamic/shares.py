"""The same share of every group, in widths that kernels like: what is executed of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths

CLOSE = 1.03
"""What aligned widths may be over the budget before some groups lose a few channels more."""


def shared_widths(
    load: Callable[[Widths], float],
    full: Widths,
    *,
    align: Widths,
    steps: tuple[Widths, ...],
    least: Widths,
    free: NDArray[np.bool_],
    enough: float,
) -> Widths:
    """Return widths that are about one share of `full`, at a `load` of at most 1.

    They are the multiples of `align` nearest to the share (one per group), of the largest share
    that is hardly over the budget. What is over goes in the first, widest, of the `steps`, from the
    groups that have the largest share; what is left to `enough` goes to those with the smallest, in
    all of the steps in turn. Groups that are not `free` stay whole, the others keep `least`
    channels. Where no widths are within the budget, the result is not either.

    >>> full = np.array([16, 32, 64])
    >>> shared_widths(
    ...     lambda widths: float(widths.sum()) / 55, full, align=np.array([8, 16, 16]),
    ...     steps=(np.array([4, 4, 4]), np.array([1, 1, 1])), least=np.ones(3, int),
    ...     free=np.ones(3, bool), enough=0.99).tolist()
    [7, 16, 32]
    """

    def at(share: float) -> Widths:
        nearest = np.floor(share * full / align + 0.5).astype(np.int64) * align
        return np.where(free, np.clip(nearest, least, full), full)

    flips = np.unique(np.concatenate([
        (np.arange(width // step + 1) + 0.5) * step / width
        for width, step in zip(full.tolist(), align.tolist(), strict=True)
    ]))  # fmt: skip
    low, high = 0, len(flips)  # the number of shares, from the least on, that are not too much
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if load(at(flips[middle - 1])) <= CLOSE else (low, middle - 1)
    widths = at(flips[low - 1] if low else 0.0)
    for step in steps:
        widths = _trimmed(load, widths, full, step, least=least, free=free)
    for step in steps:
        widths = _grown(load, widths, full, step, free=free, enough=enough)
    return widths


def _trimmed(
    load: Callable[[Widths], float],
    widths: Widths,
    full: Widths,
    steps: Widths,
    *,
    least: Widths,
    free: NDArray[np.bool_],
) -> Widths:
    """Return widths within the budget, as near to it as one last step can; or as few as there are.

    Before that last step the groups with the largest share lose channels.
    """
    while load(widths) > 1:
        cut = [
            (float(widths[group] / full[group]), _stepped(widths, group, -int(step)))
            for group, step in enumerate(steps)
            if free[group] and widths[group] - step >= least[group]
        ]
        if not cut:
            return widths
        within = [each for _, each in cut if load(each) <= 1]
        if within:
            return max(within, key=load)
        widths = max(cut, key=lambda pair: pair[0])[1]
    return widths


def _grown(
    load: Callable[[Widths], float],
    widths: Widths,
    full: Widths,
    steps: Widths,
    *,
    free: NDArray[np.bool_],
    enough: float,
) -> Widths:
    """Return widths that use enough of the budget, or as much of it as these steps can.

    A group grows from a share that another one has already, so that cheap ones do not fill up.
    """
    most = float((widths / full)[free].max(initial=0.0))
    while load(widths) < enough:
        more = (
            _stepped(widths, group, int(steps[group]))
            for group in np.argsort(widths / full, kind="stable").tolist()
            if free[group]
            and widths[group] + steps[group] <= full[group]
            and widths[group] <= most * full[group]
        )
        grown = next((each for each in more if load(each) <= 1), None)
        if grown is None:
            break
        widths = grown
    return widths


def _stepped(widths: Widths, group: int, step: int) -> Widths:
    stepped = widths.copy()
    stepped[group] += step
    return stepped
