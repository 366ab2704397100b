"""What a search for channels knows: which have gates, what they cost, and where gates begin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.allocation import ceilings_of
from prunecli.cost.expected import ExpectedCost
from prunecli.errors import GateError
from prunecli.gating.bank import group_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths
    from prunecli.methods.learning.streams import Streams
    from prunecli.methods.setup import Setup
    from prunecli.network.traced import Network


@dataclass(frozen=True)
class Search:
    """A search in numbers: `gated` says of every atom of the network whether it can be chosen.

    `spread` [gated atoms] are numbers in (-1, 1), larger for the more salient: those above 0 are
    what a cut at once would keep. `groups` [gated atoms] number their groups, `steps` are those of
    the search. `network` is that of the setup, or the one with its writers apart (`streams`);
    `forced` are the numbers of the groups that keep a channel in any case.
    """

    setup: Setup
    network: Network
    gated: NDArray[np.bool_]
    spread: Tensor
    groups: Tensor
    expected: ExpectedCost
    steps: int
    forced: frozenset[int]
    streams: Streams | None = None

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
        every = torch.ones(self.gated.size + 1, dtype=torch.float64, device=gates.device)
        every = every.index_put((self.numbers,), gates.double())
        if self.streams is not None:
            every = self.streams.expected(every)
        count = len(self.network.coupling.groups)
        zeros = torch.zeros(count, dtype=torch.float64, device=gates.device)
        return zeros.index_add(0, self.group_of, every[:-1])

    @cached_property
    def group_of(self) -> Tensor:
        """The number of the group of every atom."""
        sums = group_sums(self.network.coupling.groups, self.gated.size)
        return sums.to(self.groups.device)

    @cached_property
    def numbers(self) -> Tensor:
        """The gated atoms."""
        return torch.as_tensor(np.flatnonzero(self.gated), device=self.groups.device)

    def settled(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what is open of all atoms, by a mask [gated atoms]: blocks that do nothing go."""
        opened = np.ones(self.gated.size, np.bool_)
        opened[self.gated] = mask
        return opened if self.streams is None else self.streams.settled(opened)

    def closed_with(self, mask: Tensor) -> Tensor:
        """Return a mask [gated atoms] in which what does nothing without others is closed too."""
        settled = self.settled(mask.cpu().numpy() > 0)[self.gated]
        return torch.as_tensor(settled, dtype=mask.dtype, device=mask.device)

    def cost(self, opened: NDArray[np.bool_]) -> dict[str, float]:
        """Return every cost of what is open of all atoms, settled."""
        widths = self.count(opened)
        if self.streams is not None:
            return self.streams.cost(opened, widths)
        return self.network.cost.cost(widths)

    def count(self, opened: NDArray[np.bool_]) -> Widths:
        """Return the widths of what is open of all atoms."""
        groups = self.group_of.cpu().numpy()
        counts = np.bincount(groups[opened], minlength=len(self.network.coupling.groups))
        return np.asarray(counts, np.int64)

    def load(self, gates: Tensor) -> Tensor:
        """Return the cost of gates as a fraction of the tightest ceiling, differentiable."""
        widths = self.widths(gates)
        loads = [self.expected(kind, widths) / ceiling for kind, ceiling in self.ceilings.items()]
        return torch.stack(loads).max()

    def kept(self, gates: Tensor) -> float:
        """Return the share that gates keep of the cost that the budget names first."""
        kind = next(iter(self.ceilings))
        return float(self.expected(kind, self.widths(gates.detach())) / self.dense[kind])

    def share(self, costs: Mapping[str, float]) -> float:
        """Return the share of the dense cost, of the kind that the budget names first."""
        kind = next(iter(self.ceilings))
        return float(costs[kind] / self.dense[kind])

    def price(self, gates: Tensor) -> Tensor:
        """Return what opening each gate [gated atoms] adds to the load, at these gates."""
        wanted = gates.detach().clone().requires_grad_()
        (price,) = torch.autograd.grad(self.load(wanted), wanted)
        return price

    def open_at(self, scores: Tensor, ceilings: Mapping[str, float]) -> Tensor:
        """Return the mask [gated atoms] of the highest scores whose cost is within `ceilings`.

        The best of every group that may not go are always open, as many as `--min-width` keeps.
        Source: ours; a threshold that follows the budget exactly, found by bisection over the
        number of open gates.
        """
        order, low = self._order(scores)
        low = largest(
            lambda count: self._is_within(self._first(order, count), ceilings), low, order.size
        )
        mask = self.settled(self._first(order, low))[self.gated]
        return torch.as_tensor(mask, dtype=torch.float32, device=scores.device)

    def filled_at(self, scores: Tensor, ceilings: Mapping[str, float]) -> NDArray[np.bool_]:
        """Return what is open of all atoms: `open_at`, then others for which there is room left.

        A gate that brings a whole block back may be out of reach where several others are not.
        """
        order, _ = self._order(scores)
        mask = self.open_at(scores, ceilings).cpu().numpy() > 0
        for at in order[~mask[order]].tolist():
            more = mask.copy()
            more[at] = True
            if self._is_within(more, ceilings):
                mask = more
        return self.settled(mask)

    def check_reachable(self) -> None:
        """Raise `GateError` where even the fewest gates that have to be open cost too much."""
        order, least = self._order(self.spread)
        costs = self.cost(self.settled(self._first(order, least)))
        for kind, ceiling in self.ceilings.items():
            if costs[kind] > ceiling:
                raise GateError(
                    f"{kind} cannot go down to {ceiling / self.dense[kind]:.2g} of the model with "
                    f"gates alone: the lowest reachable is {costs[kind] / self.dense[kind]:.2g}",
                    code="INFEASIBLE_BUDGET",
                    hint="leave --mixed-connectivity out: other channels can go then"
                    if self.streams is not None
                    else "use --method one-shot, which cuts more kinds of groups",
                )

    def _order(self, scores: Tensor) -> tuple[NDArray[np.int64], int]:
        """Return the gated atoms in the order in which they open, and how many always are."""
        values, groups = scores.detach().cpu().double().numpy(), self.groups.cpu().numpy()
        order, least = np.argsort(-values, kind="stable"), self._least()
        first = np.zeros(order.size, np.bool_)
        for group in self.forced:
            first[np.flatnonzero(groups[order] == group)[: least[group]]] = True
        return np.concatenate([order[first], order[~first]]), int(first.sum())

    def _first(self, order: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
        mask = np.zeros(order.size, np.bool_)
        mask[order[:count]] = True
        return mask

    def _least(self) -> Widths:
        """Return the atoms that every group keeps at least, where it keeps any."""
        wanted, groups = self.setup.options.min_width, self.network.coupling.groups
        return np.asarray([max(-(-wanted // group.multiplicity), 1) for group in groups], np.int64)

    def _is_within(self, mask: NDArray[np.bool_], ceilings: Mapping[str, float]) -> bool:
        costs = self.cost(self.settled(mask))
        return all(costs[kind] <= ceiling for kind, ceiling in ceilings.items())


def largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the largest number of `low` to `high` that holds: `low` does, and up to one all do."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


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
    streams: Streams | None = None,
) -> Search:
    """Return the search over the `gated` atoms; a cut at once by `saliency` comes to `widths`."""
    network = setup.network if streams is None else streams.network
    coupling = network.coupling
    groups = group_sums(coupling.groups, coupling.atom_count)[torch.as_tensor(gated)]
    spread = spread_by_rank(saliency[gated], groups.numpy(), widths)
    may_close = np.zeros_like(gated) if streams is None else streams.may_close(gated)
    return Search(
        setup=setup,
        network=network,
        gated=gated,
        spread=torch.as_tensor(spread, dtype=torch.float32, device=device),
        groups=groups.to(device),
        expected=ExpectedCost(network.cost, device),
        steps=steps,
        forced=frozenset(np.unique(groups.numpy()[~may_close[gated]]).tolist()),
        streams=streams,
    )
