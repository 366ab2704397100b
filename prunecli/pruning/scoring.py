"""Score the channels of a traced network: by any signals, in one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prunecli.processes import shared
from prunecli.progress import Progress, silent
from prunecli.signals import PRESETS, needs_data, parse_signal, score_many
from prunecli.signals.score import point_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    """Return one saliency per atom under every signal, in one pass over the images.

    Where other processes can help (`processes.shared`), each looks at its batches.
    """
    looks = [signal for signal in signals if needs_data(signal)]
    work = partial(
        score_many,
        signals,
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        latency_removed=network.latency_removed(),
        dense_shapes=network.dense_shapes,
        batches=batches if looks else None,
        aggregate=options.aggregate,
        seed=options.seed,
        progress=progress,
    )
    if batches is None or options.dead or not any(point_of(signal) for signal in looks):
        return work()  # the others have the network with its dead channels
    # A signal of its own (least squares, a deletion tried out) has no sums that could be added up.
    return shared(_Scoring(tuple(looks), _state_of(network)), work)


@dataclass(frozen=True)
class _Scoring:
    """A pass over the images: for which signals, and of which network."""

    signals: tuple[str, ...]
    network: tuple[str, int]


def _state_of(network: Network) -> tuple[str, int]:
    """Return what tells a network from one that has lost blocks, or was traced elsewhere."""
    return network.coupling.fingerprint, network.coupling.atom_count


def help_score(
    network: Network, options: PruneOptions, batches: BatchSource | None, request: Any
) -> Callable[[], Any] | None:
    """Return this process's part of a pass over the images; None where it cannot help."""
    known = isinstance(request, _Scoring) and request.network == _state_of(network)
    if not known or batches is None:
        return None
    signals = [signal for signal in request.signals if point_of(signal) is not None]
    return partial(score_signals, network, signals, options, batches=batches)


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
