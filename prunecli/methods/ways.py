"""All methods of pruning, registered, and the way that each goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.methods import (  # noqa: F401 - each registers itself
    bar,
    exact_gates,
    gradual,
    group_lasso,
    slimming,
    trainable_gates,
)
from prunecli.methods.dynamic.road import Dynamic
from prunecli.methods.iterative import Iterative
from prunecli.methods.learning.road import Learning
from prunecli.methods.learning.rule import Rule
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from prunecli.methods.road import Way


def trains(method: str) -> bool:
    """Tell whether a method trains; raise `InputError` for a name that is no method."""
    return METHODS.get(method) is not None


def way_of(method: str) -> Way:
    """Return the way of a method that trains."""
    found = METHODS.get(method)
    if found is None:
        raise InputError(f"the method {method} cuts at once", code="BAD_OPTION")
    if issubclass(found, Rule):
        return Learning(found)
    return found()


METHODS.add(
    "dynamic",
    Dynamic,
    summary="Only the channels that a bandit chooses are computed in a step; the best stay.",
    source="Spasov, Lio 2019 (BMVC), arXiv 1905.06435",
)
METHODS.add(
    "iterative",
    Iterative,
    summary="A few channels at a time, with updates between during which the signal is taken.",
    source="Molchanov et al. 2017, arXiv 1611.06440; Theis et al. 2018, arXiv 1801.05787",
)
