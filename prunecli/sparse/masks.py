"""Masks of weights: chosen, applied, and counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.errors import InputError
from prunecli.report import LayerSparsity, SparsityReport
from prunecli.sparse.allocation import WeightProblem, allocate_weights, keep_masks
from prunecli.sparse.layers import WeightLayer
from prunecli.sparse.patterns import fits, pattern_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.options.granularity import Pattern

Masks = dict[str, Tensor]
"""Boolean, by parameter: which weights are kept."""


def masks_of_sparsity(
    layers: Sequence[WeightLayer],
    saliencies: Sequence[NDArray[np.float64]],
    weights: Mapping[str, Tensor],
    *,
    sparsity: float,
    allocation: str,
    held: Mapping[str, str],
    before: Mapping[str, Tensor],
) -> Masks:
    """Return masks under which the share `sparsity` of all weights of `layers` is zero, exactly.

    `held` names the layers that stay as they are; weights that `before` masks stay masked. Raises
    `InputError` (`ALREADY_WITHIN_BUDGET`) where more is zero already, and `GateError`.
    """
    flat = [_flat_mask(layer, before) for layer in layers]
    live = np.asarray([int(mask.sum()) for mask in flat], np.int64)
    total = sum(layer.size for layer in layers)
    keep = total - round(sparsity * total)
    if keep > live.sum() or (keep == live.sum() and before):
        raise InputError(
            f"nothing to zero: {1 - live.sum() / total:.4f} of the weights are zero already",
            code="ALREADY_WITHIN_BUDGET",
            hint="ask for a higher --sparsity",
        )
    fast = np.asarray([layer.name in held for layer in layers])
    problem = WeightProblem(
        shapes=tuple(layer.shape for layer in layers),
        saliencies=tuple(
            np.where(mask, own, -np.inf) for mask, own in zip(flat, saliencies, strict=True)
        ),
        magnitudes=tuple(
            weights[layer.name].detach().abs().double().cpu().reshape(-1).numpy()
            for layer in layers
        ),
        keep=keep,
        floors=np.where(fast, live, np.minimum(live, 1)),
        ceilings=live,
    )
    kept = keep_masks(problem.saliencies, allocate_weights(allocation, problem))
    return {
        layer.name: torch.from_numpy(mask).reshape(layer.shape)
        for layer, mask in zip(layers, kept, strict=True)
        if layer.name not in held
    }


def masks_of_pattern(
    layers: Sequence[WeightLayer],
    saliencies: Sequence[NDArray[np.float64]],
    pattern: Pattern,
    *,
    held: Mapping[str, str],
    before: Mapping[str, Tensor],
) -> Masks:
    """Return the masks of n:m sparsity of every layer that is not frozen."""
    masks = {}
    for layer, own in zip(layers, saliencies, strict=True):
        if layer.name in held:
            continue
        live = _flat_mask(layer, before)
        ranked = torch.from_numpy(np.where(live, own, -np.inf)).reshape(layer.shape)
        kept = pattern_mask(ranked, pattern, layer.input_dim)
        masks[layer.name] = kept & torch.from_numpy(live).reshape(layer.shape)
    return masks


def unfit(layers: Sequence[WeightLayer], pattern: Pattern) -> dict[str, str]:
    """Return why layers cannot have a pattern: their inputs do not divide into its groups."""
    return {
        layer.name: f"its {layer.inputs} inputs are no multiple of {pattern.of}"
        for layer in layers
        if not fits(layer.inputs, pattern)
    }


def _flat_mask(layer: WeightLayer, masks: Mapping[str, Tensor]) -> NDArray[np.bool_]:
    mask = masks.get(layer.name)
    if mask is None:
        return np.ones(layer.size, np.bool_)
    return np.asarray(mask.reshape(-1).cpu().numpy(), np.bool_)


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero what the masks leave out, in place; other values keep their bits."""
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        weight.masked_fill_(~mask.to(weight.device), 0.0)


def with_all_names(model: nn.Module, masks: Mapping[str, Tensor]) -> Masks:
    """Return the masks under every name that a shared parameter has; of parameters alone."""
    named = dict(model.named_parameters(remove_duplicate=False))
    by_identity = {id(named[name]): mask for name, mask in masks.items() if name in named}
    return {
        name: by_identity[id(parameter)]
        for name, parameter in named.items()
        if id(parameter) in by_identity
    }


def layers_of(model: nn.Module, masks: Mapping[str, Tensor], facts: object) -> list[WeightLayer]:
    """Return the layers that a sparsity is a share of: those that an artefact's facts list.

    Without such facts, which are anybody's, those that have a mask.
    """
    kept = facts.get("keep") if isinstance(facts, Mapping) else None
    listed = kept if isinstance(kept, Mapping) and masks.keys() <= kept.keys() else masks
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    return [WeightLayer(name, shapes[name], 1, 1) for name in listed if name in shapes]


def sparsity_report(
    layers: Sequence[WeightLayer],
    masks: Mapping[str, Tensor],
    *,
    granularity: str,
    point: str,
    held: Mapping[str, str] | None = None,
) -> SparsityReport:
    """Return how many weights of every layer the masks keep."""
    rows = tuple(
        LayerSparsity(
            layer.name,
            layer.shape,
            layer.size,
            int(masks[layer.name].sum()) if layer.name in masks else layer.size,
            (held or {}).get(layer.name, ""),
        )
        for layer in layers
    )
    weights, kept = sum(row.weights for row in rows), sum(row.kept for row in rows)
    return SparsityReport(granularity, point, weights, kept, 1 - kept / max(weights, 1), rows)
