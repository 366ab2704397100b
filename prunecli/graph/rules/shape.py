"""Rules of operators that move, join, cut or repeat channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.graph.operators import (
    CHANNEL_SHUFFLES,
    CONCATENATIONS,
    EXPANSIONS,
    PADS,
    PERMUTATIONS,
    REPETITIONS,
    VIEWS,
    shape_of,
)
from prunecli.graph.rules.call import Annotation, Call, align_right, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prunecli.graph.coupling.ids import Axes, Axis


@rule(*VIEWS)
def view(call: Call) -> Axes:
    """Dimensions are read as products of dimensions, or back."""
    return _viewed(call)


def _viewed(call: Call) -> Axes:
    before, after = call.shape("self"), call.output_shape
    source = call.axes("self")
    if 0 in before:
        source = tuple(axis if size else None for axis, size in zip(source, before, strict=True))
        before, after = _as_if_one(before, after)
    if not after or _product(before, range(len(before))) != _product(after, range(len(after))):
        for axis in source:
            call.ids.freeze(axis, "a view of nothing, whose dimensions tell nothing")
        return (None,) * len(after)
    result: list[Axis] = []
    for sources, targets in reshape_blocks(before, after):
        axes = [source[dim] for dim in sources]
        sizes = [before[dim] for dim in sources]
        if len(targets) == 1:
            result.append(_one(call, axes, sizes))
        elif len(sources) == 1:
            result.extend(call.ids.split(axes[0], [after[dim] for dim in targets]))
        else:
            merged = call.ids.merge(axes, sizes) if sources else None
            result.extend(call.ids.split(merged, [after[dim] for dim in targets]))
    return tuple(result)


def _as_if_one(before: Sequence[int], after: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return both shapes of a reshape of nothing (no detections) as if there were one of it."""
    full = tuple(size or 1 for size in before)
    others = _product([size or 1 for size in after], range(len(after)))
    missing = _product(full, range(len(full))) // others
    first = list(after).index(0)
    return full, tuple(size or (missing if dim == first else 1) for dim, size in enumerate(after))


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


def _product(sizes: Sequence[int], dims: Iterable[int]) -> int:
    return int(np.prod([sizes[dim] for dim in dims], dtype=np.int64))


@rule(*PERMUTATIONS)
def permute(call: Call) -> Axes:
    """Ids move with their dimensions."""
    source = call.axes("self")
    # torch itself says where each dimension goes: sizes that all differ are followed through it.
    sizes = range(2, 2 + len(source))
    operator: Any = call.node.target
    moved = operator(torch.empty(*sizes, device="meta"), *list(call.arguments.values())[1:])
    return tuple(source[size - 2] for size in moved.shape)


@rule(*CONCATENATIONS)
def concatenate(call: Call) -> Axes:
    """Ids are joined."""
    listed = call.arguments["tensors"]
    # torch takes an empty vector among tensors of any rank, and leaves it out.
    rank = len(call.output_shape)
    parts = [part for part in listed if len(call.axes_of(part)) == rank]
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


@rule(*PADS, "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
      "replication_pad2d", "replication_pad3d")  # fmt: skip
def pad(call: Call) -> Axes:
    """Give padded channels new ids."""
    source = list(call.axes("self"))
    amounts = call.arguments["pad"] if "pad" in call.arguments else call.arguments["padding"]
    by_neighbours = call.operator.startswith("re")
    constant = not by_neighbours and call.arguments.get("mode", "constant") == "constant"
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


@rule(*EXPANSIONS)
def expand(call: Call) -> Axes:
    """Ids pass; copies of one position get ids of their own, any of which can go."""
    source, after = call.axes("self"), call.output_shape
    before = (1,) * (len(after) - len(source)) + call.shape("self")
    return tuple(
        axis if old == new else call.ids.fresh(new)
        for axis, old, new in zip(align_right(source, len(after)), before, after, strict=True)
    )


@rule("expand_as")
def expand_as(call: Call) -> Axes:
    """Ids pass; copies of one position take the ids of the tensor whose shape is copied."""
    source, other = call.axes("self"), call.axes("other")
    before = (1,) * (len(other) - len(source)) + call.shape("self")
    return tuple(
        call.ids.tie(axis, model) if old == new else model
        for axis, model, old, new in zip(
            align_right(source, len(other)), other, before, call.output_shape, strict=True
        )
    )


@rule("view_as", "reshape_as")
def view_as(call: Call) -> Axes:
    """Read as a view whose sizes follow another tensor."""
    return tuple(map(call.ids.tie, _viewed(call), call.axes("other")))


@rule(*REPETITIONS)
def repeat(call: Call) -> Axes:
    """Ids are repeated; copies of one position get ids of their own, any of which can go."""
    source, after = call.axes("self"), call.output_shape
    before = (1,) * (len(after) - len(source)) + call.shape("self")
    return tuple(
        axis if old == new else call.ids.fresh(new) if old == 1 else _tiled(axis, new // old)
        for axis, old, new in zip(align_right(source, len(after)), before, after, strict=True)
    )


def _tiled(axis: Axis, times: int) -> Axis:
    return None if axis is None else np.tile(axis, times)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Axes:
    """Every id is repeated; where counts differ, what is repeated stays."""
    source, times = call.axes("self"), call.arguments.get("repeats")
    if call.arguments.get("dim") is None or not isinstance(times, int):
        for axis in source:
            call.ids.freeze(axis, "is repeated by counts of its own")
        return (None,) * len(call.output_shape)
    at = call.dim("dim")
    axis = source[at]
    one = call.shape("self")[at] == 1
    copies = None if axis is None else np.repeat(axis, times)
    return (*source[:at], call.ids.fresh(times) if one else copies, *source[at + 1 :])


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Axes:
    """All channels that make one output channel go together."""
    source, factor = call.axes("self"), call.arguments["upscale_factor"] ** 2
    made, blocks = call.ids.split(source[-3], (call.shape("self")[-3] // factor, factor))
    call.ids.freeze(blocks, "become positions", report=False)
    return (*source[:-3], made, *_positions(call, source[-2:]))


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Axes:
    """Every channel becomes a run of channels."""
    source, factor = call.axes("self"), call.arguments["downscale_factor"] ** 2
    runs = call.ids.merge((source[-3], None), (call.shape("self")[-3], factor))
    return (*source[:-3], runs, *_positions(call, source[-2:]))


@rule(*CHANNEL_SHUFFLES)
def channel_shuffle(call: Call) -> Axes:
    """Read as groups of channels, which change places with the channels inside them."""
    source, groups = call.axes("self"), call.arguments["groups"]
    sizes = (groups, call.shape("self")[1] // groups)
    outer, inner = call.ids.split(source[1], sizes)
    return (source[0], call.ids.merge((inner, outer), sizes[::-1]), *source[2:])


@rule("im2col")
def unfold(call: Call) -> Axes:
    """Every channel becomes a run of channels, one for each position of the kernel."""
    source, kernel = call.axes("self"), int(np.prod(call.arguments["kernel_size"]))
    runs = call.ids.merge((source[-3], None), (call.shape("self")[-3], kernel))
    _positions(call, source[-2:])
    return (*source[:-3], runs, None)


@rule("col2im")
def fold(call: Call) -> Axes:
    """All channels that hold one output channel's positions go together."""
    source, kernel = call.axes("self"), int(np.prod(call.arguments["kernel_size"]))
    made, inside = call.ids.split(source[-2], (call.shape("self")[-2] // kernel, kernel))
    call.ids.freeze(inside, "positions of a kernel", report=False)
    _positions(call, source[-1:])
    return (*source[:-2], made, None, None)


def _positions(call: Call, axes: Axes) -> Axes:
    for axis in axes:
        call.ids.freeze(axis, f"{call.operator} reads these as positions")
    return (None,) * len(axes)


@rule("view_as_complex")
def view_as_complex(call: Call) -> Axes:
    """End the last dimension, which holds real and imaginary parts."""
    call.ids.freeze(call.axes("self")[-1], "holds real and imaginary parts", report=False)
    return call.axes("self")[:-1]


@rule("view_as_real")
def view_as_real(call: Call) -> Axes:
    """Add a last dimension of real and imaginary parts."""
    return (*call.axes("self"), None)


@rule("meshgrid")
def meshgrid(call: Call) -> Annotation:
    """Every output has one dimension of each input."""
    axes = [call.axes_of(value)[0] for value in call.arguments["tensors"]]
    if call.arguments.get("indexing") == "xy":
        axes[:2] = axes[1::-1]
    return [tuple(axes)] * len(axes)


@rule("broadcast_tensors")
def broadcast_tensors(call: Call) -> Annotation:
    """All outputs have the shape of all inputs together; repeated channels stay."""
    values = call.node.meta["val"]
    for node in call.tensors():
        for axis in call.axes_of(node):
            call.ids.freeze(axis, "is broadcast with others")
    return [(None,) * value.dim() for value in values]
