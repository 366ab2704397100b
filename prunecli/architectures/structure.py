"""What a network computes by, beside its weights: whether two models of one shape are the same."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# What serves training alone, or tells where weights are to be had.
_SILENT = frozenset(
    {
        "call_super_init",
        "default_cfg",
        "drop_prob",
        "drop_rate",
        "feature_info",
        "inplace",
        "num_classes",
        "p",
        "pretrained_cfg",
        "scale_by_keep",
        "training",
    }
)
_NOTHING = frozenset({"DropBlock2d", "DropPath", "Dropout", "Dropout2d", "PatchDropout"})


def structure_digest(module: nn.Module) -> str:
    """Return 16 hexadecimal digits over the classes, settings and buffers of all sub-modules.

    Equal digests and equal state dicts mean that two modules compute the same in evaluation mode,
    as long as they compute by nothing but what they hold.
    """
    lines = [
        f"{path} {line}"
        for path, part in module.named_modules(remove_duplicate=False)
        for line in _described(part)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _described(part: nn.Module) -> list[str]:
    kind = type(part).__qualname__
    if kind in _NOTHING:
        return ["Identity"]
    settings = [
        f"{name}={_plain(value)}"
        for name, value in sorted(vars(part).items())
        if name not in _SILENT and not name.startswith("_") and not isinstance(value, nn.Module)
    ]
    buffers = [f"{name}:{tuple(b.shape)}" for name, b in part.named_buffers(recurse=False)]
    return [kind, *settings, *buffers]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: str(item[0]))
        return f"{{{','.join(f'{key}:{_plain(item)}' for key, item in items)}}}"
    if isinstance(value, functools.partial):
        return f"partial({_plain(value.func)},{_plain(value.args)},{_plain(value.keywords)})"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, torch.Tensor):
        return f"tensor{tuple(value.shape)}"
    told = value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device)
    return repr(value) if told else type(value).__qualname__
