"""What a search for channels knows: which have gates, what they cost, and where gates begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.allocation import ceilings_of
from prunecli.cost.expected import ExpectedCost
from prunecli.gating.bank import group_sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths
    from prunecli.methods.setup import Setup


@dataclass(frozen=True)
class Search:
    """A search in numbers: `gated` says of every atom of the network whether it can be chosen.

    `spread` [gated atoms] are numbers in (-1, 1), larger for the more salient: those above 0 are
    what a cut at once would keep. `groups` [gated atoms] number their groups, `steps` are those of
    the search.
    """

    setup: Setup
    gated: NDArray[np.bool_]
    spread: Tensor
    groups: Tensor
    expected: ExpectedCost
    steps: int

    @property
    def ceilings(self) -> dict[str, float]:
        """The highest allowed cost of each limited kind."""
        return ceilings_of(self.setup.budget, self.dense)

    @property
    def dense(self) -> Mapping[str, float]:
        """What the user's own network costs."""
        return self.setup.network.cost.dense

    def ceilings_at(self, progress: float) -> dict[str, float]:
        """Return the ceilings after a part of the way (0 to 1) from the dense network."""
        return {
            kind: self.dense[kind] + (ceiling - self.dense[kind]) * progress
            for kind, ceiling in self.ceilings.items()
        }

    def widths(self, gates: Tensor) -> Tensor:
        """Return the widths [groups] that gates [gated atoms] add up to, in float64."""
        count = len(self.setup.network.coupling.groups)
        dense = torch.as_tensor(self.setup.network.cost.dense_widths, dtype=torch.float64)
        own = torch.zeros(count, dtype=torch.float64, device=gates.device)
        fixed = dense.to(gates.device) - own.index_add(
            0, self.groups, torch.ones_like(gates, dtype=torch.float64)
        )
        return fixed + own.index_add(0, self.groups, gates.double())

    def load(self, gates: Tensor) -> Tensor:
        """Return the cost of gates as a fraction of the tightest ceiling, differentiable."""
        widths = self.widths(gates)
        loads = [self.expected(kind, widths) / ceiling for kind, ceiling in self.ceilings.items()]
        return torch.stack(loads).max()

    def kept(self, gates: Tensor) -> float:
        """Return the share that gates keep of the cost that the budget names first."""
        kind = next(iter(self.ceilings))
        return float(self.expected(kind, self.widths(gates.detach())) / self.dense[kind])

    def price(self, gates: Tensor) -> Tensor:
        """Return what opening each gate [gated atoms] adds to the load, at these gates."""
        wanted = gates.detach().clone().requires_grad_()
        (price,) = torch.autograd.grad(self.load(wanted), wanted)
        return price

    def open_at(self, scores: Tensor, ceilings: Mapping[str, float]) -> Tensor:
        """Return the mask [gated atoms] of the highest scores whose cost is within `ceilings`.

        The best of every group are always open, as many as `--min-width` keeps. Source: ours; a
        threshold that follows the budget exactly, found by bisection over the number of open gates.
        """
        found = _open_at(
            scores.detach().cpu().double().numpy(),
            self.groups.cpu().numpy(),
            lambda widths: self._is_within(widths, ceilings),
            self.setup.network.cost.dense_widths,
            self._least(),
        )
        return torch.as_tensor(found, dtype=torch.float32, device=scores.device)

    def _least(self) -> Widths:
        """Return the atoms that every group keeps at least."""
        wanted, groups = self.setup.options.min_width, self.setup.network.coupling.groups
        return np.asarray([max(-(-wanted // group.multiplicity), 1) for group in groups], np.int64)

    def _is_within(self, widths: Widths, ceilings: Mapping[str, float]) -> bool:
        costs = self.setup.network.cost.cost(widths)
        return all(costs[kind] <= ceiling for kind, ceiling in ceilings.items())


def _open_at(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    is_within: object,
    dense_widths: Widths,
    least: Widths,
) -> NDArray[np.bool_]:
    assert callable(is_within)
    order = np.argsort(-scores, kind="stable")
    # The first of every group in this order come before all others: they stay in any case.
    first = np.zeros(order.size, np.bool_)
    for group in np.unique(groups):
        first[np.flatnonzero(groups[order] == group)[: least[group]]] = True
    order = np.concatenate([order[first], order[~first]])
    gone = np.bincount(groups, minlength=dense_widths.size)

    def widths(count: int) -> Widths:
        opened = np.bincount(groups[order[:count]], minlength=dense_widths.size)
        return np.asarray(dense_widths - gone + opened, np.int64)

    low, high = int(first.sum()), order.size
    while low < high:
        middle = (low + high + 1) // 2
        if is_within(widths(middle)):
            low = middle
        else:
            high = middle - 1
    mask = np.zeros(order.size, np.bool_)
    mask[order[:low]] = True
    return mask


def spread_by_rank(
    saliency: NDArray[np.float64],
    groups: NDArray[np.int64],
    widths: Widths,
) -> NDArray[np.float64]:
    """Return numbers in (-1, 1), one per atom: above 0 where a cut to `widths` would keep it.

    Within a group they fall evenly with the saliency. Source: ours.

    >>> spread_by_rank(np.array([3.0, 1.0, 2.0, 9.0]), np.array([0, 0, 0, 1]), np.array([2, 1]))
    array([ 0.5       , -0.16666667,  0.16666667,  0.5       ])
    """
    found = np.empty(saliency.size)
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        rank = np.empty(own.size)
        rank[np.argsort(-saliency[own], kind="stable")] = np.arange(own.size)
        found[own] = (widths[group] - rank - 0.5) / own.size
    return found


def make_search(
    setup: Setup,
    gated: NDArray[np.bool_],
    saliency: NDArray[np.float64],
    widths: Widths,
    *,
    steps: int,
    device: torch.device,
) -> Search:
    """Return the search over the `gated` atoms; a cut at once by `saliency` comes to `widths`."""
    coupling = setup.network.coupling
    groups = group_sums(coupling.groups, coupling.atom_count)[torch.as_tensor(gated)]
    spread = spread_by_rank(saliency[gated], groups.numpy(), widths)
    return Search(
        setup=setup,
        gated=gated,
        spread=torch.as_tensor(spread, dtype=torch.float32, device=device),
        groups=groups.to(device),
        expected=ExpectedCost(setup.network.cost, device),
        steps=steps,
    )
