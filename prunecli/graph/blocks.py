"""Residual blocks of a traced graph: branches that add to a stream and can be left out.

A block is an addition of two tensors of one shape, `stream + branch`. The branch reads the stream,
or what the stream is made from, and feeds nothing but the addition; and it can be made exactly 0 by
zeroing the weights of its last layer. That zeroed network is what a network without the block is
proven against. Blocks are found in the wiring alone, whatever the network is called.
Source: blocks without outputs are left out in Lemaire et al. 2019 (arXiv 1811.09332); how they are
found here, and what counts as a shortcut, is our reconstruction.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from prunecli.graph.operators import (
    AVERAGE_POOLS,
    CHANNEL_NORMS,
    CONTRACTIONS,
    DEFORMABLE_CONVOLUTIONS,
    EXPANSIONS,
    FLIPS,
    GROUP_NORMS,
    IDENTITIES,
    LAYER_NORMS,
    LAYERS,
    PADS,
    PERMUTATIONS,
    SLICES,
    VIEWS,
    operator_name,
    schema_arguments,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prunecli.graph.tracing.trace import Trace

WEIGHTED = LAYERS | DEFORMABLE_CONVOLUTIONS | CONTRACTIONS
"""Operators that count as layers where a branch is told from a shortcut."""

AFFINE = CHANNEL_NORMS | LAYER_NORMS | GROUP_NORMS | LAYERS | DEFORMABLE_CONVOLUTIONS
"""Operators that give 0 everywhere once their weight and bias are zero."""

KEEPS_ZERO = (
    AVERAGE_POOLS
    | EXPANSIONS
    | FLIPS
    | IDENTITIES
    | PADS
    | PERMUTATIONS
    | SLICES
    | VIEWS
    | {
        "clone", "dropout", "elu", "feature_dropout", "gelu", "hardswish", "leaky_relu", "mish",
        "neg", "relu", "relu6", "roll", "silu", "tanh",
    }
)  # fmt: skip
"""Operators of one tensor that give 0 where that is 0."""


@dataclass(frozen=True)
class Block:
    """One residual block; nodes go by their names in the graph.

    `add` is the addition and `branch` its operand that vanishes with `nodes`, all that feeds
    nothing else. `zeroed` are the weights that make the branch 0, `tensors` all tensors that it
    alone reads.
    """

    name: str
    add: str
    branch: str
    nodes: tuple[str, ...]
    zeroed: tuple[str, ...]
    tensors: tuple[str, ...]


def find_blocks(trace: Trace) -> tuple[Block, ...]:
    """Return every residual block that can be left out, in the order of execution.

    None in a recorded forward: its graph does not stand for the network.
    """
    if trace.recorded:
        return ()
    graph = _Graph(trace)
    found = [block for node in graph.order for block in graph.blocks_at(node)]
    return _named(found)


class _Graph:
    """Answers what blocks are made of; everything is found in one pass where it can be."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.order: list[fx.Node] = list(trace.graph.nodes)
        self.position = {node: at for at, node in enumerate(self.order)}
        self.nowhere = _leading_nowhere(self.order)
        self.placeholders: dict[str, list[fx.Node]] = {}
        for node in self.order:
            if node.name in trace.tensors:
                self.placeholders.setdefault(trace.tensors[node.name], []).append(node)

    def blocks_at(self, add: fx.Node) -> list[Block]:
        """Return the block that ends in a node, if one does."""
        operands = self._operands(add)
        orders = (operands, operands[::-1]) if operands else ()
        found = (self._block(add, *order) for order in orders)
        return [block for block in found if block is not None][:1]

    def _operands(self, add: fx.Node) -> tuple[fx.Node, ...]:
        """Return the two tensors that a node adds, where either could stand for the sum."""
        if add.op != "call_function" or operator_name(add.target) != "add":
            return ()
        arguments = schema_arguments(add)
        pair = (arguments.get("self"), arguments.get("other"))
        tensors = tuple(value for value in pair if isinstance(value, fx.Node) and _is_tensor(value))
        if arguments.get("alpha", 1) != 1 or len(set(tensors)) < 2:
            return ()
        alike = {
            (shape_of(value, self.trace.batch), value.meta["val"].dtype)
            for value in (*tensors, add)
        }
        return tensors if len(alike) == 1 else ()

    def _block(self, add: fx.Node, stream: fx.Node, branch: fx.Node) -> Block | None:
        members = self._alone_in(branch, add)
        if branch not in members or not self._leaves(members, stream):
            return None
        zeroed = self._zeroing(branch, members)
        nodes = sorted(self._with_nowhere(members), key=self.position.__getitem__)
        if not zeroed or self._writes_outside(set(nodes)):
            return None
        return Block(
            name="",
            add=add.name,
            branch=branch.name,
            nodes=tuple(node.name for node in nodes),
            zeroed=zeroed,
            tensors=self._own_tensors(set(nodes)),
        )

    def _alone_in(self, branch: fx.Node, add: fx.Node) -> set[fx.Node]:
        """Return the nodes that feed an operand of an addition and nothing else."""
        members: set[fx.Node] = set()
        if branch.op != "call_function" or not self._read_by(branch, {add}):
            return members
        members.add(branch)
        for node in reversed(self.order[: self.position[branch]]):
            if node.op == "call_function" and self._read_by(node, members):
                members.add(node)
        return members

    def _with_nowhere(self, members: set[fx.Node]) -> set[fx.Node]:
        """Return the nodes of a branch with all that reads them and leads nowhere."""
        found, waiting = set(members), list(members)
        while waiting:
            for user in waiting.pop().users:
                if user in self.nowhere and user not in found:
                    found.add(user)
                    waiting.append(user)
        return found

    def _read_by(self, node: fx.Node, readers: set[fx.Node]) -> bool:
        """Tell whether these nodes read a node, and no other that anything comes of."""
        reading = set(node.users) - self.nowhere
        return bool(reading) and reading <= readers

    def _leaves(self, members: set[fx.Node], stream: fx.Node) -> bool:
        """Tell whether a branch leaves a stream and joins it again, with more layers than that."""
        before = _ancestors(stream) | {stream}
        entries = [
            value
            for node in members
            for value in node.all_input_nodes
            if value in before and _is_tensor(value) and not self._is_stored(value)
        ]
        if not entries:
            return False
        last = max(entries, key=self.position.__getitem__)
        shortcut = {last}
        for node in self.order[self.position[last] + 1 : self.position[stream] + 1]:
            if node in before and any(value in shortcut for value in node.all_input_nodes):
                shortcut.add(node)
        return _layers(shortcut - {last}) < _layers(members)

    def _is_stored(self, node: fx.Node) -> bool:
        return node.name in self.trace.tensors or node.name in self.trace.constants

    def _zeroing(self, node: fx.Node, members: set[fx.Node]) -> tuple[str, ...]:
        """Return the weights that make a node 0 when they are zero; none where nothing does."""
        if node not in members:
            return ()
        name, arguments = operator_name(node.target), schema_arguments(node)
        if name in AFFINE:
            parts = [arguments.get("weight"), arguments.get("bias")]
            return self._weights([part for part in parts if part is not None], members)
        if name == "mul":
            return self._product(list(arguments.values())[:2], members)
        if name == "add" and arguments.get("alpha", 1) == 1:
            both = [self._zeroing(value, members) for value in node.all_input_nodes]
            complete = len(both) == 2 and all(both)
            return tuple(dict.fromkeys(sum(both, ()))) if complete else ()
        constant = arguments.get("value") if name in PADS else None
        if name in KEEPS_ZERO and not constant and node.all_input_nodes:
            return self._zeroing(node.all_input_nodes[0], members)
        return ()

    def _product(self, factors: Sequence[Any], members: set[fx.Node]) -> tuple[str, ...]:
        """Return what makes a product 0: first a weight that is a factor (layer scale)."""
        nodes = [factor for factor in factors if isinstance(factor, fx.Node)]
        for node in nodes:
            if own := self._weights([node], members):
                return own
        return next((own for node in nodes if (own := self._zeroing(node, members))), ())

    def _weights(self, nodes: Sequence[fx.Node], members: set[fx.Node]) -> tuple[str, ...]:
        """Return the names of stored weights that a branch alone reads; none if one is not that."""
        names = [self.trace.tensors.get(node.name, "") for node in nodes]
        folded = {} if self.trace.folding is None else self.trace.folding.tensors
        for name in names:
            if not name or name in self.trace.buffers or name in folded:
                return ()
            if not all(set(node.users) <= members for node in self.placeholders[name]):
                return ()
        return tuple(names)

    def _writes_outside(self, members: set[fx.Node]) -> bool:
        """Tell whether a node of a branch writes in place into a tensor from outside of it."""
        for node in members:
            if not is_mutable(node):
                continue
            written: Any = node.args[0]
            while isinstance(written, fx.Node) and written in members and _shares(written):
                written = written.args[0]
            if written not in members:
                return True
        return False

    def _own_tensors(self, nodes: set[fx.Node]) -> tuple[str, ...]:
        own = [
            name
            for name, placeholders in self.placeholders.items()
            if any(node.users for node in placeholders)
            and all(set(node.users) <= nodes for node in placeholders)
        ]
        # The counter of a batch norm is read by nobody in evaluation, and goes with it.
        counters = [
            f"{name.removesuffix('running_mean')}num_batches_tracked"
            for name in own
            if name.endswith("running_mean")
        ]
        return (*own, *(name for name in counters if name in self.placeholders))


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def is_mutable(node: fx.Node) -> bool:
    """Tell whether a node writes in place into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _leading_nowhere(order: Sequence[fx.Node]) -> frozenset[fx.Node]:
    """Return the nodes that no output comes of by themselves: checks, and writes into slices."""
    found: set[fx.Node] = set()
    for node in reversed(order):
        if node.op == "call_function" and all(user in found for user in node.users):
            found.add(node)
    return frozenset(found)


def _shares(node: fx.Node) -> bool:
    """Tell whether a node's value shares memory with its first argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return operator_name(node.target) == "getitem"
    return bool(schema.returns) and schema.returns[0].alias_info is not None


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().all_input_nodes:
            if value not in found:
                found.add(value)
                waiting.append(value)
    return found


def _layers(nodes: Iterable[fx.Node]) -> int:
    return sum(
        node.op == "call_function" and operator_name(node.target) in WEIGHTED for node in nodes
    )


def _named(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Name blocks by the module that holds all of their weights; else by their last layer."""
    common = [_common_module(block.tensors) for block in blocks]
    count = Counter(common)
    return tuple(
        dataclasses.replace(
            block,
            name=name
            if name and count[name] == 1
            else block.zeroed[0].rpartition(".")[0] or block.zeroed[0],
        )
        for block, name in zip(blocks, common, strict=True)
    )


def _common_module(tensors: Sequence[str]) -> str:
    paths = [name.split(".")[:-1] for name in tensors]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
