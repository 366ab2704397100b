"""Layers that are not trained: their weights and the statistics of their batch norms stay."""

from __future__ import annotations

import fnmatch
from itertools import accumulate
from typing import TYPE_CHECKING

from torch.nn.modules.batchnorm import _NormBase

from prunecli.errors import InputError
from prunecli.wording import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern names a module or tensor, or a module that it is in.

    >>> is_frozen("features.0.conv.weight", ["features.0"]), is_frozen("features.10", ["*s.1"])
    (True, False)
    """
    paths = accumulate(name.split("."), lambda outer, part: f"{outer}.{part}")
    return any(fnmatch.fnmatchcase(path, pattern) for path in paths for pattern in patterns)


def check_frozen(model: nn.Module, patterns: Sequence[str]) -> None:
    """Raise `InputError`: `NO_SUCH_LAYER` for a pattern of nothing, `NOTHING_TO_TRAIN` for all."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(is_frozen(name, [pattern]) for name in names):
            layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
            raise InputError(
                f"--freeze {pattern} matches no layer with weights",
                code="NO_SUCH_LAYER",
                hint=f"layers are called {some(layers)}; prunecli analyze lists them all",
            )
    if patterns and all(is_frozen(name, patterns) for name in names):
        raise InputError(
            "--freeze leaves nothing to train",
            code="NOTHING_TO_TRAIN",
            hint="freeze fewer layers: the classifier at least is to be trained",
        )


def check_head_trained(head: str, patterns: Sequence[str]) -> None:
    """Raise `InputError` (`BAD_OPTION`) for a new classifier that would stay as it was drawn."""
    for pattern in patterns:
        if is_frozen(f"{head}.weight", [pattern]):
            raise InputError(
                f"--freeze {pattern} keeps the new classifier {head} from being trained",
                code="BAD_OPTION",
                hint=f"freeze layers in front of {head}, or leave --new-head out",
            )


def freeze_(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take the parameters that a pattern names out of training."""
    for name, parameter in model.named_parameters():
        if is_frozen(name, patterns):
            parameter.requires_grad = False


def hold_statistics_(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take the batch norms that a pattern names out of training mode."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and is_frozen(name, patterns):
            module.eval()
