"""Score the channels of a traced network: by any signals, in one pass over the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.progress import Progress, silent
from prunecli.signals import PRESETS, needs_data, parse_signal, score_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.allocation import Saliency
    from prunecli.dead.removal import WithoutDead
    from prunecli.evaluation.batches import BatchSource
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
    batches: BatchSource | None = None,
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
    batches: BatchSource | None = None,
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


def score_living(
    living: WithoutDead,
    signals: Sequence[str],
    options: PruneOptions,
    *,
    batches: BatchSource | None = None,
    progress: Progress = silent,
) -> dict[str, Saliency]:
    """Return the saliencies as a budget should see them where dead channels are gone."""
    found = score_signals(living.network, signals, options, batches=batches, progress=progress)
    return {name: living.ranked(saliency) for name, saliency in found.items()}
