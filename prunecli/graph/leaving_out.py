"""Leave residual blocks out of a traced graph: their streams go on alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import fx

from prunecli.graph.blocks import is_mutable
from prunecli.graph.operators import is_written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prunecli.graph.blocks import Block
    from prunecli.graph.tracing.trace import Trace


def without_blocks(trace: Trace, blocks: Iterable[Block]) -> Trace:
    """Return the trace in which the streams of these blocks go on alone.

    Nodes keep their names. What only the blocks read is gone from `tensors`.
    """
    chosen = outermost(blocks)
    graph, by_name = copied(trace.graph)
    for block in chosen:
        _leave_out_(graph, by_name, block)
    gone = {name for block in chosen for name in block.tensors}
    for name, tensor in trace.tensors.items():
        if tensor in gone:
            graph.erase_node(by_name[name])
    graph.lint()
    return dataclasses.replace(
        trace,
        graph=graph,
        tensors={name: tensor for name, tensor in trace.tensors.items() if tensor not in gone},
        integers={
            name: value
            for name, value in trace.integers.items()
            if trace.tensors.get(name) not in gone
        },
    )


def copied(graph: fx.Graph) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Return a copy of a traced graph, and its nodes by their names, which stay."""
    copy, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        copies[node] = copy.node_copy(node, copies.__getitem__)
        assert copies[node].name == node.name
    return copy, {node.name: node for node in copies.values()}


def outermost(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return the blocks without those that lie inside of others."""
    listed = tuple(blocks)
    inside = {name for block in listed for name in block.nodes}
    return tuple(block for block in listed if block.add not in inside)


def _leave_out_(graph: fx.Graph, by_name: dict[str, fx.Node], block: Block) -> None:
    add, branch = by_name[block.add], by_name[block.branch]
    (stream,) = (value for value in add.all_input_nodes if value is not branch)
    written = is_written(add)
    in_place = add.args[0] is stream and is_mutable(add)
    users = tuple(add.users)
    add.replace_all_uses_with(stream)
    graph.erase_node(add)
    for name in reversed(block.nodes):
        graph.erase_node(by_name[name])
    others = set(stream.users) - set(users)
    if not in_place and others and (written or is_written(stream)):
        # The sum was a tensor of its own: what is written into it must not reach the stream.
        with graph.inserting_after(stream):
            copied = graph.call_function(torch.ops.aten.clone.default, (stream,), name=block.add)
        copied.meta = dict(add.meta)
        for user in users:
            user.replace_input_with(stream, copied)
        by_name[block.add] = copied
