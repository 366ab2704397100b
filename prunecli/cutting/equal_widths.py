"""Groups whose widths a forward says with one number: equal before a cut, and so after it.

`chunk(2)` takes halves, and a view by `self.head_dim` reads queries, keys and values by the same
integer. Which channels stay is free, but how many is one number, or the model's own class computes
something else after the cut. The graph that stands in for it then could have any widths.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from prunecli.cutting.attributes import integers_of, owner
from prunecli.graph.operators import (
    EXPANSIONS,
    SIZED_VIEWS,
    SPLITS,
    operator_name,
    schema_arguments,
)
from prunecli.graph.rules.pick import split_dim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import fx, nn

    from prunecli.graph.coupling.groups import Atoms, CouplingGraph
    from prunecli.graph.tracing.trace import Trace

Links = tuple[tuple[int, ...], ...]
"""Groups by number that have one width together."""

_Factors = tuple[int, ...]
"""The groups whose widths a size is the product of."""


def equal_widths(
    model: nn.Module, traces: Iterable[Trace | None], coupling: CouplingGraph
) -> Links:
    """Return the groups that have to stay equally wide for the model's own forward.

    `traces` are those of its forward in evaluation and in training, where that is another. An
    inference from the sizes in the graph and the integers that modules keep; the proof of a cut
    tells whether it was enough.
    """
    group_of = np.full(coupling.atom_count + 1, -1)
    for at, group in enumerate(coupling.groups):
        group_of[group.atoms] = at
    pairs: list[tuple[int, int]] = []
    said: dict[tuple[str, int], list[_Factors]] = defaultdict(list)
    integers = {path: integers_of(module) for path, module in model.named_modules()}
    for node in (node for trace in traces if trace is not None for node in trace.graph.nodes):
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator in SPLITS:
            pieces = list(_pieces(node, operator, coupling.values))
            found = [_factors(atoms, group_of) for _, atoms in pieces]
            if len({size for size, _ in pieces}) == 1 and "split_sizes" not in schema_arguments(
                node
            ):
                pairs += _pairs(found, coupling)
        for size, atoms in _sizes(node, operator, coupling.values):
            if size in integers.get(owner(node), ()):
                said[owner(node), size].append(_factors(atoms, group_of))
    for found in said.values():
        pairs += _pairs(found, coupling)
    return _joined(pairs, len(coupling.groups))


def _pieces(
    node: fx.Node, operator: str, values: Mapping[str, Mapping[int, Atoms]]
) -> Iterator[tuple[int, Atoms]]:
    """Yield the length of every piece of a split, and the atoms of its positions."""
    arguments = schema_arguments(node)
    source = arguments["self"]
    dim = split_dim(operator, arguments, len(source.meta["val"].shape))
    atoms = values.get(source.name, {}).get(dim)
    if atoms is None:
        return
    start = 0
    for piece in node.meta["val"]:
        size = int(piece.shape[dim])
        yield size, atoms[:, start : start + size]
        start += size


def _sizes(
    node: fx.Node, operator: str, values: Mapping[str, Mapping[int, Atoms]]
) -> Iterator[tuple[int, Atoms]]:
    """Yield the sizes that a call names, and the atoms of the positions that they count."""
    if operator in SPLITS:
        yield from _pieces(node, operator, values)
    if operator not in SIZED_VIEWS | EXPANSIONS:
        return
    arguments = schema_arguments(node)
    given: Any = next((arguments[name] for name in _SIZES if arguments.get(name)), ())
    first = arguments["dim"] if "dim" in arguments else len(node.meta["val"].shape) - len(given)
    for at, size in enumerate(given):
        atoms = values.get(node.name, {}).get(first % len(node.meta["val"].shape) + at)
        if isinstance(size, int) and atoms is not None:
            yield size, atoms


_SIZES = ("size", "shape", "sizes")


def _factors(atoms: Atoms, group_of: NDArray[np.int64]) -> _Factors:
    """Return the groups that decide about a run of positions, one for each axis; else nothing."""
    found = [np.unique(group_of[row]) for row in atoms]
    if any(len(groups) != 1 or groups[0] < 0 for groups in found):
        return ()
    return tuple(sorted(int(groups[0]) for groups in found))


def _pairs(sizes: list[_Factors], coupling: CouplingGraph) -> Iterator[tuple[int, int]]:
    """Yield the groups in which sizes differ that are one number."""
    first, *others = dict.fromkeys(sizes) or [()]
    for other in others:
        own, theirs = list(first), list(other)
        for group in first:
            if group in theirs:
                own.remove(group)
                theirs.remove(group)
        if len(own) == len(theirs) == 1:
            one, two = own[0], theirs[0]
            if coupling.groups[one].width == coupling.groups[two].width:
                yield one, two


def _joined(pairs: list[tuple[int, int]], count: int) -> Links:
    if not pairs:
        return ()
    rows, columns = zip(*pairs, strict=True)
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    classes = defaultdict(list)
    for group, own in enumerate(label.tolist()):
        classes[own].append(group)
    return tuple(tuple(members) for members in classes.values() if len(members) > 1)
