"""Norms whose statistics run over the kept channels alone: what a cut under a norm computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from prunecli.graph.coupling.groups import staying
from prunecli.graph.operators import STATISTICS, operator_name, reduced_dims, schema_arguments

if TYPE_CHECKING:
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

Norms = Mapping[str, list[NDArray[np.int64]]]
"""Per norm, the kept positions of each dimension that it runs over."""


def cut_norms(
    trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]
) -> dict[str, list[NDArray[np.int64]]]:
    """Return, for every norm whose statistics lose some channels, the kept ones per dim."""
    found = {}
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in MASKED_NORMS and operator not in STATISTICS:
            continue
        arguments = schema_arguments(node)
        source = arguments["self" if operator in STATISTICS else "input"]
        shape = source.meta["val"].shape
        atoms = coupling.values.get(source.name, {})
        if operator == "group_norm":
            dims: Sequence[int] = (1,) if _loses_part(atoms.get(1), arguments, keep) else ()
        elif operator in STATISTICS:
            dims = sorted(reduced_dims(arguments, len(shape)))
        else:
            dims = range(len(shape) - len(arguments["normalized_shape"]), len(shape))
        if any(dim in atoms and not keep_all(atoms[dim], keep) for dim in dims):
            found[node.name] = [
                coupling.kept(atoms[dim], keep) if dim in atoms else np.arange(int(shape[dim]))
                for dim in dims
            ]
    return found


def _loses_part(
    atoms: NDArray[np.int64] | None, arguments: Mapping[str, Any], keep: NDArray[np.bool_]
) -> bool:
    """Tell whether a group of a group norm loses some of its channels: losing all is exact."""
    if atoms is None:
        return False
    left = staying(atoms, keep).reshape(arguments["num_groups"], -1)
    return bool((left.any(1) & ~left.all(1)).any())


def keep_all(atoms: NDArray[np.int64], keep: NDArray[np.bool_]) -> bool:
    """Tell whether a dimension loses nothing."""
    return bool(staying(atoms, keep).all())


class MaskedNorms(fx.Interpreter):
    """Runs the dense graph; the listed norms see only the kept channels."""

    def __init__(self, module: fx.GraphModule, norms: Norms) -> None:
        super().__init__(module)
        self.norms = norms

    def run_node(self, n: fx.Node) -> Any:
        """Run a listed norm over its kept channels, and any other node as it is."""
        if n.name not in self.norms:
            return super().run_node(n)
        arguments: Any = self.map_nodes_to_values(schema_arguments(n), n)
        if operator_name(n.target) in STATISTICS:
            return masked_statistic(n.target, arguments, self.norms[n.name])
        return MASKED_NORMS[operator_name(n.target)](arguments, self.norms[n.name])


def masked_layer_norm(
    source: Tensor,
    kept: Sequence[NDArray[np.int64]],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Return a layer norm whose statistics run over the kept positions of the last dims alone.

    `kept` lists the kept positions of each normalised dimension; everything else comes out as 0
    before the affine part.
    """
    dims = tuple(range(-len(kept), 0))
    slim, place = _kept_part(source, kept)
    centred = slim - slim.mean(dims, keepdim=True)
    result = torch.zeros_like(source)
    result[place] = centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()
    return result * (1 if weight is None else weight) + (0 if bias is None else bias)


def masked_rms_norm(
    source: Tensor,
    kept: Sequence[NDArray[np.int64]],
    weight: Tensor | None,
    eps: float | None,
) -> Tensor:
    """Return a root-mean-square norm over the kept positions of the last dims alone.

    `kept` lists the kept positions of each normalised dimension; everything else comes out as 0.
    """
    dims = tuple(range(-len(kept), 0))
    slim, place = _kept_part(source, kept)
    floor = torch.finfo(source.dtype).eps if eps is None else eps
    result = torch.zeros_like(source)
    result[place] = slim / (slim.square().mean(dims, keepdim=True) + floor).sqrt()
    return result * (1 if weight is None else weight)


def _kept_part(source: Tensor, kept: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Any]:
    """Return the kept positions of the last dims, and the index that puts them back."""
    indices = [torch.from_numpy(index).to(source.device) for index in kept]
    slim = source
    for at, index in enumerate(indices):
        slim = slim.index_select(at - len(indices), index)
    return slim, (..., *torch.meshgrid(*indices, indexing="ij"))


def masked_statistic(
    operator: Any, arguments: Mapping[str, Any], kept: Sequence[NDArray[np.int64]]
) -> Any:
    """Return a mean, variance or norm that runs over the kept positions of its dimensions alone."""
    slim = arguments["self"]
    for dim, index in zip(sorted(reduced_dims(arguments, slim.dim())), kept, strict=True):
        if index.size < slim.shape[dim]:
            slim = slim.index_select(dim, torch.from_numpy(index).to(slim.device))
    return operator(**{**arguments, "self": slim})


def masked_group_norm(
    source: Tensor,
    kept: Sequence[NDArray[np.int64]],
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    groups: int,
    eps: float,
) -> Tensor:
    """Return a group norm whose statistics run over the kept channels of each group alone.

    `kept` holds the kept channels; everything else comes out as 0 before the affine part.
    """
    channels = source.shape[1]
    mask = source.new_zeros(channels)
    mask[torch.from_numpy(kept[0]).to(source.device)] = 1
    mask = mask.view(1, groups, channels // groups, 1)
    values = source.reshape(source.shape[0], groups, channels // groups, -1)
    count = (mask.sum(2, keepdim=True) * values.shape[-1]).clamp(min=1)
    mean = (values * mask).sum((2, 3), keepdim=True) / count
    centred = (values - mean) * mask
    variance = centred.square().sum((2, 3), keepdim=True) / count
    result = (centred / (variance + eps).sqrt()).reshape(source.shape)
    affine = (1, channels, *[1] * (source.dim() - 2))
    result = result * (1 if weight is None else weight.view(affine))
    return result + (0 if bias is None else bias.view(affine))


MASKED_NORMS: Mapping[str, Callable[[Any, Sequence[NDArray[np.int64]]], Tensor]] = {
    "layer_norm": lambda call, kept: masked_layer_norm(
        call["input"], kept, call["weight"], call["bias"], call["eps"]
    ),
    "rms_norm": lambda call, kept: masked_rms_norm(
        call["input"], kept, call["weight"], call["eps"]
    ),
    "group_norm": lambda call, kept: masked_group_norm(
        call["input"],
        kept,
        call["weight"],
        call["bias"],
        groups=call["num_groups"],
        eps=call["eps"],
    ),
}
"""By operator: the norm whose statistics run over the kept channels alone."""
