"""Sparse weights at rest: the kept values, and which they are, in bits or in gaps.

A masked tensor `name` is stored as two: `name#values`, the kept values in their own type, and
either `name#bits`, one bit for every weight, or `name#gaps`, one byte for every kept weight that
says how many were skipped before it, whichever is smaller. A gap of 255 or more takes further
bytes, and so do the weights behind the last kept one.

Files come from strangers: a shape is believed only where it agrees with the size of what is stored,
so that a few bytes cannot fill the memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prunecli.errors import LoadRefusedError
from prunecli.files import check_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCHEMA = 1
VALUES, BITS, GAPS = "#values", "#bits", "#gaps"
SKIP = 255
"""A byte of a gap that stands for so many skipped weights and none kept."""

MOST_EXPANSION = 256
"""Times that a tensor may be larger than what is stored of it; sparser ones are stored in bits."""


def pack(
    tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return what is stored of the tensors, and its description; None where nothing is masked.

    `masks` are boolean, in the shapes of their tensors; what they leave out is not stored.
    """
    if not masks:
        return dict(tensors), None
    stored: dict[str, Tensor] = {}
    described: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name not in masks:
            stored[name] = tensor
            continue
        mask = masks[name].detach().cpu().reshape(-1)
        values = tensor.detach().cpu().reshape(-1)[mask]
        suffix, places = _smaller(mask.numpy(), values)
        described[name] = {"shape": list(tensor.shape), "places": suffix}
        stored[name + VALUES] = values
        stored[name + suffix] = torch.from_numpy(places)
    return stored, {"schema": SCHEMA, "tensors": described}


def unpack(
    stored: Mapping[str, Tensor], description: Any, *, where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors with their zeros, and the masks; raise `LoadRefusedError` for nonsense.

    Nothing is allocated before the sizes of a tensor are known to agree.
    """
    tensors = dict(stored)
    if description is None:
        return tensors, {}
    masks: dict[str, Tensor] = {}
    try:
        if description["schema"] != SCHEMA:
            raise LoadRefusedError(
                f"the sparse weights have schema {description['schema']}, and this version reads "
                f"{SCHEMA}",
                code="FORMAT_VERSION",
                where=where,
                hint="use the prunecli version that wrote the file",
            )
        for name, facts in description["tensors"].items():
            values, places = stored[name + VALUES], stored[name + facts["places"]]
            _check_agreement(places, facts, values, taken=name in stored)
        check_memory(_restored_bytes(tensors, description), Path(where), what="its sparse weights")
        for name, facts in description["tensors"].items():
            values, places = tensors.pop(name + VALUES), tensors.pop(name + facts["places"])
            mask = _restored_mask(places, facts, values)
            dense = torch.zeros(mask.shape, dtype=values.dtype)
            dense[mask] = values
            tensors[name], masks[name] = dense, mask
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LoadRefusedError(
            f"the sparse weights in this file are damaged: {error!r}",
            code="CORRUPT_FILE",
            where=where,
            hint="write it again, or take another copy",
        ) from error
    return tensors, masks


def _restored_bytes(stored: Mapping[str, Tensor], description: Any) -> int:
    """Return the bytes of all tensors with their zeros."""
    return sum(
        math.prod(_shape(facts["shape"])) * stored[name + VALUES].element_size()
        for name, facts in description["tensors"].items()
    )


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
        raise ValueError(f"{value!r} is no shape")
    return tuple(value)


def _smaller(mask: NDArray[np.bool_], values: Tensor) -> tuple[str, NDArray[np.uint8]]:
    bits, gaps = np.packbits(mask), to_gaps(mask)
    room = gaps.size + values.numel() * values.element_size()
    fine = mask.size * values.element_size() <= MOST_EXPANSION * room
    return (GAPS, gaps) if gaps.size < bits.size and fine else (BITS, bits)


def to_gaps(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the bytes of the gaps before every kept weight, and of what is behind the last.

    >>> to_gaps(np.asarray([False, True, True, False])).tolist()
    [1, 0, 1]
    """
    at = np.append(np.flatnonzero(mask), mask.size)
    gaps = np.diff(at, prepend=-1) - 1
    skips = gaps // SKIP
    ends = np.cumsum(skips + 1) - 1
    codes = np.full(int(ends[-1]) + 1, SKIP, np.uint8)
    codes[ends] = gaps % SKIP
    return codes


def _from_gaps(codes: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    stops = codes != SKIP
    # A byte that is no skip stands for one weight more: the kept one, or the end.
    behind = np.cumsum(codes.astype(np.int64) + stops)
    if not codes.size or not stops[-1] or behind[-1] != size + 1:
        raise ValueError(f"its gaps do not add up to {size} weights")
    mask = np.zeros(size, np.bool_)
    mask[behind[stops][:-1] - 1] = True
    return mask


def _from_bits(codes: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    if codes.size != -(-size // 8):
        raise ValueError(f"{codes.size} bytes of bits are not those of {size} weights")
    if np.unpackbits(codes[-1:])[size % 8 or 8 :].any():
        raise ValueError("a bit behind the last weight is set")
    return np.unpackbits(codes, count=size).astype(np.bool_)


_PLACES = {BITS: _from_bits, GAPS: _from_gaps}


def _check_agreement(
    places: Tensor, facts: Mapping[str, Any], values: Tensor, *, taken: bool
) -> None:
    """Raise `ValueError` where the sizes or types of one tensor do not agree."""
    shape = _shape(facts["shape"])
    size, each = math.prod(shape), values.element_size()
    room = places.numel() + values.numel() * each
    wrong = (
        (taken, "it is there twice"),
        (values.dim() != 1 or not values.is_floating_point(), "its values are no list of numbers"),
        (places.dim() != 1 or places.dtype != torch.uint8, "its places are no list of bytes"),
        (size * each > MOST_EXPANSION * room, f"{size} weights in {room} bytes"),
    )
    for applies, message in wrong:
        if applies:
            raise ValueError(message)


def _restored_mask(places: Tensor, facts: Mapping[str, Any], values: Tensor) -> Tensor:
    """Return the mask of one tensor; raise `ValueError` where its places are not those."""
    shape = _shape(facts["shape"])
    mask = _PLACES[facts["places"]](places.numpy(), math.prod(shape))
    if int(mask.sum()) != values.numel():
        raise ValueError(f"{int(mask.sum())} places for {values.numel()} values")
    return torch.from_numpy(mask).reshape(shape)
