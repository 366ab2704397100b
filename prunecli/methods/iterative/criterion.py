"""Where the saliencies of a removal come from: from training itself, wherever that is possible."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from prunecli.errors import GraphError
from prunecli.network.traced import read_network
from prunecli.progress import silent
from prunecli.pruning.scoring import score_signals
from prunecli.signals import needs_data
from prunecli.signals.accumulate import follows_training
from prunecli.signals.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from prunecli.allocation import Saliency
    from prunecli.evaluation.batches import Batches
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


def criterion_of(signal: str) -> str:
    """Say where a signal is taken."""
    if follows_training(signal):
        return "accumulated during the updates"
    if needs_data(signal):
        return "scored between the updates, on their images"
    return "from the weights at each removal"


def subject_of(network: Network, coupling: CouplingGraph, options: PruneOptions) -> Subject:
    """Return what signals see of the network that `coupling`, a narrowed one, is left of."""
    widths = np.asarray([group.width for group in coupling.groups], np.int64)
    removed = {
        kind: np.repeat(network.cost.gradient(kind, widths), widths) for kind in ("params", "flops")
    }
    return Subject(
        signal=options.signal,
        trace=network.trace,
        coupling=coupling,
        tensors=network.tensors,
        weights_removed=removed["params"],
        flops_removed=removed["flops"],
        latency_removed=np.ones(coupling.atom_count),
        dense_shapes=network.dense_shapes,
        batches=None,
        aggregate=options.aggregate,
        seed=options.seed,
        progress=silent,
    )


def saliency_between(
    coupling: CouplingGraph,
    slim: nn.Module,
    options: PruneOptions,
    *,
    network: Network,
    batches: Callable[[], Batches],
) -> Saliency:
    """Return the saliency of any signal, by a pass of its own over a fresh trace of `slim`.

    `slim` is what is left of `network`; it is on the CPU, in eval mode for it, and has no taps.
    """
    traced = read_network(slim, network.trace.example)
    traced = dataclasses.replace(traced, dense_shapes=network.dense_shapes)
    found = score_signals(traced, [options.signal], options, batches=batches)[options.signal]
    own = {group.name: group for group in traced.coupling.groups}
    result = np.empty(coupling.atom_count)
    for group in coupling.groups:
        seen = own.get(group.name)
        if seen is None or seen.width != group.width:
            raise GraphError(
                f"the channels of {group.name} are other ones after a cut",
                code="NOT_SCORABLE",
                where=group.name,
                hint="use a signal of activations (taylor, fisher), which needs no new trace",
            )
        result[group.atoms] = found[seen.atoms]
    return result
