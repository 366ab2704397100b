"""Rules of operators that pick, reorder or look up positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from prunecli.graph.operators import (
    EMBEDDINGS,
    FLIPS,
    INDEXINGS,
    NARROWINGS,
    SELECTIONS,
    SLICES,
    SPLITS,
    UNBINDINGS,
    is_written,
    shape_of,
)
from prunecli.graph.rules.call import Annotation, Call, no_axes, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.coupling.ids import Axes, Axis


@rule(*SPLITS)
def pieces(call: Call) -> Annotation:
    """Ids are cut into runs."""
    source, at = call.axes("self"), split_dim(call.operator, call.arguments, len(call.axes("self")))
    result: list[Axes | None] = []
    start = 0
    for value in call.node.meta["val"]:
        size = int(value.shape[at])
        axis = source[at]
        piece = None if axis is None else axis[start : start + size]
        result.append((*source[:at], piece, *source[at + 1 :]))
        start += size
    return result


SPLIT_DIMS = {"hsplit": 1, "vsplit": 0, "dsplit": 2}
"""The dimension of splits that have it in their names; on vectors it is the only one."""


def split_dim(operator: str, arguments: Any, rank: int) -> int:
    """Return the dimension that a split runs over."""
    dim = SPLIT_DIMS.get(operator, arguments.get("dim", 0))
    return min(int(dim), rank - 1) if dim >= 0 else int(dim) % rank


@rule(*UNBINDINGS)
def unbind(call: Call) -> Annotation:
    """End the dimension; what is picked from it by position stays whole."""
    source, at = call.axes("self"), call.dim("dim")
    call.ids.freeze(source[at], "is taken apart by position")
    return [(*source[:at], *source[at + 1 :])] * len(call.node.meta["val"])


@rule("getitem")
def getitem(call: Call) -> Annotation:
    """One of several outputs."""
    annotation = call.known[call.arguments["0"].name]
    assert isinstance(annotation, list)
    axes: Annotation = annotation[call.arguments["1"]]
    return axes


@rule(*SELECTIONS)
def select(call: Call) -> Axes:
    """One position is taken, and must stay."""
    source, at = call.axes("self"), call.dim("dim")
    axis = source[at]
    if axis is not None:
        index = call.arguments["index"]
        picked = axis[index : index + 1 or None] if isinstance(index, int) else axis
        call.ids.freeze(picked, "is picked by position")
    return (*source[:at], *source[at + 1 :])


@rule(*SLICES, *NARROWINGS)
def take_run(call: Call) -> Axes:
    """Take a run of ids."""
    source, at = call.axes("self"), call.dim("dim")
    axis = source[at]
    if axis is None:
        return source
    if call.operator in NARROWINGS:
        start = call.arguments["start"] % axis.size
        run = slice(start, start + call.arguments["length"])
    else:
        run = slice(call.arguments["start"], call.arguments["end"], call.arguments["step"])
        if call.arguments["step"] != 1 and is_written(call.node):
            # What is left of every other channel is no view any more, which a write could reach.
            call.ids.freeze(axis, "is written in steps")
    return (*source[:at], axis[run], *source[at + 1 :])


@rule(*INDEXINGS)
def index(call: Call) -> Axes:
    """Ids move with a fixed list of indices; a computed or nested index freezes what it reads."""
    source = call.axes("self")
    picked = indexed_dims(call.arguments["indices"], call.batch)
    for value in call.arguments["indices"]:
        if value is not None:
            _freeze_all(call, call.axes_of(value), "is an index")
    if len(picked) == 1:
        ((dim, value),) = picked.items()
        return _picked(call, source, dim, value)
    for dim in picked:
        call.ids.freeze(source[dim], "is picked by several indices at once")
    dims = sorted(picked)
    rest = [axis for dim, axis in enumerate(source) if dim not in picked]
    new: list[Axis] = [None] * (len(call.output_shape) - len(rest))
    together = dims == list(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if together else 0
    return (*rest[:at], *new, *rest[at:])


@rule("index_select")
def index_select(call: Call) -> Axes:
    """Ids move with a fixed list of indices."""
    _freeze_all(call, call.axes("index"), "is an index")
    return _picked(call, call.axes("self"), call.dim("dim"), call.arguments["index"])


def indexed_dims(indices: Sequence[Any], batch: Any) -> dict[int, fx.Node]:
    """Return the index of every dimension that has one; a mask covers as many as its rank."""
    found: dict[int, fx.Node] = {}
    dim = 0
    for value in indices:
        if value is None:
            dim += 1
            continue
        covers = len(shape_of(value, batch)) if _is_mask(value) else 1
        for step in range(covers):
            found[dim + step] = value
        dim += covers
    return found


def _is_mask(value: fx.Node) -> bool:
    return str(value.meta["val"].dtype) in {"torch.bool", "torch.uint8"}


def _picked(call: Call, source: Axes, dim: int, index: fx.Node) -> Axes:
    axis = source[dim]
    rank = len(shape_of(index, call.batch))
    values = call.constant(index) if axis is not None and rank <= 1 else None
    if values is None or axis is None or _is_mask(index):
        call.ids.freeze(axis, "is picked by an index")
        return (*source[:dim], *(None,) * rank, *source[dim + 1 :])
    taken = axis[values.numpy()]
    return (*source[:dim], *([taken] if rank else []), *source[dim + 1 :])


@rule("gather", "take_along_dim")
def gather(call: Call) -> Annotation:
    """Positions are picked one by one; the other dimensions are tied to the index's."""
    names = {"gather": "index", "take_along_dim": "indices"}
    if call.arguments["dim"] is None:
        return _lost(call, f"{call.operator} picks from all dimensions at once")
    source, picks, at = call.axes("self"), call.axes(names[call.operator]), call.dim("dim")
    shapes = call.shape("self"), call.shape(names[call.operator])
    for axis in (source[at], picks[at]):
        call.ids.freeze(axis, "is picked by an index")
    return tuple(
        None if dim == at else _same(call, source[dim], picks[dim], shapes[0][dim], shapes[1][dim])
        for dim in range(len(source))
    )


def _same(call: Call, first: Axis, second: Axis, old: int, new: int) -> Axis:
    if old == new:
        return call.ids.tie(first, second)
    if 1 in {old, new}:
        return first if new == 1 else second
    call.ids.freeze(first, "is cropped by an index")
    call.ids.freeze(second, "is cropped by an index")
    return None


@rule("scatter", "scatter_add", "scatter_reduce", "index_copy", "index_fill")
def scatter(call: Call) -> Axes:
    """Freeze what is written to by index; tie the other dimensions."""
    source, at = list(call.axes("self")), call.dim("dim")
    for name in ("index", "src", "source"):
        value = call.arguments.get(name)
        if not isinstance(value, fx.Node):
            continue
        axes = call.axes_of(value)
        if len(axes) != len(source):
            _freeze_all(call, axes, "is an index")
            continue
        for dim, axis in enumerate(axes):
            if dim == at:
                call.ids.freeze(axis, "is written by an index")
            elif call.shape("self")[dim] == shape_of(value, call.batch)[dim]:
                source[dim] = call.ids.tie(source[dim], axis)
            else:
                call.ids.freeze(source[dim], "is written in part")
                call.ids.freeze(axis, "is written in part")
    call.ids.freeze(source[at], "is written by an index")
    return tuple(source)


@rule("index_add")
def index_add(call: Call) -> Annotation:
    """Tie what is added to the slots of a fixed list of indices; else freeze both."""
    source, added, at = list(call.axes("self")), call.axes("source"), call.dim("dim")
    slots, own = call.constant(call.arguments["index"]), source[at]
    fixed = slots is not None and slots.dim() == 1 and call.arguments.get("alpha", 1) == 1
    if not fixed or slots is None or own is None or added[at] is None:
        return scatter(call)
    _freeze_all(call, call.axes("index"), "is an index")
    call.ids.tie(own[slots.numpy()], added[at])
    for dim in range(len(source)):
        if dim != at:
            source[dim] = call.ids.tie(source[dim], added[dim])
    return tuple(source)


@rule("index_put", "_unsafe_index_put")
def index_put(call: Call) -> Axes:
    """Freeze what is written to by index; tie the trailing dimensions."""
    source, values = call.axes("self"), call.axes("values")
    picked = indexed_dims(call.arguments["indices"], call.batch)
    for value in picked.values():
        _freeze_all(call, call.axes_of(value), "is an index")
    free = len(source) - 1 - max(picked)
    for dim in range(len(source) - free):
        call.ids.freeze(source[dim], "is written by an index")
    shape = shape_of(call.arguments["values"], call.batch)
    for back in range(1, len(values) + 1):
        if back > free:
            call.ids.freeze(values[-back], "is written by an index")
        elif shape[-back] == call.shape("self")[-back]:
            call.ids.tie(source[-back], values[-back])
        else:
            call.ids.freeze(source[-back], "is written by an index")
    return source


@rule("take", "masked_select", "nonzero", "argwhere", "unique", "bincount", "histc", "searchsorted")
def lost(call: Call) -> Annotation:
    """Freeze everything: what is picked depends on all channels at once."""
    return _lost(call, f"{call.operator} picks from all dimensions at once")


@rule("affine_grid_generator", "bilinear", "cdist", "cosine_similarity", "linalg_cross")
def formula(call: Call) -> Annotation:
    """Freeze everything: what meets has a formula of its own."""
    return _lost(call, f"{call.operator} has a formula of its own for them")


def _lost(call: Call, reason: str) -> Annotation:
    for node in call.tensors():
        _freeze_all(call, call.axes_of(node), reason)
    return no_axes(call.node)


def _freeze_all(call: Call, axes: Axes, reason: str) -> None:
    for axis in axes:
        call.ids.freeze(axis, reason)


@rule(*EMBEDDINGS)
def embedding(call: Call) -> Axes:
    """Rows are looked up and stay; the columns start the ids."""
    weight = call.axes("weight")
    call.ids.freeze(weight[0], "rows are looked up by number")
    return (*call.axes("indices"), weight[1])


@rule("embedding_bag", "_embedding_bag")
def embedding_bag(call: Call) -> Annotation:
    """Rows are looked up and stay; the columns start the ids."""
    weight, others = call.axes("weight"), call.node.meta["val"][1:]
    for axis in (weight[0], *(own for node in call.tensors()[1:] for own in call.axes_of(node))):
        call.ids.freeze(axis, "rows are looked up by number")
    return [(None, weight[1]), *((None,) * value.dim() for value in others)]


@rule("one_hot")
def one_hot(call: Call) -> Axes:
    """Add a dimension of classes, which stays."""
    return (*call.axes("self"), None)


@rule(*FLIPS)
def flip(call: Call) -> Axes:
    """Ids change order; what is left of them does so too."""
    source = list(call.axes("self"))
    named = {"fliplr": [1], "flipud": [0]}
    for dim in named.get(call.operator, call.arguments.get("dims", ())):
        axis = source[dim]
        source[dim] = None if axis is None else axis[::-1]
    return tuple(source)


@rule("roll")
def roll(call: Call) -> Axes:
    """Positions move freely; channels are rolled if they are alone in it."""
    source, dims = list(call.axes("self")), call.arguments["dims"]
    if not dims:
        return _all_none(call, "roll moves all dimensions at once")
    for dim, shift in zip(dims, call.arguments["shifts"], strict=True):
        axis = source[dim]
        if axis is not None and len(dims) == 1:
            source[dim] = np.roll(axis, shift)
        else:
            call.ids.freeze(axis, "roll moves these channels with others")
    return tuple(source)


def _all_none(call: Call, reason: str) -> Axes:
    _freeze_all(call, call.axes("self"), reason)
    return (None,) * len(call.output_shape)


@rule("unfold")
def windows(call: Call) -> Axes:
    """Make runs of a dimension a new one: both hold positions."""
    source, at = call.axes("self"), call.dim("dimension")
    call.ids.freeze(source[at], "is read in windows")
    return (*source[:at], None, *source[at + 1 :], None)
