"""Rules of operators that mix channels through weights: they start new ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.rules.call import Call, rule

if TYPE_CHECKING:
    from prunecli.graph.ids import Axes, Axis


@rule("conv1d", "conv2d", "conv3d")
def convolution(call: Call) -> Axes:
    """Weight dim 0 starts the ids, dim 1 owns the input's."""
    source, weight, groups = call.axes("input"), call.axes("weight"), call.arguments["groups"]
    spatial = len(weight) - 2
    channels = source[-spatial - 1]
    freeze_kernel(call, weight[2:])
    output = weight[0]
    if groups == 1:
        call.ids.tie(weight[1], channels)
    else:
        output = _grouped(call, channels, weight[0], weight[1], groups)
    _bias(call, output)
    return (*_batch(source, spatial), output, *(None,) * spatial)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(call: Call) -> Axes:
    """Weight dim 0 owns the input's ids, dim 1 starts the ids."""
    source, weight, groups = call.axes("input"), call.axes("weight"), call.arguments["groups"]
    spatial = len(weight) - 2
    channels = source[-spatial - 1]
    freeze_kernel(call, weight[2:])
    call.ids.tie(weight[0], channels)
    output = weight[1]
    if groups > 1:
        width = call.shape("weight")
        by_group, _ = call.ids.split(channels, (groups, width[0] // groups))
        output = call.ids.merge((by_group, weight[1]), (groups, width[1]))
    _bias(call, output)
    return (*_batch(source, spatial), output, *(None,) * spatial)


@rule("linear")
def linear(call: Call) -> Axes:
    """Weight dim 0 starts the ids, dim 1 owns the input's."""
    source, weight = call.axes("input"), call.axes("weight")
    call.ids.tie(weight[1], source[-1])
    _bias(call, weight[0])
    return (*source[:-1], weight[0])


@rule("matmul", "bmm", "mm")
def matrix_product(call: Call) -> Axes:
    """Tie the contracted dimensions; the others pass."""
    names = list(call.arguments)
    first, second = call.axes(names[0]), call.axes(names[1])
    call.ids.tie(first[-1], second[-2] if len(second) > 1 else second[-1])
    rank = max(len(first), len(second))
    shapes = call.shape(names[0]), call.shape(names[1])
    batch = [
        broadcast(call, [(first, shapes[0], dim - rank), (second, shapes[1], dim - rank)])
        for dim in range(rank - 2)
    ]
    rows = first[-2:-1]
    columns = second[-1:] if len(second) > 1 else ()
    return (*batch, *rows, *columns)


def broadcast(call: Call, operands: list[tuple[Axes, tuple[int, ...], int]]) -> Axis:
    """Tie one dimension (counted from the right) of several operands, except where it is 1."""
    present = [(axes[dim], shape[dim]) for axes, shape, dim in operands if -dim <= len(shape)]
    size = max(extent for _, extent in present)
    full = [axis for axis, extent in present if extent == size]
    result = full[0]
    for axis in full[1:]:
        result = call.ids.tie(result, axis)
    return result


def freeze_kernel(call: Call, axes: Axes) -> None:
    """Positions inside a kernel are no channels."""
    for axis in axes:
        call.ids.freeze(axis, "positions of a kernel", report=False)


def _grouped(call: Call, channels: Axis, rows: Axis, columns: Axis, groups: int) -> Axis:
    """Tie the two sides of a grouped convolution by group; inside a group each side is free."""
    outputs, inputs = call.shape("weight")[:2]
    if channels is None:
        call.ids.freeze(rows, "a grouped convolution over channels that cannot be cut")
        call.ids.freeze(columns, "a grouped convolution over channels that cannot be cut")
        return None
    by_group, inside = (
        (channels, None) if inputs == 1 else call.ids.split(channels, (groups, inputs))
    )
    call.ids.tie(columns, inside)
    if outputs == groups:
        return call.ids.tie(rows, by_group)
    out_by_group, _ = call.ids.split(rows, (groups, outputs // groups))
    call.ids.tie(out_by_group, by_group)
    return rows


def _bias(call: Call, output: Axis) -> None:
    if call.arguments["bias"] is not None:
        call.ids.tie(output, call.axes("bias")[0])


def _batch(source: Axes, spatial: int) -> Axes:
    return source[: len(source) - spatial - 1]
