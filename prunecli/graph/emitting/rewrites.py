"""Arguments of operators that repeat sizes: what each becomes after a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.errors import GraphError
from prunecli.graph.emitting.sizes import Sizes
from prunecli.graph.operators import (
    ATTENTION,
    CHANNEL_SHUFFLES,
    CONVOLUTIONS,
    DEFORMABLE_CONVOLUTIONS,
    EXPANSIONS,
    FILLS,
    GROUP_NORMS,
    INDEXINGS,
    LAYER_NORMS,
    NARROWINGS,
    PADS,
    SELECTIONS,
    SIZED_VIEWS,
    SLICES,
    SPLITS,
    TRANSPOSED_CONVOLUTIONS,
    operator_name,
    said,
    schema_arguments,
    shape_of,
    source_line,
)
from prunecli.graph.rules.pick import indexed_dims, split_dim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


@dataclass(frozen=True)
class Scaled:
    """A size that is computed when the network runs, times `times` and divided by `over`."""

    node: fx.Node
    times: int
    over: int


Rewrite = Callable[[fx.Node, dict[str, Any], Sizes], dict[str, Any]]


def _rewrite_sizes(argument: str) -> Rewrite:
    def rewrite(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
        given = arguments.get(argument)
        if given is None:
            return {}  # a view of another type, which names no sizes
        return {argument: _sizes_left(node, given, len(node.meta["val"].shape) - len(given), sizes)}

    return rewrite


def _rewrite_unflatten(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    at = arguments["dim"] % len(node.args[0].meta["val"].shape)  # type: ignore[union-attr]
    return {"sizes": _sizes_left(node, arguments["sizes"], at, sizes)}


def _sizes_left(node: fx.Node, given: Sequence[Any], first: int, sizes: Sizes) -> list[Any]:
    """Return what is left of the sizes of the dimensions from `first` on, as a view names them."""
    return [
        size if isinstance(size, int) and size == -1 else _size_left(node, size, first + at, sizes)
        for at, size in enumerate(given)
    ]


def _size_left(node: fx.Node, size: Any, dim: int, sizes: Sizes) -> Any:
    return _computed(size, sizes.left(node, dim), sizes)


def _computed(size: Any, left: int, sizes: Sizes) -> Any:
    """Return what stands for `left` in the place of `size`, both for one input."""
    if isinstance(size, int):
        return left
    # A size that the forward computes (batch * heads) may follow the cut by itself, or be written.
    computed = sizes.value(size)
    return size if computed == left else Scaled(size, left, computed)


def _rewrite_slice(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source = arguments["self"]
    shape = shape_of(source, sizes.batch)
    dim = arguments["dim"] % len(shape)
    if sizes.atoms(source, dim) is None:
        return {}
    start, end, step = slice(arguments["start"], arguments["end"], arguments["step"]).indices(
        shape[dim]
    )
    if (start, end, step) == (0, shape[dim], 1):
        return {}  # a whole dimension, which may hold every head of every input of the batch
    if step == 1:
        first = sizes.count(source, dim, 0, start)
        return {"start": first, "end": first + sizes.count(source, dim, start, end)}
    # Every other channel, say: what is left of them is no longer evenly spaced.
    left = [
        sizes.count(source, dim, 0, at)
        for at in range(start, end, step)
        if sizes.count(source, dim, at, at + 1)
    ]
    return {"take": {"dim": dim, "indices": left}}


def _rewrite_narrow(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source, start = arguments["self"], arguments["start"]
    dim = arguments["dim"] % len(source.meta["val"].shape)
    if not isinstance(start, int) or sizes.atoms(source, dim) is None:
        return {}
    return {"start": sizes.count(source, dim, 0, start), "length": sizes.left(node, dim)}


def _rewrite_select(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source, index = arguments["self"], arguments["index"]
    shape = shape_of(source, sizes.batch)
    dim = arguments["dim"] % len(shape)
    if not isinstance(index, int) or sizes.atoms(source, dim) is None:
        return {}
    return {"index": sizes.count(source, dim, 0, index % shape[dim])}


def _rewrite_pieces(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source = arguments["self"]
    dim = split_dim(operator_name(node.target), arguments, len(source.meta["val"].shape))
    if not sizes.is_cut(source, dim):
        return {}
    lengths, start = [], 0
    for value in node.meta["val"]:
        size = int(value.shape[dim])
        lengths.append(sizes.count(source, dim, start, start + size))
        start += size
    return {"operator": "aten.split_with_sizes.default", "split_sizes": lengths, "dim": dim}


def _rewrite_index(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    picked = indexed_dims(arguments["indices"], sizes.batch)
    if len(picked) > 1:
        return {}
    ((dim, index),) = picked.items()
    return _take(arguments["self"], dim, sizes.constant(index), sizes)


def _rewrite_index_select(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source = arguments["self"]
    dim = arguments["dim"] % len(shape_of(source, sizes.batch))
    found = _take(source, dim, sizes.constant(arguments["index"]), sizes)
    if found and found["take"]["indices"] == list(range(sizes.left(source, dim))):
        # All that is left, in its order: what a block writes after the rest of it was cut.
        return {"operator": "aten.alias.default"}
    return found


def _rewrite_index_add(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source, index = arguments["self"], sizes.constant(arguments["index"])
    size = shape_of(source, sizes.batch)[arguments["dim"]]
    if index is None or index.dim() != 1 or arguments.get("alpha", 1) != 1:
        return {}
    dim = arguments["dim"] % len(shape_of(source, sizes.batch))
    left = [
        sizes.count(source, dim, 0, at)
        for at in (index % size).tolist()
        if sizes.count(source, dim, at, at + 1)
    ]
    return {"add_at": {"dim": dim, "indices": left}}


def _rewrite_roll(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source, dims = arguments["self"], arguments["dims"]
    shape = shape_of(source, sizes.batch)
    if len(dims) != 1 or sizes.atoms(source, dims[0] % len(shape)) is None:
        return {}
    (dim,), (shift,) = dims, arguments["shifts"]
    return _take(source, dim % len(shape), torch.arange(shape[dim]).roll(shift), sizes)


def _take(source: fx.Node, dim: int, indices: Tensor | None, sizes: Sizes) -> dict[str, Any]:
    """Pick from what is left of a dimension what is left of a fixed list of its positions."""
    if indices is None or indices.dim() != 1 or indices.dtype in (torch.bool, torch.uint8):
        return {}
    size = shape_of(source, sizes.batch)[dim]
    left = [
        sizes.count(source, dim, 0, at)
        for at in (indices % size).tolist()
        if sizes.count(source, dim, at, at + 1)
    ]
    return {"take": {"dim": dim, "indices": left}}


def _rewrite_repeat(argument: str) -> Rewrite:
    def rewrite(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
        source = shape_of(arguments["self"], sizes.batch)
        rank = len(node.meta["val"].shape)
        before = (1,) * (rank - len(source)) + source
        times = [1] * (rank - len(arguments[argument])) + list(arguments[argument])
        return {
            argument: [
                sizes.left(node, dim) if size == 1 and isinstance(time, int) else time
                for dim, (size, time) in enumerate(zip(before, times, strict=True))
            ]
        }

    return rewrite


def _rewrite_interleave(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    source, dim = arguments["self"], arguments.get("dim")
    if dim is None or not isinstance(arguments.get("repeats"), int):
        return {}
    one = shape_of(source, sizes.batch)[dim] == 1
    return {"output_size": None, **({"repeats": sizes.left(node, dim)} if one else {})}


def _rewrite_shuffle(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    return {"groups": _groups_left(arguments["self"], arguments["groups"], sizes)}


def _groups_left(source: fx.Node, groups: int, sizes: Sizes) -> int:
    """Return how many runs of channels still have a channel."""
    width = shape_of(source, sizes.batch)[1] // groups
    left = [sizes.count(source, 1, at * width, (at + 1) * width) for at in range(groups)]
    return sum(1 for count in left if count)


def _rewrite_pad(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    rank = len(node.meta["val"].shape)
    shape = shape_of(node, sizes.batch)
    amounts = list(arguments["pad"])
    for step in range(len(amounts) // 2):
        dim = rank - 1 - step
        before, after = amounts[2 * step : 2 * step + 2]
        if sizes.atoms(node, dim) is not None and min(before, after) >= 0:
            amounts[2 * step] = sizes.count(node, dim, 0, before)
            amounts[2 * step + 1] = sizes.count(node, dim, shape[dim] - after, shape[dim])
    return {"pad": amounts}


def _rewrite_convolution(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    if arguments["groups"] == 1:
        return {}
    source, weight = arguments["input"], arguments["weight"]
    channels = len(shape_of(source, sizes.batch)) - len(shape_of(weight, sizes.batch)) + 1
    left = sizes.left(source, channels) // sizes.left(weight, 1)
    return {"groups": _computed(arguments["groups"], left, sizes)}


def _rewrite_transposed(node: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    if arguments["groups"] == 1:
        return {}
    weight = arguments["weight"]
    channels = len(shape_of(node, sizes.batch)) - len(shape_of(weight, sizes.batch)) + 1
    left = sizes.left(node, channels) // sizes.left(weight, 1)
    return {"groups": _computed(arguments["groups"], left, sizes)}


def _rewrite_layer_norm(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    count = len(arguments["normalized_shape"])
    source = arguments["input"]
    return {"normalized_shape": [sizes.left(source, dim - count) for dim in range(count)]}


def _rewrite_group_norm(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    return {"num_groups": _groups_left(arguments["input"], arguments["num_groups"], sizes)}


def _rewrite_attention(_: fx.Node, arguments: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    # The default temperature follows the width of the queries; it has to stay that of the dense.
    query = arguments["query"]
    if arguments["scale"] is not None or not sizes.is_cut(query, -1):
        return {}
    return {"scale": shape_of(query, sizes.batch)[-1] ** -0.5}


REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys(ATTENTION, _rewrite_attention),
    **dict.fromkeys((*SIZED_VIEWS, *EXPANSIONS, *FILLS), _rewrite_sizes("size")),
    "reshape": _rewrite_sizes("shape"),
    "unflatten": _rewrite_unflatten,
    **dict.fromkeys(SLICES, _rewrite_slice),
    **dict.fromkeys(NARROWINGS, _rewrite_narrow),
    **dict.fromkeys(SELECTIONS, _rewrite_select),
    **dict.fromkeys(SPLITS, _rewrite_pieces),
    **dict.fromkeys(INDEXINGS, _rewrite_index),
    "index_select": _rewrite_index_select,
    "index_add": _rewrite_index_add,
    "roll": _rewrite_roll,
    "repeat": _rewrite_repeat("repeats"),
    "tile": _rewrite_repeat("dims"),
    "repeat_interleave": _rewrite_interleave,
    **dict.fromkeys(CHANNEL_SHUFFLES, _rewrite_shuffle),
    **dict.fromkeys(PADS, _rewrite_pad),
    **dict.fromkeys(CONVOLUTIONS | DEFORMABLE_CONVOLUTIONS, _rewrite_convolution),
    **dict.fromkeys(TRANSPOSED_CONVOLUTIONS, _rewrite_transposed),
    **dict.fromkeys(LAYER_NORMS, _rewrite_layer_norm),
    **dict.fromkeys(GROUP_NORMS, _rewrite_group_norm),
}
"""Which argument of an operator repeats a size that the cut changes."""


def rewritten(node: fx.Node, sizes: Sizes) -> dict[str, Any]:
    """Return the arguments of a call that change with a cut; none where no cut reaches it.

    Raises `GraphError` (`NOT_WRITABLE`) for a call that its rewrite does not understand.
    """
    operator = operator_name(node.target)
    if operator not in REWRITES or not sizes.touches(node):
        return {}
    try:
        return REWRITES[operator](node, schema_arguments(node), sizes)
    except Exception as error:
        raise GraphError(
            f"the graph cannot be written anew: operator {operator} has sizes that are not "
            f"understood here ({said(error)})",
            code="NOT_WRITABLE",
            where=source_line(node) or node.name,
            hint="keep the layers around it whole with --exclude",
        ) from error


def baked_sizes(trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]) -> dict[str, str]:
    """Return the cut groups whose sizes are arguments of views and slices, and where.

    Such a size may follow the width, or be written in the forward: the graph cannot tell. Layers
    repeat sizes too, but as attributes, which a cut keeps in step. A call that is not understood
    counts as one with such a size.
    """
    sizes = Sizes(trace, coupling, keep)
    found: dict[str, str] = {}
    for node in trace.graph.nodes:
        name = operator_name(node.target) if node.op == "call_function" else ""
        arguments = schema_arguments(node) if name in REWRITES else {}
        if not arguments or "weight" in arguments:
            continue
        with suppress(GraphError):
            changed = rewritten(node, sizes)
            if all(arguments.get(key) == value for key, value in changed.items()):
                continue
        touched = (node, *node.all_input_nodes)
        dims = [
            atoms for value in touched for atoms in coupling.values.get(value.name, {}).values()
        ]
        where = source_line(node) or node.name
        for group in coupling.groups:
            lost = np.flatnonzero(~keep[group.atoms]) + group.first
            if any(np.isin(lost, atoms).any() for atoms in dims):
                found.setdefault(group.name, f"its size may be written in the forward ({where})")
    return found
