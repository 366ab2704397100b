"""Remove channels as they would be removed, for a trial, and measure the loss."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from prunecli.dead.compensate import Settled, changed_tensors, move, settle
from prunecli.evaluation.scores import (
    NO_TENSORS,
    Scores,
    UnscorableError,
    exact_sum,
    score_on,
)
from prunecli.progress import Progress, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.dead.readers import Use
    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network

TOGETHER = "with the others gone the loss would change by more than the threshold"


@dataclass(frozen=True)
class Trial:
    """A network, the images to measure on, and the change of the loss that is allowed."""

    network: Network
    uses: Sequence[Use]
    batches: BatchSource
    threshold: float
    progress: Progress

    @cached_property
    def _dense(self) -> nn.Module:
        return dense_graph(self.network)

    @cached_property
    def _loss(self) -> float:
        found = score(self._dense, self.batches)
        return float("nan") if found is None else found.loss

    def change(self, settled: Settled) -> float:
        """Return how the mean loss changes without the channels that are settled to go."""
        moved = move(self.network, self.uses, settled)
        changed = changed_tensors(self.network, settled.gone, moved)
        found = score(self._dense, self.batches, changed)
        return float("nan") if found is None else found.loss - self._loss


def below_threshold(
    trial: Trial, exact: NDArray[np.bool_], changes: NDArray[np.float64]
) -> Settled:
    """Return what goes: the channels that are `exact`, and as many others as the threshold allows.

    `changes` holds the penalty of every other channel, alone; infinite where it is too large.
    Channels of little penalty each may matter much together: those of the least penalty go, as
    many as a bisection finds that change the loss by no more than the threshold together.
    """
    order = np.argsort(changes, kind="stable")[: int(np.isfinite(changes).sum())]

    def settled(count: int, accepted: NDArray[np.bool_]) -> Settled:
        wanted = exact.copy()
        wanted[order[:count]] = True
        return settle(trial.network, trial.uses, wanted, accepted=accepted)

    found = settled(len(order), np.zeros_like(exact))
    accepted = _harmless(trial, found.borders)
    low, high = 0, len(order)
    while low < high:
        trial.progress(Step("measuring channels together", high - low))
        middle = (low + high + 1) // 2
        if trial.change(settled(middle, accepted)) <= trial.threshold:
            low = middle
        else:
            high = middle - 1
    found = settled(low, accepted)
    left = dict.fromkeys(order[low:].tolist(), TOGETHER)
    return dataclasses.replace(found, stays={**found.stays, **left})


def _harmless(trial: Trial, borders: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the channels whose removal, border and all, changes the loss by little enough.

    Each is removed alone, as it would be: one forward per channel over all images.
    """
    accepted = np.zeros_like(borders)
    atoms = np.flatnonzero(borders).tolist()
    for count, atom in enumerate(atoms):
        trial.progress(Step("measuring borders", count, len(atoms)))
        alone = np.zeros_like(borders)
        alone[atom] = True
        settled = settle(trial.network, trial.uses, alone, accepted=alone)
        if settled.gone[atom]:
            accepted[atom] = abs(trial.change(settled)) <= trial.threshold
    return accepted


def dense_graph(network: Network) -> nn.Module:
    """Return the graph of the whole network."""
    module, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    return module


def score(
    module: nn.Module, batches: BatchSource, changed: Mapping[str, Tensor] = NO_TENSORS
) -> Scores | None:
    """Return the scores of a network; None for what is no classifier.

    `changed` holds tensors that take the place of the module's own.
    """
    try:
        return score_on(module, batches, tensors=changed, summed=exact_sum)
    except UnscorableError:
        return None
