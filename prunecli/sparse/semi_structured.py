"""Run 2:4 masks on the sparse matrix units of a GPU, through torch's semi-structured tensors."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunecli.errors import DeviceError, InputError
from prunecli.options.granularity import Pattern
from prunecli.sparse.patterns import reduction_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

HARDWARE = Pattern(2, 4)
"""The pattern that the hardware knows."""

MULTIPLES = (32, 64)
"""Rows and columns of a weight come in multiples of these (torch's kernels for 16-bit numbers)."""

TYPES = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
"""The first generation of GPUs with sparse matrix units (Ampere)."""


@dataclass(frozen=True)
class SemiStructured:
    """A network on its device, which linear layers run sparse, and why others do not."""

    model: nn.Module
    converted: tuple[str, ...]
    left: Mapping[str, str]


def has_pattern(weight: Tensor, pattern: Pattern = HARDWARE, input_dim: int = 1) -> bool:
    """Tell whether every group of a weight's inputs keeps as few as the pattern says."""
    if (weight.shape[input_dim]) % pattern.of:
        return False
    groups = reduction_matrix(weight.detach(), input_dim).reshape(-1, pattern.of)
    return bool((groups.count_nonzero(dim=1) <= pattern.keep).all())


def sort_out(model: nn.Module) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the linear layers that can run sparse, and why others cannot; any device will do."""
    fitting, left = [], {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        shape = tuple(module.weight.shape)
        if type(module) is not nn.Linear:
            left[name] = f"{type(module).__name__} is run by something else than itself"
        elif not has_pattern(module.weight):
            left[name] = f"its weights are not {HARDWARE}"
        elif any(size % multiple for size, multiple in zip(shape, MULTIPLES, strict=True)):
            left[name] = "{}x{} is no multiple of {}x{}".format(*shape, *MULTIPLES)
        else:
            fitting.append(name)
    return tuple(fitting), left


def to_semi_structured(
    model: nn.Module,
    *,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.float16,
) -> SemiStructured:
    """Return a copy of `model` on a GPU, in 16 bits, whose 2:4 linear layers run sparse.

    It takes inputs of that type on that device, and is for inference. Convolutions stay dense:
    torch has no sparse kernel for them. Raises `DeviceError` (`NO_SPARSE_UNITS`) where the device
    has none, and `InputError` (`BAD_OPTION`, `NOTHING_TO_CONVERT`).
    """
    if dtype not in TYPES:
        raise InputError(
            f"2:4 products take 16-bit numbers, not {dtype}",
            code="BAD_OPTION",
            hint="use torch.float16 or torch.bfloat16",
        )
    fitting, left = sort_out(model)
    if not fitting:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:3])
        raise InputError(
            "no linear layer can run sparse" + (f" ({told})" if told else ": there is none"),
            code="NOTHING_TO_CONVERT",
            hint="zero weights with prunecli prune --granularity 2:4 first",
        )
    check_device(torch.device(device))
    placed = copy.deepcopy(model).to(device=device, dtype=dtype).eval()
    placed.requires_grad_(requires_grad=False)
    for name in fitting:
        layer = placed.get_submodule(name)
        weight = layer.get_parameter("weight").contiguous()
        sparse = torch.sparse.to_sparse_semi_structured(weight)
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return SemiStructured(placed, fitting, left)


def check_device(device: torch.device) -> None:
    """Raise `DeviceError` unless the device multiplies 2:4 matrices."""
    reason = None
    if device.type != "cuda":
        reason = f"a {device.type} device has no sparse matrix units"
    elif not torch.cuda.is_available():
        reason = "there is no CUDA device"
    elif torch.cuda.get_device_capability(device) < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        reason = f"{name} is older than the first GPUs with sparse matrix units"
    if reason is not None:
        raise DeviceError(
            f"2:4 weights cannot run sparse here: {reason}",
            code="NO_SPARSE_UNITS",
            hint="load without semi_structured: the zeros are then multiplied like other weights",
        )
