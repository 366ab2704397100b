"""What a cut keeps of training: whether it is verified, and what its owner has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.emitting.rewrites import baked_sizes
from prunecli.plan import GRAPH
from prunecli.proof.in_training import TrainedCut, compare_in_training
from prunecli.report import TrainingMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan

EVALUATION_ONLY = (
    "the pruned model is a graph of evaluation: what the forward does in training alone (auxiliary "
    "heads, stochastic depth) does not come back in training"
)


def graph_training_warnings(network: Network) -> list[str]:
    """Say what a method that trains the graph of evaluation leaves out."""
    if not network.training.differs:
        return []
    return [
        (
            "this method trains a graph of evaluation: what the forward does in training alone "
            "(auxiliary heads, stochastic depth) has no effect while channels are chosen"
        )
    ]


def trained_mode(
    network: Network, slim: nn.Module, plan: PruningPlan, keep: NDArray[np.bool_], *, seed: int
) -> TrainingMode:
    """Return whether a cut that was made does in training what the masked original does there."""
    found = network.training
    if found.differs and plan.mode == GRAPH:
        return TrainingMode(verified=False, reason=EVALUATION_ONLY)
    cut = TrainedCut(
        network.model,
        slim,
        plan.slices,
        keep,
        trace=found.trace or network.trace,
        coupling=network.coupling,
        graph_failure=network.trace.recorded or (found.failure if found.trace is None else ""),
        zeroed=frozenset(name for block in network.deleted for name in block.zeroed),
    )
    return compare_in_training(cut, seed=seed)


def baked_in_training(
    network: Network, training: TrainingMode | None, keep: NDArray[np.bool_]
) -> dict[str, str]:
    """Return the groups whose size the forward may have written in for training, and where.

    Empty where the cut holds in training, or where there is nothing to be done about it.
    """
    traced = network.training.trace
    if traced is None or training is None or training.verified:
        return {}
    if training.reason == EVALUATION_ONLY:
        return {}
    return baked_sizes(traced, network.coupling, keep)


def training_warnings(network: Network, mode: str, training: TrainingMode | None) -> list[str]:
    """Say what is not known of the pruned model in training; for a plan, what will not be."""
    found, unused = network.training, network.trace.unused
    rebuilt = GRAPH in (mode, _planned_mode(network))
    told = unused and not network.trace.recorded
    warnings = [_unused_text(network, rebuilt=rebuilt)] if told else []
    if rebuilt and found.differs:
        return [*warnings, EVALUATION_ONLY]
    reason = found.failure if training is None else training.reason
    if reason:
        warnings.append(f"training mode of the pruned model is not verified: {reason}")
    elif found.failure:
        warnings.append(
            f"training mode of the pruned model was compared in one run alone: {found.failure}"
        )
    return warnings


def _planned_mode(network: Network) -> str:
    """Return the mode of a cut that is not made yet, where it is certain."""
    return "" if network.trace.folding is None and network.whole is None else GRAPH


def _unused_text(network: Network, *, rebuilt: bool) -> str:
    """Say what becomes of the parameters that evaluation never reads."""
    unused, training = network.trace.unused, network.training
    names = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
    count = f"{len(unused)} parameters are not used in evaluation ({names}): "
    if rebuilt:
        return count + "a graph of evaluation does not have them"
    if any(name in network.coupling.tensors for name in unused):
        return count + "they are cut where training lets them read removed channels"
    if training.differs and training.trace is None:
        return count + (
            "they are not cut, and in training they may not fit the pruned model, unless the "
            "example inputs hold what training needs (targets)"
        )
    return count + "they are left as they are"
