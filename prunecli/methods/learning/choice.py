"""Which channels a search ends with: the best scores, as many as the budget allows."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import keep_mask
from prunecli.pruning.selection import Selection, select

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.methods.learning.search import Search

ENOUGH = 0.99
"""The part of the budget that a search has to use."""


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
