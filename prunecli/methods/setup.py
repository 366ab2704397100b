"""What a method that trains while it prunes starts from, and the cut that it makes on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.cutting.surgery import slices_of
from prunecli.proof.prove import prove

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.evaluation.batches import Images
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


@dataclass(frozen=True)
class Setup:
    """What is cut, to which budget, and how: what of a run stays the same.

    `network` is the dense one: what is trained is written back into its module before a cut, so
    that each cut is one from the dense network. `rehearsed` are the widths that the budget took
    before any training, `held` says why groups stay whole, `images` are some to look at before.
    """

    network: Network
    budget: Budget
    options: PruneOptions
    rehearsed: Widths
    held: Mapping[str, str]
    images: Images


def narrower(setup: Setup, keep: NDArray[np.bool_]) -> tuple[fx.GraphModule, float]:
    """Return the network that keeps these atoms, and the error of its proof.

    The dense module has to hold what was trained. Raises `ProofError` unless the dense network with
    everything masked that is not kept equals the narrower one.
    """
    return narrower_network(setup.network, keep, seed=setup.options.seed)


def narrower_network(
    network: Network, keep: NDArray[np.bool_], *, seed: int
) -> tuple[fx.GraphModule, float]:
    """Return what `narrower` does, of a network without a setup; blocks may be deleted of it."""
    graph, _ = network.graph_network(keep)
    verified = prove(
        network.model,
        graph,
        slices_of(network.coupling, keep),
        keep,
        trace=network.trace,
        coupling=network.coupling,
        zeroed=network.silenced,
        seed=seed,
    )
    return graph, verified.max_rel_error
