"""Rules of operators that mix channels through weights: they start new ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.graph.operators import (
    ATTENTION,
    CONVOLUTIONS,
    LINEAR,
    MATRIX_PRODUCTS,
    SUMMED_PRODUCTS,
    TRANSPOSED_CONVOLUTIONS,
    shape_of,
    size_of,
)
from prunecli.graph.rules.call import Call, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.coupling.ids import Axes, Axis


@rule(*CONVOLUTIONS)
def convolution(call: Call) -> Axes:
    """Weight dim 0 starts the ids, dim 1 owns the input's."""
    source, weight = call.axes("input"), call.axes("weight")
    groups = size_of(call.arguments["groups"], call.batch)
    spatial = len(weight) - 2
    channels = source[-spatial - 1]
    freeze_kernel(call, weight[2:])
    output = weight[0]
    if groups == 1:
        call.ids.tie(weight[1], channels)
    else:
        output = _grouped(call, channels, weight[0], weight[1], groups)
    _bias(call, output)
    return (*_batch(source, spatial), output, *_positions(call, source[-spatial:]))


@rule(*TRANSPOSED_CONVOLUTIONS)
def transposed_convolution(call: Call) -> Axes:
    """Weight dim 0 owns the input's ids, dim 1 starts the ids."""
    source, weight = call.axes("input"), call.axes("weight")
    groups = size_of(call.arguments["groups"], call.batch)
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
    return (*_batch(source, spatial), output, *_positions(call, source[-spatial:]))


def _positions(call: Call, axes: Axes) -> Axes:
    """Let a kernel of one tap pass what lies along its dimension; other kernels mix it."""
    kernel, shape = call.shape("weight")[2:], call.shape("input")[-len(axes) :]
    left = call.output_shape[-len(axes) :]
    steps, pads = (_each_dim(call.arguments.get(name), len(axes)) for name in ("stride", "padding"))
    result: list[Axis] = []
    for axis, taps, step, pad, before, after in zip(
        axes, kernel, steps, pads, shape, left, strict=True
    ):
        passes = (taps, step, pad) == (1, 1, 0) and before == after
        if not passes:
            call.ids.freeze(axis, f"{call.operator} runs over these channels")
        result.append(axis if passes else None)
    return tuple(result)


def _each_dim(given: Any, count: int) -> list[Any]:
    """Return an argument for every dimension; with a name (`same`), one tap needs no padding."""
    if isinstance(given, str):
        return [0] * count
    values = given if isinstance(given, list | tuple) else [given]
    return list(values) * count if len(values) == 1 else list(values)


@rule(*LINEAR)
def linear(call: Call) -> Axes:
    """Weight dim 0 starts the ids, dim 1 owns the input's."""
    source, weight = call.axes("input"), call.axes("weight")
    call.ids.tie(weight[1], source[-1])
    _bias(call, weight[0])
    return (*source[:-1], weight[0])


@rule(*MATRIX_PRODUCTS)
def matrix_product(call: Call) -> Axes:
    """Tie the contracted dimensions; the others pass, and a batch of products are heads."""
    names = list(call.arguments)
    return _product(call, names[0], names[1])


@rule(*SUMMED_PRODUCTS)
def matrix_product_and_sum(call: Call) -> Axes:
    """Tie a matrix product to what is added to it."""
    names = list(call.arguments)
    axes = _product(call, names[1], names[2])
    added, shape = call.axes(names[0]), call.shape(names[0])
    rank = len(axes)
    return tuple(
        broadcast(call, [(axes, call.output_shape, dim - rank), (added, shape, dim - rank)])
        for dim in range(rank)
    )


@rule("einsum")
def einsum(call: Call) -> Axes:
    """Dimensions of one letter are tied; letters that the result lacks are contracted."""
    tensors = call.arguments["tensors"]
    ranks = [len(call.axes_of(tensor)) for tensor in tensors]
    operands, output = einsum_letters(call.arguments["equation"], ranks)
    found: dict[str, Axis] = {}
    count: dict[str, int] = {}
    for letters, tensor in zip(operands, tensors, strict=True):
        shape = shape_of(tensor, call.batch)
        for letter, axis, size in zip(letters, call.axes_of(tensor), shape, strict=True):
            if size == 1 and letter in found:
                continue
            found[letter] = call.ids.tie(found[letter], axis) if letter in found else axis
            count[letter] = count.get(letter, 0) + 1
    for letter, axis in found.items():
        if letter not in output:
            call.ids.mark_contracted(axis)
        elif count[letter] > 1:
            call.ids.mark_parallel(axis)
    return tuple(found[letter] for letter in output)


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Return one letter per dimension of every operand and of the result; dots become digits.

    >>> einsum_letters("...ij,kj->...ik", [3, 2])
    ([['0', 'i', 'j'], ['k', 'j']], ['0', 'i', 'k'])
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    dots = [rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True)]
    most = max(dots)

    def letters(part: str, count: int) -> list[str]:
        before, ellipsis, after = part.partition("...")
        middle = [str(at) for at in range(most - count, most)] if ellipsis else []
        return [*before, *middle, *after]

    operands = [letters(part, count) for part, count in zip(parts, dots, strict=True)]
    if not arrow:
        flat = [letter for operand in operands for letter in operand]
        once = sorted(letter for letter in set(flat) if flat.count(letter) == 1)
        return operands, [*map(str, range(most)), *(name for name in once if name.isalpha())]
    return operands, letters(right, most)


@rule(*ATTENTION)
def attention(call: Call) -> Axes:
    """Batches are heads; the width of queries and keys is contracted; values' passes."""
    query, key, value = (call.axes(name) for name in ("query", "key", "value"))
    shapes = {name: call.shape(name) for name in ("query", "key", "value")}
    rank = len(query)
    batch: list[Axis] = []
    for dim in range(-rank, -2):
        heads = [key[dim], value[dim]]
        repeats = shapes["query"][dim] // shapes["key"][dim]
        if call.arguments["enable_gqa"] and repeats > 1:
            heads = [None if axis is None else axis.repeat(repeats) for axis in heads]
        axis = query[dim]
        for other in heads:
            axis = call.ids.tie(axis, other)
        call.ids.mark_parallel(axis)
        batch.append(axis)
    call.ids.mark_contracted(call.ids.tie(query[-1], key[-1]))
    # A causal mask sees which query is which.
    queries = (query[-2],) if call.arguments["is_causal"] else ()
    for positions in (key[-2], value[-2], *queries):
        call.ids.freeze(positions, "positions of attention compete in a softmax")
    mask = call.arguments["attn_mask"]
    if mask is not None:
        scores = (*batch, query[-2], key[-2])
        sizes = (*shapes["query"][:-1], shapes["key"][-2])
        own = call.axes_of(mask), shape_of(mask, call.batch)
        for dim in range(-len(own[0]), 0):
            broadcast(call, [(scores, sizes, dim), (*own, dim)])
    return (*batch, query[-2], value[-1])


def _product(call: Call, left: str, right: str) -> Axes:
    first, second = call.axes(left), call.axes(right)
    inner = call.ids.tie(first[-1], second[-2] if len(second) > 1 else second[-1])
    call.ids.mark_contracted(inner)
    rank = max(len(first), len(second))
    shapes = call.shape(left), call.shape(right)
    batch = [
        broadcast(call, [(first, shapes[0], dim - rank), (second, shapes[1], dim - rank)])
        for dim in range(rank - 2)
    ]
    for axis in batch:
        call.ids.mark_parallel(axis)
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
