"""Batch norm estimated anew in place, by nothing but forward passes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the base of every batch norm


def norms_of(model: nn.Module) -> list[BatchNorm]:
    """Return every batch norm that keeps statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    ]


@contextmanager
def averaging_statistics(norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Let the statistics of batch norms become the plain means over the passes made meanwhile.

    Every batch is normalised by its own statistics then. Afterwards the norms are in evaluation
    mode. Source: Li et al. 2020 (EagleEye).
    """
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()
