"""Mixed connectivity: blocks, and layers that begin a stream, that write a part of its slots.

A block `stream + branch` becomes `stream.index_add(dim, written, branch[written])`. Where slots are
new with a block (nobody has written them before), zeros are put there first: until then they are
not there, and nothing reads them. Channels that nothing reads any more are cut like any others, so
that the last layer of a writer makes as many as it writes. What that is proven against follows: the
dense network in which the last weights of a writer (gamma and beta of its batch norm) are zero at
the slots that are not written.
Source: Lemaire et al. 2019 (arXiv 1811.09332), fig. 5, masks on writers; how it is executed is our
reconstruction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.errors import InputError
from prunecli.graph.leaving_out import copied
from prunecli.graph.operators import schema_arguments
from prunecli.graph.writers import sum_name, written_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from prunecli.graph.blocks import Block
    from prunecli.graph.tracing.trace import Trace
    from prunecli.graph.writers import Apart, Writer

Writes = Mapping[str, tuple[int, ...]]
"""Per writer, by name, the slots of the stream that it writes, ascending."""


@dataclass(frozen=True)
class Part:
    """A writer and the slots of its stream: positions along its dimension, ascending.

    `gone` are those that nobody has written once it has: they are cut there, what it writes to them
    with them. `new` are those that it is the first to write. `slots` are those that it writes, and
    those that are gone.
    """

    writer: Writer
    slots: tuple[int, ...]
    new: tuple[int, ...]
    gone: tuple[int, ...]
    size: int


def with_writes(trace: Trace, parts: Iterable[Part]) -> Trace:
    """Return the trace in which these writers write their slots alone; others write all.

    Nodes keep their names; what is picked of what a block makes is called `written_name`, and what
    is left of a stream before slots are new `before_name`.
    """
    graph, by_name = copied(trace.graph)
    tables: dict[str, Tensor] = {}
    for part in parts:
        if part.writer.block is None:
            continue
        for node in _write_part_(graph, by_name, part, part.writer.block):
            tables[node.name] = node.meta["val"]
    graph.lint()
    return dataclasses.replace(
        trace,
        graph=graph,
        constants={**trace.constants, **tables},
        integers={**trace.integers, **tables},
    )


def before_name(writer: Writer) -> str:
    """Return what is called so in the graph that goes on of a stream where others are new."""
    return f"{sum_name(writer)}_before"


def parts_of(
    apart: Apart, deleted: Iterable[Block], writes: Mapping[str, Sequence[int]]
) -> tuple[Part, ...]:
    """Return the writers that write a part of their slots, and those that go on with a part.

    Raises `InputError` (`BAD_WRITES`) for a writer that is not there or is deleted, and for slots
    that its stream does not have.
    """
    gone = {name for block in deleted for name in (block.add, *block.nodes)}
    left = [writer for writer in apart.writers if writer.value not in gone]
    written = {writer.name: np.ones(apart.tied(writer).size, np.bool_) for writer in left}
    for name, slots in writes.items():
        if name not in written:
            raise _bad(f"{name} writes no stream of this model whose channels can be cut", written)
        asked, count = tuple(int(slot) for slot in slots), written[name].size
        if not asked or list(asked) != sorted(set(asked)) or asked[0] < 0 or asked[-1] >= count:
            raise _bad(f"{name} cannot write these slots of {count}: {list(asked)[:8]}", written)
        written[name] = np.isin(np.arange(count), asked)
    alive = apart.always.copy()
    seen = alive.copy()
    found = []
    for writer in left:
        tied, own = apart.tied(writer), written[writer.name]
        before, known = alive[tied], seen[tied]
        after = before | own
        alive[tied[own]] = seen[tied] = True
        part = Part(
            writer,
            slots=_places(own | ~after),
            new=_places(after & ~before & known),
            gone=_places(~after),
            size=own.size,
        )
        if part.new or part.gone or len(part.slots) < part.size:
            found.append(part)
    return tuple(found)


def _places(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _bad(problem: str, writers: Iterable[str]) -> InputError:
    names = ", ".join(writers)
    return InputError(
        problem,
        code="BAD_WRITES",
        hint="give at least one slot, ascending; a block that writes none is deleted instead. "
        f"Its writers are {names or 'none'}",
    )


def _write_part_(
    graph: fx.Graph, by_name: Mapping[str, fx.Node], part: Part, block: Block
) -> Iterator[fx.Node]:
    """Replace `stream + branch` by a sum into some slots, under its name; yield the tables."""
    writer, dim = part.writer, part.writer.dim
    add, branch = by_name[block.add], by_name[writer.value]
    arguments: Any = schema_arguments(add)
    stream = arguments["other"] if arguments["self"] is branch else arguments["self"]
    if part.new:
        left = [slot for slot in range(part.size) if slot not in set(part.new)]
        before = _table(graph, f"left_{add.name}", left)
        places = _table(graph, f"places_{add.name}", np.argsort([*left, *part.new]).tolist())
        yield from (before, places)
        behind = stream.meta["val"].dim() - 1 - dim
        pad = [0] * (2 * behind + 1) + [len(part.new)]
        whole = stream.meta["val"]
        with graph.inserting_before(add):
            stream = _picked(graph, stream, before, dim, before_name(writer))
            stream = graph.call_function(torch.ops.aten.constant_pad_nd.default, (stream, pad))
            stream.meta = {**add.meta, "val": whole}
            stream = _picked(graph, stream, places, dim, f"{add.name}_grown")
    if len(part.slots) == part.size:
        add.args, add.kwargs = (stream, branch), {}
        return
    index = _table(graph, f"written_{add.name}", part.slots)
    yield index
    with graph.inserting_before(add):
        picked = _picked(graph, branch, index, dim, written_name(writer))
    add.target = torch.ops.aten.index_add.default
    add.args, add.kwargs = (stream, dim, index, picked), {}


def _table(graph: fx.Graph, name: str, indices: Iterable[int]) -> fx.Node:
    """Add a placeholder for a table of positions, before all that is computed."""
    *_, last = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(last):
        node = graph.placeholder(name)
    node.meta["val"] = torch.tensor(tuple(indices), dtype=torch.int64)
    return node


def _picked(graph: fx.Graph, value: fx.Node, index: fx.Node, dim: int, name: str) -> fx.Node:
    """Add a node that picks the positions of a table from a value."""
    picked = graph.call_function(
        torch.ops.aten.index_select.default, (value, dim, index), name=name
    )
    count = index.meta["val"].numel()
    picked.meta = {**value.meta, "val": value.meta["val"].narrow(dim, 0, count)}
    return picked
