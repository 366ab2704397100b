"""The proof of a sparse network: equal to the dense one times its masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunecli.errors import ProofError
from prunecli.graph.tracing.record import tensors_in
from prunecli.graph.tracing.running import evaluating
from prunecli.proof.bits import same_bits
from prunecli.report import Verified

if TYPE_CHECKING:
    from collections.abc import Mapping


TOLERANCE = 1e-6
"""Largest difference of outputs, relative to their size, that is put down to rounding."""


METHOD = "dense x mask"


@torch.no_grad()
def prove_masked(
    dense: nn.Module, sparse: nn.Module, masks: Mapping[str, Tensor], example: tuple[Any, ...]
) -> Verified:
    """Return the largest difference of outputs between dense weights times mask and `sparse`.

    The weights themselves must be equal bit by bit. Raises `ProofError` (`MASK_MISMATCH`).
    """
    ours = sparse.state_dict()
    expected = masked_tensors(dense.state_dict(), masks)
    wrong = [name for name, value in expected.items() if not same_bits(value, ours[name])]
    with evaluating(dense, sparse):
        reference = functional_call(dense, expected, example, tie_weights=False)
        error = output_difference(sparse(*example), reference)
    if wrong or not error <= TOLERANCE:
        raise ProofError(
            f"the sparse model is not the dense one times its masks: {len(wrong)} tensors "
            f"differ, the outputs by {error:.1e}",
            code="MASK_MISMATCH",
            where=wrong[0] if wrong else None,
            hint="nothing was written; a forward that draws random numbers cannot be proven",
        )
    return Verified(METHOD, error)


def masked_tensors(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with zeros where their masks leave something out."""
    return {
        name: value.masked_fill(~masks[name].to(value.device), 0.0) if name in masks else value
        for name, value in tensors.items()
    }


def output_difference(found: Any, expected: Any) -> float:
    """Return the largest difference of two outputs relative to their size; infinite where unlike.

    0 where both have nothing but zeros.
    """
    pairs = list(zip(tensors_in(found), tensors_in(expected), strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    largest = max((float(other.abs().max()) for _, other in pairs if other.numel()), default=0.0)
    worst = max(
        (float((one - other).abs().max()) for one, other in pairs if one.numel()), default=0.0
    )
    return worst / largest if largest else worst
