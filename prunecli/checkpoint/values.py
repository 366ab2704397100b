"""Which values weights may have: plain finite numbers, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_SHOWN = 5


def check_kinds(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `InputError` for tensors that have no plain values."""
    odd = {
        name: kind
        for name, tensor in tensors.items()
        for kind, applies in (
            ("without values (meta)", tensor.is_meta),
            ("quantised", tensor.is_quantized),
            ("sparse", tensor.layout != torch.strided),
            ("complex", tensor.is_complex()),
        )
        if applies
    }
    if odd:
        name, kind = next(iter(odd.items()))
        raise InputError(
            f"{len(odd)} tensors are not plain numbers; {name} is {kind}",
            code="UNSUPPORTED_TENSORS",
            where=str(path),
            hint="save the float32 model",
        )


def as_float32(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return floating tensors as float32, and a note when that changed any."""
    changed = {
        str(tensor.dtype).removeprefix("torch.")
        for tensor in tensors.values()
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    converted = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    kinds = ", ".join(sorted(changed))
    return converted, (f"{kinds} weights were converted to float32",) if changed else ()


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `InputError` (`NAN_WEIGHTS`) with the tensors that hold NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if not bad:
        return
    counts = [f"{name} ({int((~torch.isfinite(tensors[name])).sum())})" for name in bad[:_SHOWN]]
    more = f", and {len(bad) - _SHOWN} more tensors" if len(bad) > _SHOWN else ""
    raise InputError(
        f"the weights hold values that are NaN or infinite: {', '.join(counts)}{more}",
        code="NAN_WEIGHTS",
        where=str(path),
        hint="training has probably diverged; take an earlier checkpoint",
    )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # NaN and infinity go through a sum, which is ten times as fast as looking at every element.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
