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

TORCHVISION = "torchvision"
NAMESPACES = ("aten", TORCHVISION)
"""The libraries whose operators rules and programs call by their bare names."""

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

IDENTITIES = frozenset(
    {
        "alias", "alias_copy", "contiguous", "detach", "detach_copy", "lift", "lift_fresh",
        "lift_fresh_copy", "to", "type_as", "_to_copy",
    }
)  # fmt: skip
"""Hand on what they read as it is, in another place or of another type."""

SIZED_VIEWS = frozenset({"view", "reshape", "_unsafe_view", "unflatten"})
"""Views that are told the sizes that they make."""

VIEWS = SIZED_VIEWS | {"flatten", "ravel", "squeeze", "unsqueeze"}
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

UNTAGGED_POINTWISE = frozenset(
    {
        "__and__", "__iand__", "__ior__", "__or__", "absolute", "arccos", "arccosh", "arcsin",
        "arcsinh", "arctan", "arctan2", "arctanh", "conj", "divide",
        "fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine_cachemask", "fix",
        "floor_divide", "greater", "greater_equal", "isclose", "isreal", "less", "less_equal",
        "masked_fill", "multiply", "negative", "not_equal", "special_digamma", "special_erf",
        "special_erfc", "special_erfinv", "special_exp2", "special_expit", "special_expm1",
        "special_gammainc", "special_gammaincc", "special_gammaln", "special_i0", "special_log1p",
        "special_logit", "special_multigammaln", "special_ndtr", "special_polygamma", "special_psi",
        "special_round", "special_sinc", "special_xlogy", "subtract", "true_divide",
    }
)  # fmt: skip
"""Pointwise operators that torch does not tag so: Python's own, and second names of others."""

FILLS: tuple[str, ...] = ("full", "ones", "zeros")
"""Make tensors of one number: what a cut leaves of them is a smaller one."""

FAKE_QUANTIZERS = frozenset({"fake_quantize_per_channel_affine", "fused_moving_avg_obs_fake_quant"})
"""Rounding to few steps and back, with scales of single channels, for training in INT8."""

# --- operands ------------------------------------------------------------------------------------

READ_FOR_TYPE: dict[str, str] = {
    "to": "other",
    "type_as": "other",
    **dict.fromkeys(
        ("new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"), "self"
    ),
}
"""Operands that are read for their type and device alone: neither values nor sizes follow them."""


def read_nodes(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return the nodes whose values or sizes a call reads, each once."""
    operand = READ_FOR_TYPE.get(operator_name(node.target)) if node.op == "call_function" else None
    if operand is None:
        return tuple(node.all_input_nodes)
    arguments = [value for name, value in schema_arguments(node).items() if name != operand]
    found: dict[fx.Node, None] = {}
    fx.node.map_arg(arguments, found.setdefault)
    return tuple(found)


# --- one call ------------------------------------------------------------------------------------


def shape_of(node: fx.Node, batch: Any) -> tuple[int, ...]:
    """Return the shape of a node's tensor with the batch counted as one."""
    return tuple(concrete(size, batch) for size in node.meta["val"].shape)


def size_of(size: Any, batch: Any) -> int:
    """Return an integer argument, which may be computed, with the batch counted as one."""
    return concrete(size.meta["val"] if isinstance(size, fx.Node) else size, batch)


def operator_name(target: Any) -> str:
    """Return the bare name of an operator: in-place and overload spellings are one operator.

    Of another library, with its namespace: its `relu` need not be torch's.

    >>> operator_name(torch.ops.aten.relu_.default)
    'relu'
    """
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the only name of that class
        space, _, name = target._schema.name.rpartition("::")  # noqa: SLF001
        name = name if name.startswith("__") else name.rstrip("_")
        return name if space in NAMESPACES else f"{space}::{name}"
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
    """Tell whether an operator treats every position of its tensors alike and alone."""
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return False
    return torch.Tag.pointwise in target.tags or operator_name(target) in UNTAGGED_POINTWISE


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


def said(error: Exception) -> str:
    """Return one line for an exception that an odd call raised; some say nothing themselves.

    >>> said(ValueError("8 channels meet 4")), said(AssertionError())
    ('ValueError: 8 channels meet 4', 'AssertionError')
    """
    return f"{type(error).__name__}: {error}".removesuffix(": ").partition("\n")[0]


def concrete(size: Any, batch: Any = None) -> int:
    """Return a size as an integer, for one input of the example's size: the batch counts as 1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if batch is not None and not batch.is_number:  # the network may fix its batch size
        expression = expression.subs({batch: 1})
    if expression.is_number:
        return int(expression)
    sizes = size.node.shape_env
    # The first is what newer versions of torch call the second.
    hint = getattr(sizes, "guarding_hint_or_throw", None) or sizes.size_hint
    return int(hint(expression))
