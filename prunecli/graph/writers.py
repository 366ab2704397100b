"""What writes into the streams of a residual network: its blocks, and the layers they begin with.

Every slot of a stream (a channel of the sum) is written by some of them. A writer that leaves a
slot alone adds nothing to it; a slot that nobody writes is dead. In the network with its writers
*apart*, what a writer makes and the slot that it goes to are channels of their own, so that either
can be counted and gated alone.
Source: masks on writers alone are in Lemaire et al. 2019 (arXiv 1811.09332), fig. 5: the layers
that project a shortcut, the last layers of blocks, and the inner ones. How they are found is our
reconstruction.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx

from prunecli.graph.blocks import AFFINE
from prunecli.graph.coupling.groups import STAYS, couple
from prunecli.graph.leaving_out import copied, outermost
from prunecli.graph.operators import (
    AVERAGE_POOLS,
    IDENTITIES,
    MAX_POOLS,
    operator_name,
    schema_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.graph.blocks import Block
    from prunecli.graph.coupling.groups import Atoms, ChannelGroup, CouplingGraph
    from prunecli.graph.tracing.trace import Trace

BEGINS = (
    AVERAGE_POOLS
    | IDENTITIES
    | MAX_POOLS
    | {"clone", "dropout", "gelu", "hardswish", "leaky_relu", "relu", "relu6", "silu", "tanh"}
)
"""What may lie between the layer that begins a stream and the stream: 0 stays 0, channels apart."""


@dataclass(frozen=True)
class Writer:
    """One writer of a stream; nodes go by their names in the graph.

    `value` is what it writes, with its slots along the dimension `dim`; `zeroed` are the weights
    whose zeros write nothing. `block` is the block that it is the end of, None for what begins a
    stream.
    """

    name: str
    value: str
    dim: int
    zeroed: tuple[str, ...]
    block: Block | None = None


def find_writers(
    trace: Trace, coupling: CouplingGraph, blocks: Iterable[Block]
) -> tuple[Writer, ...]:
    """Return what could write a part of the slots of its stream, in the order of execution."""
    outer = outermost(blocks)
    by_name = {node.name: node for node in trace.graph.nodes}
    listed: dict[str, tuple[str, tuple[str, ...], Block | None]] = {}
    for block in outer:
        stream, zeroed = _begins(trace, by_name, block)
        if zeroed:
            name = zeroed[0].rpartition(".")[0] or zeroed[0]
            listed.setdefault(stream, (name, zeroed, None))
        listed[block.branch] = (block.name, block.zeroed, block)
    return tuple(
        Writer(name, value, dim, zeroed, block)
        for value, (name, zeroed, block) in listed.items()
        if (dim := slot_dim(coupling, value, zeroed)) is not None
    )


def slot_dim(coupling: CouplingGraph, value: str, zeroed: Sequence[str]) -> int | None:
    """Return the dimension of a value whose channels its last weights make; None if they stay."""
    own = coupling.tensors.get(zeroed[0], {}).values()
    for dim, atoms in coupling.values.get(value, {}).items():
        if any(np.array_equal(np.unique(atoms), np.unique(other)) for other in own):
            return dim
    return None


def _begins(
    trace: Trace, by_name: Mapping[str, fx.Node], block: Block
) -> tuple[str, tuple[str, ...]]:
    """Return the stream of a block, and the weights of the layer that it begins with, if one."""
    (stream,) = (node for node in by_name[block.add].all_input_nodes if node.name != block.branch)
    node = stream
    while node.op == "call_function" and operator_name(node.target) in BEGINS:
        node = node.all_input_nodes[0]
    if node.op != "call_function" or operator_name(node.target) not in AFFINE:
        return stream.name, ()
    arguments = schema_arguments(node)
    parts = [part for part in (arguments.get("weight"), arguments.get("bias")) if part is not None]
    names = tuple(trace.tensors.get(part.name, "") for part in parts)
    stored = all(names) and not set(names) & trace.buffers
    return stream.name, names if stored else ()


def sum_name(writer: Writer) -> str:
    """Return what is called so in the graph that a stream is once a writer has written."""
    return writer.value if writer.block is None else writer.block.add


def slots_name(writer: Writer) -> str:
    """Return what hands on the stream once a writer has written, where writers are apart."""
    return f"{sum_name(writer)}_slots"


def written_name(writer: Writer) -> str:
    """Return what is called so in the graph that a writer hands to its stream."""
    return f"{sum_name(writer)}_written"


@dataclass(frozen=True)
class Apart:
    """A traced network with channels of their own for slots and for what is written to them.

    `trace` has two nodes more per writer: `written_name` hands on what it writes, and `slots_name`
    the stream with that in it, of which every part has slots of its own. `whole` is the coupling of
    the network as it is; `reasons` says why other writers are not apart.
    """

    trace: Trace
    coupling: CouplingGraph
    whole: CouplingGraph
    writers: tuple[Writer, ...]
    reasons: Mapping[str, str]

    def made(self, writer: Writer) -> Atoms:
        """Return the atom that a writer makes for each of its slots."""
        return self._line(writer.value, writer.dim)

    def slots(self, writer: Writer) -> Atoms:
        """Return the atom of each slot of its stream, once it has written."""
        return self._line(slots_name(writer), writer.dim)

    def before(self, writer: Writer) -> Atoms:
        """Return the atom of each slot of its stream, before it has written."""
        return self._line(written_name(writer), writer.dim)

    def tied(self, writer: Writer) -> Atoms:
        """Return the atom of each slot in the network as it is."""
        return self._line(writer.value, writer.dim, self.whole)

    @cached_property
    def always(self) -> NDArray[np.bool_]:
        """Which slots are there in any case, by the atoms of the network as it is (the last: all).

        Others write those too, or a norm runs over them.
        """
        made = np.zeros(self.coupling.atom_count + 1, np.bool_)
        for group in self.coupling.groups:
            made[group.atoms] = bool(group.producers) or not group.exact
        found = np.zeros(self.whole.atom_count + 1, np.bool_)
        for writer in self.writers:
            for slots in (self.before(writer), self.slots(writer)):
                found[self.tied(writer)[made[slots]]] = True
        found[STAYS] = True
        return found

    def _line(self, value: str, dim: int, coupling: CouplingGraph | None = None) -> Atoms:
        found = (coupling or self.coupling).values.get(value, {}).get(dim)
        size = self.size(value, dim)
        return np.full(size, STAYS) if found is None else found[0]

    def size(self, value: str, dim: int) -> int:
        """Return how many slots a value has."""
        node = next(node for node in self.trace.graph.nodes if node.name == value)
        return int(node.meta["val"].shape[dim])


def writers_apart(trace: Trace, coupling: CouplingGraph, blocks: Iterable[Block]) -> Apart:
    """Return the network with its writers apart, as many as can be.

    One cannot whose channels are read before they are written, by an attention over channels say:
    what it makes for a slot is then more than what it writes.
    """
    writers, reasons = find_writers(trace, coupling, blocks), dict[str, str]()
    while True:
        found = _apart(trace, coupling, writers)
        refused = {
            writer.name: reason
            for writer in writers
            if (reason := _why_tied(found, writer)) is not None
        }
        if not refused:
            return dataclasses.replace(found, reasons=reasons)
        reasons |= refused
        writers = tuple(writer for writer in writers if writer.name not in refused)


def _apart(trace: Trace, whole: CouplingGraph, writers: Sequence[Writer]) -> Apart:
    graph, by_name = copied(trace.graph)
    for writer in writers:
        written = by_name[writer.value]
        if writer.block is None:
            total = _handed_on(graph, written, written_name(writer), tuple(written.users))
        else:
            total = by_name[writer.block.add]
            _handed_on(graph, written, written_name(writer), (total,))
        _handed_on(graph, total, slots_name(writer), tuple(total.users))
    graph.lint()
    left = dataclasses.replace(trace, graph=graph)
    names = {name(writer): writer.dim for writer in writers for name in (written_name, slots_name)}
    return Apart(left, couple(left, apart=names), whole, tuple(writers), {})


def _handed_on(graph: fx.Graph, value: fx.Node, name: str, readers: Sequence[fx.Node]) -> fx.Node:
    """Let readers read a value through a node that hands it on."""
    with graph.inserting_after(value):
        handed = graph.call_function(torch.ops.aten.alias.default, (value,), name=name)
    handed.meta = dict(value.meta)
    for reader in readers:
        reader.replace_input_with(value, handed)
    return handed


def _why_tied(apart: Apart, writer: Writer) -> str | None:
    """Return why what a writer makes is more than what it writes; None where it is not."""
    made = apart.made(writer)
    rows = apart.coupling.values.get(writer.value, {}).get(writer.dim)
    if rows is None or (made == STAYS).any():
        return "its channels stay"
    if (
        len(rows) > 1
        or np.unique(made).size < made.size
        or not any(_sites(apart.coupling, name, made) for name in writer.zeroed)
    ):
        return "its channels go several at a time"
    groups = {group.name: group for group in apart.coupling.groups if _holds(group, made)}
    if any(group.consumers for group in groups.values()):
        return "a layer reads its channels before they are added"
    if not all(group.exact for group in groups.values()):
        return "a norm runs over its channels before they are added"
    return None


def _holds(group: ChannelGroup, atoms: NDArray[np.int64]) -> bool:
    return bool(((atoms >= group.first) & (atoms < group.first + group.width)).any())


def _sites(coupling: CouplingGraph, name: str, made: NDArray[np.int64]) -> list[int]:
    """Return the dimensions of a tensor along which it has these atoms."""
    dims = coupling.tensors.get(name, {})
    return [dim for dim, atoms in dims.items() if np.array_equal(np.sort(atoms[0]), np.sort(made))]


def writing_sites(apart: Apart, writer: Writer) -> tuple[tuple[str, int], ...]:
    """Return the (tensor, dim) sites whose zeros write nothing."""
    made = apart.made(writer)
    return tuple(
        (name, dim) for name in writer.zeroed for dim in _sites(apart.coupling, name, made)
    )
