"""Operators: the families that all tables share, and reading one call of a traced graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Mapping

_TORCH = str(Path(torch.__file__).parent)

# --- families: operators that all tables treat alike ---------------------------------------------

PLANE_CONVOLUTIONS = frozenset({"conv1d", "conv2d"})
CONVOLUTIONS = PLANE_CONVOLUTIONS | {"conv3d"}
TRANSPOSED_CONVOLUTIONS = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
DEFORMABLE_CONVOLUTIONS = frozenset({"deform_conv2d"})
LINEAR = frozenset({"linear"})
LAYERS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | LINEAR
"""Layers that multiply what they read by a weight and add a bias, and nothing else."""

MATRIX_PRODUCTS = frozenset({"matmul", "mm", "bmm"})
SUMMED_PRODUCTS = frozenset({"addmm", "baddbmm"})
CONTRACTIONS = MATRIX_PRODUCTS | SUMMED_PRODUCTS | {"einsum"}
"""Products of two tensors, either of which may be a weight."""

ATTENTION = frozenset({"scaled_dot_product_attention"})
EMBEDDINGS = frozenset({"embedding"})

CHANNEL_NORMS = frozenset({"batch_norm", "instance_norm"})
"""Norms with statistics of every channel alone."""

LAYER_NORMS = frozenset({"layer_norm", "rms_norm"})
GROUP_NORMS = frozenset({"group_norm"})
STATISTICS = frozenset(
    {"linalg_vector_norm", "mean", "nanmean", "norm", "std", "std_mean", "var", "var_mean"}
)
"""Reductions that norms are written with: over channels they are legal to cut, but not exact."""

AVERAGE_POOLS = frozenset(f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg") for n in "123")
MAX_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"})
OTHER_POOLS = frozenset(
    {f"max_pool{n}d_with_indices" for n in "123"}
    | {"adaptive_max_pool1d", "adaptive_max_pool3d", "fractional_max_pool2d"}
    | {"fractional_max_pool3d", "max_unpool2d", "max_unpool3d"}
)
RESIZERS = frozenset(
    {f"upsample_{kind}{n}d" for n in "123" for kind in ("nearest", "nearest_exact")}
    | {f"_upsample_nearest_exact{n}d" for n in "123"}
    | {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"}
    | {"_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"}
)

IDENTITIES = frozenset({"alias", "contiguous", "detach", "lift_fresh_copy", "to", "_to_copy"})
"""Hand on what they read as it is, in another place or of another type."""

SIZED_VIEWS = frozenset({"view", "reshape", "_unsafe_view", "unflatten"})
"""Views that are told the sizes that they make."""

VIEWS = SIZED_VIEWS | {"flatten", "squeeze", "unsqueeze"}
PERMUTATIONS = frozenset(
    {
        "adjoint", "matrix_H", "mH", "moveaxis", "movedim", "mT", "numpy_T", "permute", "swapaxes",
        "swapdims", "t", "transpose",
    }
)  # fmt: skip
SPLITS = frozenset(
    {
        "chunk", "dsplit", "hsplit", "split", "split_copy", "split_with_sizes",
        "split_with_sizes_copy", "tensor_split", "unsafe_chunk", "unsafe_split",
        "unsafe_split_with_sizes", "vsplit",
    }
)  # fmt: skip
UNBINDINGS = frozenset({"unbind", "unbind_copy"})
SELECTIONS = frozenset({"select", "select_copy"})
SLICES = frozenset({"slice", "slice_copy"})
NARROWINGS = frozenset({"narrow", "narrow_copy"})
INDEXINGS = frozenset({"index", "_unsafe_index"})
MOVES = IDENTITIES | VIEWS | PERMUTATIONS | SPLITS | UNBINDINGS | SELECTIONS | SLICES | NARROWINGS
"""Operators that only move what one tensor holds, by positions that are known."""

CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
EXPANSIONS = frozenset({"broadcast_to", "expand"})
FLIPS = frozenset({"flip", "fliplr", "flipud"})
REPETITIONS = frozenset({"repeat", "tile"})
CHANNEL_SHUFFLES = frozenset({"channel_shuffle", "native_channel_shuffle"})
PADS = frozenset({"constant_pad_nd", "pad"})
"""Padding by a constant, which may add channels."""


# --- one call ------------------------------------------------------------------------------------


def shape_of(node: fx.Node, batch: Any) -> tuple[int, ...]:
    """Return the shape of a node's tensor with the batch counted as one."""
    return tuple(concrete(size, batch) for size in node.meta["val"].shape)


def size_of(size: Any, batch: Any) -> int:
    """Return an integer argument, which may be computed, with the batch counted as one."""
    return concrete(size.meta["val"] if isinstance(size, fx.Node) else size, batch)


def operator_name(target: Any) -> str:
    """Return the bare name of an operator: in-place and overload spellings are one operator.

    >>> operator_name(torch.ops.aten.relu_.default)
    'relu'
    """
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the only name of that class
        name = target._schema.name.rsplit("::", 1)[-1]  # noqa: SLF001
        return name if name.startswith("__") else name.rstrip("_")
    return getattr(target, "__name__", str(target))


def schema_arguments(node: fx.Node) -> dict[str, Any]:
    """Return a call's arguments by their schema names, with the defaults filled in."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return {str(position): value for position, value in enumerate(node.args)}
    arguments = {}
    for position, argument in enumerate(target._schema.arguments):  # noqa: SLF001
        if position < len(node.args):
            arguments[argument.name] = node.args[position]
        else:
            default = argument.default_value if argument.has_default_value() else None
            arguments[argument.name] = node.kwargs.get(argument.name, default)
    return arguments


def reduced_dims(arguments: Mapping[str, Any], rank: int) -> set[int]:
    """Return the dimensions that a reduction runs over: those that it names, or all."""
    wanted = arguments.get("dim")
    if wanted is None or wanted == []:
        return set(range(rank))
    return {dim % max(rank, 1) for dim in ([wanted] if isinstance(wanted, int) else wanted)}


def is_pointwise(target: Any) -> bool:
    """Tell whether torch itself tags an operator as pointwise."""
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return False
    return torch.Tag.pointwise in target.tags


def is_written(node: fx.Node) -> bool:
    """Tell whether an operator writes in place into this view of a tensor, or into a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or not user.args or user.args[0] is not node:
            continue
        shares = any(value.alias_info is not None for value in schema.returns)
        if schema.is_mutable or (shares and is_written(user)):
            return True
    return False


def source_line(node: fx.Node) -> str | None:
    """Return `file:line` of the user's code behind a node, where the trace recorded it."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


def concrete(size: Any, batch: Any = None) -> int:
    """Return a size as an integer, for one input of the example's size: the batch counts as 1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if batch is not None:
        expression = expression.subs({batch: 1})
    if expression.is_number:
        return int(expression)
    sizes = size.node.shape_env
    # The first is what newer versions of torch call the second.
    hint = getattr(sizes, "guarding_hint_or_throw", None) or sizes.size_hint
    return int(hint(expression))
