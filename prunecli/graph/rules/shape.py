"""Rules of operators that move, join, cut or repeat channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.graph.rules.call import Call, rule, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.ids import Axes, Axis


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def view(call: Call) -> Axes:
    """Dimensions are read as products of dimensions, or back."""
    before, after = call.shape("self"), call.output_shape
    result: list[Axis] = []
    for sources, targets in reshape_blocks(before, after):
        axes = [call.axes("self")[dim] for dim in sources]
        sizes = [before[dim] for dim in sources]
        if len(targets) == 1:
            result.append(_one(call, axes, sizes))
        elif len(sources) == 1:
            result.extend(call.ids.split(axes[0], [after[dim] for dim in targets]))
        else:
            merged = call.ids.merge(axes, sizes) if sources else None
            result.extend(call.ids.split(merged, [after[dim] for dim in targets]))
    return tuple(result)


def _one(call: Call, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    return axes[0] if len(axes) == 1 else call.ids.merge(axes, sizes)


def reshape_blocks(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """Pair the smallest runs of dimensions with equal products before and after a reshape.

    >>> reshape_blocks((1, 8, 4, 4), (1, 2, 4, 16))
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    blocks: list[tuple[list[int], list[int]]] = []
    left = right = 0
    while left < len(before) or right < len(after):
        sources, targets = [], []
        if left < len(before):
            sources.append(left)
            left += 1
        if right < len(after):
            targets.append(right)
            right += 1
        while _product(before, sources) != _product(after, targets):
            if _product(before, sources) < _product(after, targets):
                sources.append(left)
                left += 1
            else:
                targets.append(right)
                right += 1
        if not sources or not targets:
            # Trailing dimensions of size 1 appear or vanish; they join the last block.
            blocks[-1][0].extend(sources)
            blocks[-1][1].extend(targets)
        else:
            blocks.append((sources, targets))
    return blocks


def _product(sizes: Sequence[int], dims: Sequence[int]) -> int:
    return int(np.prod([sizes[dim] for dim in dims], dtype=np.int64))


@rule("permute")
def permute(call: Call) -> Axes:
    """Ids move with their dimensions."""
    source = call.axes("self")
    return tuple(source[dim % len(source)] for dim in call.arguments["dims"])


@rule("transpose", "t", "swapaxes", "numpy_T")
def transpose(call: Call) -> Axes:
    """Two dimensions change places."""
    source = list(call.axes("self"))
    first, second = (call.dim("dim0"), call.dim("dim1")) if "dim0" in call.arguments else (-1, -2)
    source[first], source[second] = source[second], source[first]
    return tuple(source)


@rule("cat", "concat", "concatenate")
def concatenate(call: Call) -> Axes:
    """Ids are joined."""
    parts = call.arguments["tensors"]
    known = [call.axes_of(part) for part in parts]
    at = int(call.arguments["dim"]) % len(known[0])
    sizes = [shape_of(part, call.batch)[at] for part in parts]
    result = []
    for dim in range(len(known[0])):
        if dim == at:
            result.append(_joined([axes[dim] for axes in known], sizes))
            continue
        axis = known[0][dim]
        for axes in known[1:]:
            axis = call.ids.tie(axis, axes[dim])
        result.append(axis)
    return tuple(result)


def _joined(axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    if all(axis is None for axis in axes):
        return None
    return np.concatenate(
        [
            np.zeros(size, np.int64) if axis is None else axis
            for axis, size in zip(axes, sizes, strict=True)
        ]
    )


@rule("stack")
def stack(call: Call) -> Axes:
    """Tensors are tied; the new dimension is fixed."""
    parts = [call.axes_of(part) for part in call.arguments["tensors"]]
    axes = list(parts[0])
    for other in parts[1:]:
        axes = [call.ids.tie(first, second) for first, second in zip(axes, other, strict=True)]
    axes.insert(int(call.arguments["dim"]) % (len(axes) + 1), None)
    return tuple(axes)


@rule("chunk", "split", "split_with_sizes", "unsafe_split", "tensor_split")
def pieces(call: Call) -> list[Axes]:
    """Ids are cut into runs."""
    source, at = call.axes("self"), call.dim("dim")
    result, start = [], 0
    for value in call.node.meta["val"]:
        size = int(value.shape[at])
        axis = source[at]
        piece = None if axis is None else axis[start : start + size]
        result.append((*source[:at], piece, *source[at + 1 :]))
        start += size
    return result


@rule("unbind")
def unbind(call: Call) -> list[Axes]:
    """End the dimension; what is picked from it by position stays whole."""
    source, at = call.axes("self"), call.dim("dim")
    call.ids.freeze(source[at], "is taken apart by position")
    return [(*source[:at], *source[at + 1 :])] * len(call.node.meta["val"])


@rule("getitem")
def getitem(call: Call) -> Axes:
    """One of several outputs."""
    annotation = call.known[call.arguments["0"].name]
    assert isinstance(annotation, list)
    axes: Axes = annotation[call.arguments["1"]]
    return axes


@rule("select")
def select(call: Call) -> Axes:
    """One position is taken, and must stay."""
    source, at = call.axes("self"), call.dim("dim")
    axis = source[at]
    if axis is not None:
        index = call.arguments["index"]
        call.ids.freeze(axis[index : index + 1 or None], "is picked by position")
    return (*source[:at], *source[at + 1 :])


@rule("slice", "narrow")
def take_run(call: Call) -> Axes:
    """Take a run of ids."""
    source, at = call.axes("self"), call.dim("dim")
    axis = source[at]
    if axis is None:
        return source
    if call.operator == "narrow":
        start = call.arguments["start"] % axis.size
        run = slice(start, start + call.arguments["length"])
    else:
        run = slice(call.arguments["start"], call.arguments["end"], call.arguments["step"])
    return (*source[:at], axis[run], *source[at + 1 :])


@rule("pad", "constant_pad_nd")
def pad(call: Call) -> Axes:
    """Give padded channels new ids."""
    source, amounts = list(call.axes("self")), call.arguments["pad"]
    constant = call.arguments.get("mode", "constant") == "constant"
    for step in range(len(amounts) // 2):
        dim = len(source) - 1 - step
        before, after = amounts[2 * step : 2 * step + 2]
        axis = source[dim]
        if axis is None or (before == 0 and after == 0):
            continue
        if not constant or min(before, after) < 0:
            call.ids.freeze(axis, "is padded by its neighbours or cropped")
            source[dim] = None
            continue
        source[dim] = np.concatenate([call.ids.fresh(before), axis, call.ids.fresh(after)])
    return tuple(source)


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Axes:
    """Ids pass; what is repeated carries none."""
    source, after = call.axes("self"), call.output_shape
    before = (1,) * (len(after) - len(source)) + call.shape("self")
    axes: tuple[Any, ...] = (None,) * (len(after) - len(source)) + source
    return tuple(
        axis if old == new else None for axis, old, new in zip(axes, before, after, strict=True)
    )


@rule("flip", "roll")
def reorder(call: Call) -> Axes:
    """Order changes: channels are frozen, positions pass."""
    source = call.axes("self")
    for dim in call.arguments["dims"]:
        call.ids.freeze(source[dim], f"{call.operator} moves these channels")
    return source
