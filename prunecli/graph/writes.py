"""Mixed connectivity: residual blocks that write a part of the slots of their stream.

A block `stream + branch` becomes `stream.index_add(dim, written, branch[written])`. The channels of
the branch that nothing reads any more are cut like any others, so that its last layer makes as many
as it writes. What that is proven against follows: the dense network in which the last weights of
the branch (gamma and beta of its batch norm) are zero at the slots that are not written.
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prunecli.graph.blocks import Block
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

Writes = Mapping[str, tuple[int, ...]]
"""Per block, by name, the slots of the stream that it writes, ascending."""


@dataclass(frozen=True)
class Part:
    """A block and the slots that it writes, along the dimension `dim` of its sum."""

    block: Block
    dim: int
    slots: tuple[int, ...]


def with_writes(trace: Trace, parts: Iterable[Part]) -> Trace:
    """Return the trace in which these blocks write their slots alone; others write all.

    Nodes keep their names; what is picked of a branch is called `<add>_written`.
    """
    graph, by_name = copied(trace.graph)
    constants, integers = dict(trace.constants), dict(trace.integers)
    for part in parts:
        block, dim, slots = part.block, part.dim, part.slots
        add = by_name[block.add]
        index = torch.tensor(slots, dtype=torch.int64)
        placeholder = _constant(graph, f"written_{block.add}", index)
        constants[placeholder.name] = integers[placeholder.name] = index
        _write_part_(graph, add, by_name[block.branch], dim, placeholder)
    graph.lint()
    return dataclasses.replace(trace, graph=graph, constants=constants, integers=integers)


def written_name(block: Block) -> str:
    """Return what the part of a branch that is written is called in the graph."""
    return f"{block.add}_written"


def parts_of(
    trace: Trace,
    coupling: CouplingGraph,
    blocks: Iterable[Block],
    deleted: Iterable[Block],
    writes: Mapping[str, Sequence[int]],
) -> tuple[Part, ...]:
    """Return the blocks that write a part of their slots; those that write all are left out.

    Raises `InputError` (`BAD_WRITES`) for a block that is not there or is deleted, one whose
    channels cannot go, and for slots that the stream does not have.
    """
    gone = {name for block in deleted for name in (block.add, *block.nodes)}
    by_name = {block.name: block for block in blocks if block.add not in gone}
    shapes = {
        node.name: node.meta["val"].shape
        for node in trace.graph.nodes
        if node.name in {block.add for block in by_name.values()}
    }
    found = []
    for name, slots in writes.items():
        if name not in by_name:
            raise _bad(f"{name} is no residual block of this model", by_name)
        dim = _slot_dim(by_name[name], coupling)
        if dim is None:
            raise _bad(f"the channels that {name} makes cannot be cut", by_name)
        count, asked = int(shapes[by_name[name].add][dim]), tuple(int(slot) for slot in slots)
        if not asked or list(asked) != sorted(set(asked)) or asked[0] < 0 or asked[-1] >= count:
            raise _bad(f"{name} cannot write these slots of {count}: {list(asked)[:8]}", by_name)
        if len(asked) < count:
            found.append(Part(by_name[name], dim, asked))
    return tuple(found)


def _slot_dim(block: Block, coupling: CouplingGraph) -> int | None:
    """Return the dimension of a branch whose channels its last weights make; None if they stay."""
    own = [
        atoms for dims in (coupling.tensors.get(block.zeroed[0], {}),) for atoms in dims.values()
    ]
    for dim, atoms in coupling.values.get(block.branch, {}).items():
        if any(np.array_equal(np.unique(atoms), np.unique(other)) for other in own):
            return dim
    return None


def _bad(problem: str, blocks: Iterable[str]) -> InputError:
    names = ", ".join(blocks)
    return InputError(
        problem,
        code="BAD_WRITES",
        hint="give at least one slot, ascending; a block that writes none is deleted instead. "
        f"Its blocks are {names or 'none'}",
    )


def _constant(graph: fx.Graph, name: str, value: Tensor) -> fx.Node:
    """Add a placeholder for a constant, before all that is computed."""
    *_, last = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(last):
        node = graph.placeholder(name)
    node.meta["val"] = value
    return node


def _write_part_(graph: fx.Graph, add: fx.Node, branch: fx.Node, dim: int, index: fx.Node) -> None:
    """Replace `stream + branch` by a sum into the slots at `index`, under the name of the sum."""
    arguments: Any = schema_arguments(add)
    stream = arguments["other"] if arguments["self"] is branch else arguments["self"]
    whole, part = branch.meta["val"], index.meta["val"].numel()
    with graph.inserting_before(add):
        picked = graph.call_function(
            torch.ops.aten.index_select.default,
            (branch, dim, index),
            name=f"{add.name}_written",
        )
    picked.meta = {**add.meta, "val": whole.narrow(dim, 0, part)}
    add.target = torch.ops.aten.index_add.default
    add.args = (stream, dim, index, picked)
    add.kwargs = {}
