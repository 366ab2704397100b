"""Put other layers into a network, as the checked data of `prunecli.architectures.changes` says."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunecli.architectures.changes import LAYER, OWN, refused_change
from prunecli.architectures.skeleton import Skeleton

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prunecli.architectures.reference import ArchitectureRef


def apply_(module: nn.Module, architecture: ArchitectureRef, *, device: str) -> nn.Module:
    """Put the checked changes of a reference into its module, in place; return it in eval mode.

    Raises `InputError` (`CHANGE_REFUSED`) for a place that the module does not have.
    """
    with Skeleton(meta=device == "meta"):
        for path, described in architecture.changes.items():
            holder, _, leaf = path.rpartition(".")
            try:
                before = module.get_submodule(path)
                setattr(module.get_submodule(holder), leaf, _made(described, before))
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                raise refused_change(architecture, f"{path}: {error}") from error
    return module.to(device).eval()


def _made(described: Any, before: nn.Module) -> nn.Module:
    if not isinstance(described, list):
        return _layer(described, before)
    own = list(before.children()) if isinstance(before, nn.Sequential) else []
    return nn.Sequential(
        *(own[one["index"]] if one[LAYER] == OWN else _layer(one, before) for one in described)
    )


def _layer(described: Mapping[str, Any], before: nn.Module) -> nn.Module:
    given = {name: value for name, value in described.items() if name != LAYER}
    return MAKERS[described[LAYER]](before, **given)


def _linear(_: nn.Module, *, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=bias)


def _convolution(before: nn.Module, **changed: Any) -> nn.Module:
    """Return the convolution that stood there with other inputs, kernel, stride or padding."""
    if not isinstance(before, nn.Conv2d):
        raise TypeError(f"a {type(before).__name__} stands there, and no convolution")
    conv = copy.deepcopy(before)
    conv.in_channels = changed.get("inputs", conv.in_channels)
    conv.kernel_size = _pair(changed.get("kernel", conv.kernel_size))
    conv.stride = _pair(changed.get("stride", conv.stride))
    if "padding" in changed:
        conv.padding = _pair(changed["padding"])
    shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    conv.weight = _nothing(shape)
    if "bias" in changed:
        conv.bias = _nothing((conv.out_channels,)) if changed["bias"] else None
    return conv


def _nothing(shape: tuple[int, ...]) -> nn.Parameter:
    """Return a parameter of zeros, or without memory where nothing has any (`Skeleton`)."""
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.zero_())


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[-1]) if isinstance(value, list | tuple) else (value, value)


def _plain(kind: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    return lambda _: kind()


MAKERS: Mapping[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "batch-norm": lambda _, features: nn.BatchNorm1d(features),
    "layer-norm": lambda _, features: nn.LayerNorm(features),
    "convolution": _convolution,
    "average": lambda _: nn.AdaptiveAvgPool2d(1),
    "dropout": _plain(nn.Dropout),
    "elu": _plain(nn.ELU),
    "gelu": _plain(nn.GELU),
    "hardswish": _plain(nn.Hardswish),
    "identity": _plain(nn.Identity),
    "leaky-relu": _plain(nn.LeakyReLU),
    "relu": _plain(nn.ReLU),
    "silu": _plain(nn.SiLU),
    "tanh": _plain(nn.Tanh),
}
"""How a layer is made: of the module that stood there, and its arguments."""
