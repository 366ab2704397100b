"""What a narrow program has written in it that depends on which channels are kept.

With the same widths the programs of two choices have the same operators in the same order. Some
numbers may differ: how many zero channels are padded on either side of a shortcut, which positions
an index table picks. They become data here, so that another choice needs no other program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from prunecli.errors import GraphError
from prunecli.graph.coupling.groups import staying
from prunecli.graph.emitting.emit import emit_some, following_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.network.traced import Network

Entry = dict[str, Any]


@dataclass(frozen=True)
class _Input:
    """Stands for one of the values that a node reads."""

    at: int


class Operation(nn.Module):
    """One operator of a program, with arguments that may change between two passes."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        inputs = node.all_input_nodes
        self.operator: Callable[..., Any] = node.target  # type: ignore[assignment]
        self.arguments = (_template(node.args, inputs), _template(node.kwargs, inputs))

    def forward(self, *values: Any) -> Any:
        """Return what the operator makes of the values, by the arguments that stand now."""
        positional, keywords = _with_inputs(self.arguments, values)
        return self.operator(*positional, **keywords)

    def change_(self, entry: Entry) -> None:
        """Take the constants of an entry of another program."""
        positional, keywords = self.arguments
        self.arguments = (
            _changed(positional, entry["args"]),
            {key: _changed(keywords[key], value) for key, value in entry["kwargs"].items()},
        )


def _template(argument: Any, inputs: Sequence[fx.Node]) -> Any:
    """Return an argument with the values that it reads replaced by their numbers."""
    if isinstance(argument, fx.Node):
        return _Input(inputs.index(argument))
    if isinstance(argument, list | tuple):
        return [_template(item, inputs) for item in argument]
    if isinstance(argument, dict):
        return {key: _template(item, inputs) for key, item in argument.items()}
    return argument


def _with_inputs(argument: Any, values: Sequence[Any]) -> Any:
    if isinstance(argument, _Input):
        return values[argument.at]
    if isinstance(argument, list | tuple):
        return [_with_inputs(item, values) for item in argument]
    if isinstance(argument, dict):
        return {key: _with_inputs(item, values) for key, item in argument.items()}
    return argument


def _changed(argument: Any, entry: Any) -> Any:
    """Return an argument with the numbers of an entry; nodes and torch's constants stay."""
    if isinstance(entry, list):
        return [_changed(*pair) for pair in zip(argument, entry, strict=True)]
    return argument if isinstance(entry, dict) else entry


class Constants:
    """The constants of one narrow network, and of copies of it.

    `chosen` are the atoms that are chosen from, one boolean each; `keep` are those that it has now.
    """

    def __init__(
        self, network: Network, keep: NDArray[np.bool_], chosen: NDArray[np.bool_]
    ) -> None:
        self.network = network
        self.names = _touching(network, chosen)
        self.entries = self.of(keep)

    def of(self, keep: NDArray[np.bool_]) -> dict[str, Entry]:
        """Return what the program of these channels says where it may differ from another."""
        return emit_some(self.network.trace, self.network.coupling, keep, self.names)

    def free_(self, graph: fx.GraphModule) -> None:
        """Turn the operators that may change into modules with changeable arguments."""
        nodes = {node.name: node for node in graph.graph.nodes}
        for name, entry in self.entries.items():
            if entry["kind"] == "take" or not _is_changeable(entry) or name not in nodes:
                continue  # a table of indices is data already
            node = nodes[name]
            place = place_of(name)
            graph.add_module(place, Operation(node))
            with graph.graph.inserting_before(node):
                called = graph.graph.call_module(place, tuple(node.all_input_nodes))
            node.replace_all_uses_with(called)
            graph.graph.erase_node(node)
        graph.graph.lint()
        graph.recompile()

    def check(self, keep: NDArray[np.bool_]) -> dict[str, Entry]:
        """Return what changes in the program for these channels, by name of the node.

        Raises `GraphError` (`DYNAMIC_STRUCTURE`) where more than a number would change.
        """
        entries = self.of(keep)
        changed = {name: entry for name, entry in entries.items()
                   if entry != self.entries.get(name)}  # fmt: skip
        for name, entry in changed.items():
            before = self.entries.get(name)
            if before is None or _shape(before) != _shape(entry) or not _is_changeable(entry):
                raise _other_structure(name)
        if entries.keys() != self.entries.keys():
            raise _other_structure(next(iter(self.entries.keys() - entries.keys())))
        return changed

    def follow_(self, keep: NDArray[np.bool_], modules: Iterable[nn.Module]) -> None:
        """Let these copies of the network be the program for these channels."""
        changed = self.check(keep)
        for module in modules if changed else ():
            tables = _tables(module)
            for name, entry in changed.items():
                if entry["kind"] == "take":
                    tables[name].copy_(torch.tensor(entry["indices"]))
                else:
                    operation = module.get_submodule(place_of(name))
                    assert isinstance(operation, Operation)
                    operation.change_(entry)
        self.entries.update(changed)


def _touching(network: Network, chosen: NDArray[np.bool_]) -> frozenset[str]:
    """Return the nodes that may follow the choice of these atoms.

    They read or make a value with one of them, or take a size that the network computes.
    """
    trace, coupling = network.trace, network.coupling
    following = following_nodes(trace)

    def touched(node: fx.Node) -> bool:
        value = node.meta.get("val")
        if value is not None and not isinstance(value, Tensor | list | tuple):
            return True
        dims = coupling.values.get(node.name) or coupling.tensors.get(
            trace.tensors.get(node.name, ""), {}
        )
        return any(not staying(atoms, ~chosen).all() for atoms in dims.values())

    return frozenset(
        node.name
        for node in trace.graph.nodes
        if node.name in following and any(map(touched, (node, *node.all_input_nodes)))
    )


def place_of(name: str) -> str:
    """Return where the module of a node of this name lies."""
    return f"_operation_{name}"


def _tables(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the index tables of a network by the name of the node that picks with them."""
    graph = module.graph
    assert isinstance(graph, fx.Graph)
    return {
        node.name: module.get_buffer(str(node.args[2].target))
        for node in graph.nodes
        if node.target is torch.ops.aten.index_select.default
        and isinstance(node.args[2], fx.Node)
        and str(node.args[2].target).startswith("_index_")
    }


def _is_changeable(entry: Entry) -> bool:
    """Tell whether the numbers of an entry are data, or can be made so."""
    return entry["kind"] == "take" or (
        entry["kind"] == "call" and not _is_computed([entry["args"], entry["kwargs"]])
    )


def _is_computed(value: Any) -> bool:
    """Tell whether an argument is a size that the network computes and scales as it runs."""
    if isinstance(value, dict):
        return "over" in value or any(_is_computed(item) for item in value.values())
    return isinstance(value, list) and any(_is_computed(item) for item in value)


def _shape(value: Any) -> Any:
    """Return an entry without its numbers."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return None if type(value) is int else value


def _other_structure(name: str) -> GraphError:
    return GraphError(
        f"the program at {name} depends on which channels are kept, by more than a number",
        code="DYNAMIC_STRUCTURE",
        where=name,
        hint="leave the groups of this layer whole (--exclude), or use --method iterative",
    )
