"""Rules of operators that keep channels apart: pointwise, normalisation, pooling, reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.rules.call import Call, rule, shape_of
from prunecli.graph.rules.compute import broadcast

if TYPE_CHECKING:
    from prunecli.graph.ids import Axes


@rule(
    "alias",
    "contiguous",
    "detach",
    "dropout",
    "feature_dropout",
    "hardswish",
    "lift_fresh_copy",
    "log_sigmoid",
    "relu6",
    "rsub",
    "square",
    "to",
    "type_as",
    "_to_copy",
    "_assert_tensor_metadata",
)
def pointwise(call: Call) -> Axes:
    """Ids pass; operands of the same size are tied, a broadcast size of 1 is not."""
    operands = [(call.axes_of(node), shape_of(node, call.batch)) for node in call.tensors()]
    rank = max(len(axes) for axes, _ in operands)
    return tuple(
        broadcast(call, [(axes, shape, dim - rank) for axes, shape in operands])
        for dim in range(rank)
    )


@rule("prelu")
def prelu(call: Call) -> Axes:
    """Ids pass; the slopes own them."""
    source, weight = call.axes("self"), call.axes("weight")
    if call.shape("weight")[0] > 1:
        call.ids.tie(source[1], weight[0])
    return source


@rule("batch_norm", "instance_norm")
def channel_norm(call: Call) -> Axes:
    """Ids pass; statistics and affine own them."""
    source = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.arguments[name] is not None:
            call.ids.tie(source[1], call.axes(name)[0])
    return source


@rule("layer_norm", "rms_norm")
def layer_norm(call: Call) -> Axes:
    """Ids pass, but the statistics run over what is left."""
    source = call.axes("input")
    normalised = source[-len(call.arguments["normalized_shape"]) :]
    for name in ("weight", "bias"):
        if call.arguments.get(name) is not None:
            for axis, own in zip(normalised, call.axes(name), strict=True):
                call.ids.tie(axis, own)
    for axis in normalised:
        call.ids.mark_inexact(axis)
    return source


@rule("group_norm")
def group_norm(call: Call) -> Axes:
    """Ids pass; every group keeps the same count."""
    source, groups = call.axes("input"), call.arguments["num_groups"]
    channels = call.shape("input")[1]
    for name in ("weight", "bias"):
        if call.arguments[name] is not None:
            call.ids.tie(source[1], call.axes(name)[0])
    _, inside = call.ids.split(source[1], (groups, channels // groups))
    call.ids.mark_inexact(inside)
    return source


@rule(
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_nearest_exact2d",
)
def spatial(call: Call) -> Axes:
    """Ids pass; positions change."""
    source = call.axes(next(iter(call.arguments)))
    positions = 3 if "3d" in call.operator else 2 if "2d" in call.operator else 1
    return (*source[:-positions], *(None,) * positions)


@rule("mean", "sum", "amax", "amin", "var", "std")
def reduction(call: Call) -> Axes:
    """Ids of the reduced dimensions end."""
    source = call.axes("self")
    wanted = call.arguments.get("dim")
    dims = range(len(source)) if not wanted and wanted != 0 else wanted
    dims = {dim % len(source) for dim in (dims if not isinstance(dims, int) else [dims])}
    for dim in dims:
        call.ids.freeze(source[dim], f"{call.operator} runs over these channels")
    if call.arguments.get("keepdim"):
        return tuple(None if dim in dims else axis for dim, axis in enumerate(source))
    return tuple(axis for dim, axis in enumerate(source) if dim not in dims)


@rule("softmax", "log_softmax", "_softmax")
def softmax(call: Call) -> Axes:
    """Ids pass; channels that compete are frozen."""
    source = call.axes("self")
    call.ids.freeze(source[call.dim("dim")], f"{call.operator} lets these channels compete")
    return source
