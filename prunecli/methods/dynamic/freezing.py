"""The end of the search: the network of the channels that are kept, proven, its norms anew."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from prunecli.methods.learning.norms import estimate_norms_
from prunecli.methods.setup import narrower_network
from prunecli.training.method import Replacement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from prunecli.network.traced import Network
    from prunecli.training.method import TrainingRun


def frozen_network(
    network: Network, keep: NDArray[np.bool_], run: TrainingRun
) -> tuple[Replacement, float]:
    """Return the network to go on with, and the error of its proof.

    The module of `network` holds what was trained, `run.bare` and `run.average` the slices that are
    kept. The statistics of batch norm are estimated anew, those of the average on its own weights:
    a channel that ran rarely has old ones. Raises `ProofError` unless the dense network with
    everything masked that is not kept equals the narrow one.
    """
    module, error = narrower_network(network, keep, seed=run.seed)
    module.to(run.device)
    statistics = {} if run.average is None else _averaged(module, run.average.model, run)
    estimate_norms_(run, module)

    def moved(name: str, value: Tensor) -> Tensor:
        return statistics.get(name, value)

    return Replacement(module, moved), error


def _averaged(module: fx.GraphModule, average: nn.Module, run: TrainingRun) -> dict[str, Tensor]:
    """Return the buffers of the average, as they are for its weights."""
    follower = copy.deepcopy(module)
    follower.load_state_dict(average.state_dict())
    estimate_norms_(run, follower)
    return dict(follower.named_buffers())
