"""Score the channels of a traced network: by any signals, in one pass over the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.progress import Progress, silent
from prunecli.signals import PRESETS, needs_data, parse_signal, score_many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prunecli.allocation import Saliency
    from prunecli.evaluation.outputs import Batches
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


def check_signal(name: str) -> None:
    """Raise `InputError` for a name that is neither a preset nor a point of the taxonomy."""
    if "/" in name:
        parse_signal(name)
    else:
        PRESETS.get(name)


def score_network(
    network: Network,
    options: PruneOptions,
    *,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> Saliency:
    """Return one saliency per atom; NaN where the signal cannot see it."""
    found = score_signals(network, [options.signal], options, batches=batches, progress=progress)
    return found[options.signal]


def score_signals(
    network: Network,
    signals: Sequence[str],
    options: PruneOptions,
    *,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> dict[str, Saliency]:
    """Return one saliency per atom under every signal, in one pass over the images."""
    return score_many(
        signals,
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        latency_removed=network.latency_removed(),
        dense_shapes=network.dense_shapes,
        batches=batches if any(needs_data(signal) for signal in signals) else None,
        aggregate=options.aggregate,
        seed=options.seed,
        progress=progress,
    )
