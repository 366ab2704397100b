"""What a search ends with: the best scores, as many as the budget allows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import keep_mask
from prunecli.pruning.selection import Selection, select, whole_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.methods.learning.search import Search
    from prunecli.network.traced import Network

ENOUGH = 0.99
"""The part of the budget that a search has to use."""


@dataclass(frozen=True)
class Choice:
    """The network that is cut and what is kept of its atoms; `opened` are those of the search."""

    network: Network
    keep: NDArray[np.bool_]
    selection: Selection
    opened: NDArray[np.bool_]


def chosen(search: Search, scores: Tensor) -> Choice:
    """Return what is kept, by scores [gated atoms] of any scale; never more than the budget."""
    if search.streams is None:
        keep, selection = chosen_widths(search, scores)
        return Choice(search.network, keep, selection, keep)
    return opened_choice(search, search.filled_at(scores, search.ceilings))


def opened_choice(search: Search, opened: NDArray[np.bool_]) -> Choice:
    """Return the choice of what is open, of the atoms of a network with its writers apart."""
    assert search.streams is not None
    network, keep = search.streams.left(opened)
    groups = network.coupling.groups
    widths = np.asarray([int(keep[group.atoms].sum()) for group in groups], np.int64)
    names = {group.name for group in groups}
    held = {name: why for name, why in search.setup.held.items() if name in names}
    selection = Selection(widths, whole_groups(network, held), ())
    return Choice(network, keep, selection, opened)


def restored(search: Search, opened: NDArray[np.bool_], selection: Selection) -> Choice:
    """Return a choice by what a saved state holds of it."""
    if search.streams is None:
        return Choice(search.network, opened, selection, opened)
    return opened_choice(search, opened)


def chosen_widths(search: Search, scores: Tensor) -> tuple[NDArray[np.bool_], Selection]:
    """Return what is kept, one boolean per atom, by scores [gated atoms] of any scale.

    One threshold runs through all of them; widths are aligned as in any cut, and never cost more
    than the budget.
    """
    setup = search.setup
    network, groups = setup.network, setup.network.coupling.groups
    saliency = ranked(search, scores)
    held = dict(setup.held)
    held |= {
        group.name: setup.held.get(group.name, NOT_GATED)
        for group in groups
        if not search.gated[group.atoms].any()
    }
    options = dataclasses.replace(setup.options, allocation="global")
    selection = select(network, saliency, setup.budget, options, held=held, enough=ENOUGH)
    return keep_mask(groups, saliency, selection.widths), selection


NOT_GATED = "its channels were not part of the search"


def ranked(search: Search, scores: Tensor) -> NDArray[np.float64]:
    """Return positive saliencies, one per atom, in the order of the scores: equal steps apart."""
    values = scores.detach().cpu().double().numpy()
    order = np.argsort(values, kind="stable")
    rank = np.empty(order.size)
    rank[order] = np.arange(1, order.size + 1)
    saliency = np.ones(search.gated.size)
    saliency[search.gated] = rank / max(order.size, 1)
    return saliency
