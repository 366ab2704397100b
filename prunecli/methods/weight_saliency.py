"""A signal of the weights alone, of a network as it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.signals import score_many

if TYPE_CHECKING:
    from torch import nn

    from prunecli.allocation import Saliency
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


def weight_saliency(
    network: Network, coupling: CouplingGraph, trained: nn.Module, options: PruneOptions
) -> Saliency:
    """Return the saliency of a signal of weights alone, one per atom of `coupling`.

    `trained` holds the weights of `network`, or of what is left of it, which `coupling` is then
    narrowed to.
    """
    widths = np.asarray([group.width for group in coupling.groups], np.int64)
    removed = {
        kind: np.repeat(network.cost.gradient(kind, widths), widths) for kind in ("params", "flops")
    }
    found = score_many(
        [options.signal],
        network.trace,
        coupling,
        {name: value.detach().cpu() for name, value in trained.state_dict().items()},
        weights_removed=removed["params"],
        flops_removed=removed["flops"],
        aggregate=options.aggregate,
        seed=options.seed,
        dense_shapes=network.dense_shapes,
    )
    return found[options.signal]
