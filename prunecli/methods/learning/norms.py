"""Batch norm estimated anew, once other channels are alive than those that it has seen."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from prunecli.data.pixels import normalise
from prunecli.training.loop import epoch_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from prunecli.training.method import TrainingRun

BatchNorm = torch.nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the base of every batch norm

BATCHES = 32
"""Batches of training images that statistics are taken over."""


@torch.no_grad()
def estimate_norms_(run: TrainingRun, network: nn.Module) -> int:
    """Set the statistics of every batch norm to their mean over some batches; return how many.

    All processes see the same images. The network is left as it was otherwise.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    norms = [norm for norm in norms if norm.num_batches_tracked is not None]
    if not norms:
        return 0
    recipe = run.recipe
    drawn = epoch_batches(
        len(recipe.images), recipe.options.batch_size, seed=run.seed, epoch=run.epoch
    )
    was_training = network.training
    network.train()
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(_averaging(norm))
        for images, _ in recipe.images.gather(drawn[:BATCHES]):
            if len(images) < 2:
                continue
            placed = images.to(run.device)
            with recipe.accelerator.autocast():
                network(normalise(placed, recipe.input, memory_format=run.memory_format))
    network.train(was_training)
    return len(norms)


@contextmanager
def _averaging(norm: BatchNorm) -> Iterator[None]:
    """Let statistics be the plain mean over batches, from none."""
    momentum = norm.momentum
    norm.reset_running_stats()
    norm.momentum = None
    try:
        yield
    finally:
        norm.momentum = momentum
