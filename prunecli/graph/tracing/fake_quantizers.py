"""The switches of fake quantisers, which round in training as INT8 will: observing and rounding."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

OBSERVES = "observer_enabled"
ROUNDS = "fake_quant_enabled"


@contextmanager
def at_rest(*models: nn.Module, switch: str) -> Iterator[None]:
    """Turn a switch of all fake quantisers off, then restore it.

    One that observes takes part of what it sees into its ranges, in evaluation mode too.
    """
    found = switches(models, switch)
    held = [(value, value.detach().clone()) for value in found]
    try:
        with torch.no_grad():
            for value in found:
                value.zero_()
        yield
    finally:
        with torch.no_grad():
            for value, content in held:
                value.copy_(content)


def switches(models: tuple[nn.Module, ...], switch: str) -> list[Tensor]:
    """Return the tensors of one switch of all fake quantisers, each once."""
    named = (pair for model in models for pair in model.named_buffers())
    found = {id(value): value for name, value in named if name.rpartition(".")[2] == switch}
    return list(found.values())


def rounding(model: nn.Module) -> list[str]:
    """Return the paths of the fake quantisers of a model that round."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(enabled := getattr(module, ROUNDS, None), torch.Tensor) and bool(enabled)
    ]


def has_ranges(quantizer: nn.Module) -> bool:
    """Tell whether a fake quantiser has seen anything, as its observer tells; True without one."""
    observer = getattr(quantizer, "activation_post_process", None)
    lowest = getattr(observer, "min_val", None)
    if not isinstance(lowest, torch.Tensor):
        return True
    return bool(lowest.numel()) and bool(lowest.isfinite().all())
