"""Which method prunes where nobody names one: by how long the model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.options.methods import ONE_SHOT

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Better:
    """What was measured: with `epochs` or more, and `kept` of the cost or less, `method` wins."""

    epochs: int
    kept: float
    method: str


MEASURED: tuple[Better, ...] = ()
"""All that is known to be better than a one-shot cut that is trained after it; so far nothing."""


def method_for(
    epochs: int | None, kept: float | None, measured: Sequence[Better] = MEASURED
) -> str:
    """Return the method that measurements favour for so many epochs, with `kept` of the cost.

    Of the entries of `measured` that apply the one of the most epochs counts. They are to come from
    `tests/benchmarks/learning.csv`, where methods are compared at the same number of epochs, cut
    included. Until that favours another one, it is one-shot for every number of epochs. Without
    training, or with a budget that is no share of the dense cost, it is one-shot too.

    >>> method_for(3, 0.5), method_for(3, 0.5, [Better(2, 0.6, "bar"), Better(9, 0.6, "gates")])
    ('one-shot', 'bar')
    """
    if epochs is None or kept is None:
        return ONE_SHOT
    fitting = [each for each in measured if epochs >= each.epochs and kept <= each.kept]
    return max(fitting, key=lambda each: each.epochs).method if fitting else ONE_SHOT
