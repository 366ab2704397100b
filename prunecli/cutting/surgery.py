"""Cut: slice the parameters of the user's own module, or re-emit the traced graph narrower."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.cutting.attributes import Size, set_attributes
from prunecli.cutting.temperature import Factors, scaled
from prunecli.errors import GraphError, InputError
from prunecli.plan import Indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph

Slices = Mapping[str, Mapping[int, Indices]]


def slices_of(coupling: CouplingGraph, keep: NDArray[np.bool_]) -> dict[str, dict[int, Indices]]:
    """Return `{tensor: {dim: kept indices}}` for every dimension that loses something."""
    slices: dict[str, dict[int, Indices]] = {}
    for name, dims in coupling.tensors.items():
        for dim, atoms in dims.items():
            kept = coupling.kept(atoms, keep)
            if kept.size < atoms.shape[-1]:
                slices.setdefault(name, {})[dim] = tuple(kept.tolist())
    return slices


def cut_tensor(tensor: Tensor, dims: Mapping[int, Indices]) -> Tensor:
    """Select the kept indices of every listed dimension; always a copy."""
    result = tensor.detach()
    for dim, kept in dims.items():
        result = result.index_select(dim, torch.tensor(kept, device=tensor.device))
    return result.clone() if result.data_ptr() == tensor.data_ptr() else result


def cut_module(
    model: nn.Module,
    slices: Slices,
    *,
    attributes: Mapping[str, Mapping[str, Size]] | None = None,
    factors: Factors | None = None,
) -> nn.Module:
    """Return a copy of `model` with sliced parameters and the size fields that mirror them.

    `attributes` and `factors` are those of the plan (`PruningPlan`). The copy shares nothing with
    `model`, which stays as it is; only the slim tensors are allocated. Raises
    `InputError` when the slices do not fit the model, `GraphError` when the model cannot be copied.
    """
    replaced: dict[int, Any] = {}
    tensors: dict[str, Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    check_slices(tensors, slices)
    check_factors(tensors, factors or {})
    shared = _by_identity(tensors, slices)
    factors_by_identity = {id(tensors[name]): own for name, own in (factors or {}).items()}
    for tensor in tensors.values():
        if id(tensor) in replaced:
            continue
        own = factors_by_identity.get(id(tensor), ())
        slim = cut_tensor(scaled(tensor, own) if own else tensor, shared.get(id(tensor), {}))
        if isinstance(tensor, nn.Parameter):
            slim = nn.Parameter(slim, requires_grad=tensor.requires_grad)
        replaced[id(tensor)] = slim
    try:
        cut = copy.deepcopy(model, replaced)
    except RuntimeError as error:
        raise GraphError(
            f"this model cannot be copied: {str(error).splitlines()[0]}",
            code="NOT_COPYABLE",
            where=type(model).__name__,
            hint="a weight that is computed from others may be kept as an attribute (the old "
            "weight_norm): remove it first (torch.nn.utils.remove_weight_norm)",
        ) from error
    for path, module in cut.named_modules():
        _mirror_sizes(module, path, slices)
    set_attributes(cut, attributes or {})
    return cut


def check_factors(tensors: Mapping[str, Tensor], factors: Factors) -> None:
    """Raise `InputError` when a factor names a tensor or a position that is not there."""
    for name, own in factors.items():
        size = tensors[name].shape[0] if name in tensors and tensors[name].dim() else 0
        if any(not rows or max(rows) >= size for rows, _ in own):
            raise InputError(
                f"the plan does not fit this model: {name} has no such positions",
                code="PLAN_MISMATCH",
                where=name,
                hint="use the plan with the checkpoint that it was made for",
            )


def check_slices(tensors: Mapping[str, Tensor], slices: Slices) -> None:
    """Raise `InputError` when a slice names a tensor, dimension or index that is not there."""
    for name, dims in slices.items():
        shape = tuple(tensors[name].shape) if name in tensors else ()
        for dim, kept in (dims or {0: ()}).items():
            if not 0 <= dim < len(shape) or not kept or max(kept) >= shape[dim]:
                raise InputError(
                    f"the plan does not fit this model: {name} {shape} has no such channels",
                    code="PLAN_MISMATCH",
                    where=name,
                    hint="use the plan with the checkpoint that it was made for",
                )


def _by_identity(tensors: Mapping[str, Tensor], slices: Slices) -> dict[int, Mapping[int, Indices]]:
    # A tied parameter has several names; a slice of one of them is a slice of all.
    return {id(tensors[name]): dims for name, dims in slices.items()}


def _mirror_sizes(module: nn.Module, path: str, slices: Slices) -> None:
    found = (_mirror_of(kind) for kind in type(module).__mro__)
    mirror = next(filter(None, found), None)
    if mirror is not None:
        dims = slices.get(f"{path}.weight" if path else "weight", {})
        mirror(module, dims)


def _mirror_of(kind: type) -> Callable[[Any, Mapping[int, Indices]], None] | None:
    return MIRRORS.get(kind) or MIRRORS_BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")


def _mirror_convolution(module: Any, dims: Mapping[int, Indices]) -> None:
    rows = module.out_channels // module.groups
    groups = _kept_blocks(dims.get(0), rows, module.groups)
    module.groups = groups
    module.out_channels = module.weight.shape[0]
    module.in_channels = module.weight.shape[1] * groups


def _mirror_transposed(module: Any, dims: Mapping[int, Indices]) -> None:
    groups = _kept_blocks(dims.get(0), module.in_channels // module.groups, module.groups)
    module.groups = groups
    module.in_channels = module.weight.shape[0]
    module.out_channels = module.weight.shape[1] * groups


def _mirror_linear(module: Any, _: Mapping[int, Indices]) -> None:
    module.out_features, module.in_features = module.weight.shape


def _mirror_features(module: Any, dims: Mapping[int, Indices]) -> None:
    if 0 in dims:
        module.num_features = len(dims[0])


def _mirror_layer_norm(module: Any, dims: Mapping[int, Indices]) -> None:
    if dims:
        module.normalized_shape = tuple(module.weight.shape)


def _mirror_group_norm(module: Any, dims: Mapping[int, Indices]) -> None:
    if 0 in dims:
        size = module.num_channels // module.num_groups
        module.num_groups = _kept_blocks(dims[0], size, module.num_groups)
        module.num_channels = len(dims[0])


def _mirror_prelu(module: Any, dims: Mapping[int, Indices]) -> None:
    if 0 in dims:
        module.num_parameters = len(dims[0])


def _kept_blocks(kept: Indices | None, size: int, blocks: int) -> int:
    """Return how many blocks of `size` consecutive channels still have a channel."""
    if kept is None:
        return blocks
    return int(np.unique(np.asarray(kept) // size).size)


MIRRORS: dict[type, Callable[[Any, Mapping[int, Indices]], None]] = {
    nn.Conv1d: _mirror_convolution,
    nn.Conv2d: _mirror_convolution,
    nn.Conv3d: _mirror_convolution,
    nn.ConvTranspose1d: _mirror_transposed,
    nn.ConvTranspose2d: _mirror_transposed,
    nn.ConvTranspose3d: _mirror_transposed,
    nn.Linear: _mirror_linear,
    nn.modules.batchnorm._NormBase: _mirror_features,  # noqa: SLF001 - the base of every batch norm
    nn.LayerNorm: _mirror_layer_norm,
    nn.RMSNorm: _mirror_layer_norm,
    nn.GroupNorm: _mirror_group_norm,
    nn.PReLU: _mirror_prelu,
}
"""Which fields of a module repeat the sizes of its parameters."""

MIRRORS_BY_NAME: dict[str, Callable[[Any, Mapping[int, Indices]], None]] = {
    "torchvision.ops.deform_conv.DeformConv2d": _mirror_convolution,
}
"""The same for modules of packages that take seconds to import."""
