"""The bandits of a network, one per group of channels that are chosen from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.methods.dynamic.bandit import confidence_bounds, learn_, scaled, top, warm_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import ChannelGroup


class Bandits:
    """What is known of every channel, and which ones to execute by it.

    `narrow` are the groups that are chosen from, each with how many of its channels run. `means`
    and `counts` have one entry per atom of the network: mean reward, and how many there were.
    `skipped` counts rewards of a group that said nothing.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        widths: Widths,
        *,
        explore: float,
        decay: float,
        seed: int,
    ) -> None:
        self.narrow = tuple(
            (group, int(width))
            for group, width in zip(groups, widths, strict=True)
            if width < group.width
        )
        self.explore, self.decay = explore, decay
        random = np.random.default_rng(seed)
        self.warm = {
            group.name: warm_sets(random.permutation(group.width), width)
            for group, width in self.narrow
        }
        self.chosen = np.zeros(sum(group.width for group in groups), np.bool_)
        for group, _ in self.narrow:
            self.chosen[group.atoms] = True
        self.means = np.zeros(self.chosen.size)
        self.counts = np.zeros(self.chosen.size, np.int64)
        self.skipped = 0

    @property
    def warm_steps(self) -> int:
        """Steps that it takes until every channel has run once."""
        return max(len(sets) for sets in self.warm.values())

    def choice(self, taken: int) -> NDArray[np.bool_]:
        """Return the atoms to execute after so many steps."""
        keep = ~self.chosen
        for group, width in self.narrow:
            warm = self.warm[group.name]
            ran = warm[taken] if taken < len(warm) else self._top(group, width, taken + 1)
            keep[group.first + ran] = True
        return keep

    def _top(self, group: ChannelGroup, width: int, step: int) -> NDArray[np.int64]:
        means, counts = self.means[group.atoms], self.counts[group.atoms]
        return top(confidence_bounds(means, counts, step, explore=self.explore), width)

    def best(self) -> NDArray[np.bool_]:
        """Return the atoms with the highest mean rewards: those that a freeze would keep."""
        keep = ~self.chosen
        for group, width in self.narrow:
            keep[group.first + top(self.means[group.atoms], width)] = True
        return keep

    def learn_(self, keep: NDArray[np.bool_], rewards: NDArray[np.float64]) -> None:
        """Take in the rewards of the atoms that ran, over the largest of their group."""
        for group, _ in self.narrow:
            ran = np.flatnonzero(keep[group.atoms])
            found = scaled(rewards[group.atoms][ran])
            if found is None:
                self.skipped += 1
                continue
            means, counts = self.means[group.atoms], self.counts[group.atoms]
            learn_(means, counts, ran, found, decay=self.decay)

    def state(self) -> dict[str, Any]:
        """Return what has been learnt."""
        return {
            "means": torch.as_tensor(self.means.copy()),
            "counts": torch.as_tensor(self.counts.copy()),
            "skipped": self.skipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what had been learnt."""
        self.means, self.counts = (state[name].numpy().copy() for name in ("means", "counts"))
        self.skipped = state["skipped"]
