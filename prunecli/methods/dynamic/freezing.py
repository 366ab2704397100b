"""The end of the search: the network of the channels that are kept, proven, its norms anew."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from prunecli.cutting.surgery import slices_of
from prunecli.data.pixels import normalise
from prunecli.graph.tracing.running import evaluating
from prunecli.proof.prove import prove
from prunecli.repair.norms import averaging_statistics, norms_of
from prunecli.training.loop import epoch_batches
from prunecli.training.method import Replacement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from prunecli.network.traced import Network
    from prunecli.training.method import TrainingRun

CALIBRATION = 1024
"""Training images that the statistics of batch norm are estimated on."""


def frozen_network(
    network: Network, keep: NDArray[np.bool_], run: TrainingRun
) -> tuple[Replacement, float]:
    """Return the network to go on with, and the error of its proof.

    The module of `network` holds what was trained, `run.bare` and `run.average` the slices that are
    kept. The statistics of batch norm are estimated anew, those of the average on its own weights:
    a channel that ran rarely has old ones. Raises `ProofError` unless the dense network with
    everything masked that is not kept equals the narrow one.
    """
    module, _ = network.graph_network(keep)
    verified = prove(
        network.model,
        module,
        slices_of(network.coupling, keep),
        keep,
        trace=network.trace,
        coupling=network.coupling,
        seed=run.seed,
    )
    module.to(run.device)
    statistics = {} if run.average is None else _averaged(module, run.average.model, run)
    estimate_norms_(module, run)

    def moved(name: str, value: Tensor) -> Tensor:
        return statistics.get(name, value)

    return Replacement(module, moved), verified.max_rel_error


def _averaged(module: fx.GraphModule, average: nn.Module, run: TrainingRun) -> dict[str, Tensor]:
    """Return the buffers of the average, as they are for its weights."""
    follower = copy.deepcopy(module)
    follower.load_state_dict(average.state_dict())
    estimate_norms_(follower, run)
    return dict(follower.named_buffers())


@torch.no_grad()
def estimate_norms_(module: nn.Module, run: TrainingRun) -> None:
    """Estimate the statistics of batch norm on training images as they are.

    All processes look at the same images, so that all have the same statistics.
    """
    norms = norms_of(module)
    if not norms:
        return
    recipe, size = run.recipe, run.recipe.options.batch_size
    batches = epoch_batches(len(recipe.images), size, seed=run.seed, epoch=run.epoch)
    with evaluating(module), averaging_statistics(norms):
        for images, _ in recipe.images.gather(batches[: -(-CALIBRATION // size)]):
            module(normalise(images.to(run.device), recipe.input))
