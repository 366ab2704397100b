"""Run a program: the module that graph mode yields, built from plain data and tensors alone."""

from __future__ import annotations

import keyword
import operator
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from prunecli.errors import GraphError, InputError
from prunecli.graph.emitting.allowed import resolve
from prunecli.graph.emitting.emit import OUTPUTS_SCHEMA, PROGRAM_SCHEMA, WRITES_SCHEMA
from prunecli.graph.operators import operator_name
from prunecli.graph.outputs import Arranging, arranged, has_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def build(program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return a module that executes `program` over `tensors`, in evaluation mode.

    Parameters keep their names, so that `state_dict` has the keys of the network it came from;
    batch norm and dropout follow `train()` and `eval()`. Raises `InputError` for a program that is
    damaged or names anything but pure operators.
    """
    if program.get("schema") not in _SCHEMAS:
        raise InputError(
            f"graph schema {program.get('schema')} is not one of {', '.join(map(str, _SCHEMAS))}",
            code="BAD_PROGRAM",
            hint="use the prunecli version that wrote this file, or prune again",
        )
    try:
        return _Builder(tensors).run(program)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the graph in this file is damaged: {error!r}", code="BAD_PROGRAM"
        ) from error


_SCHEMAS = (PROGRAM_SCHEMA, WRITES_SCHEMA, OUTPUTS_SCHEMA)


def traced_name(node: fx.Node) -> str:
    """Return what the trace calls a node; torch.fx renames an input that is called `input`."""
    return str(node.target) if node.op == "placeholder" else node.name


FLOATS = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""Types that a trace may have written down where the forward says `x.dtype`."""


def names_floats(graph: fx.Graph) -> bool:
    """Tell whether a graph names a type of `FLOATS`."""
    return any(
        isinstance(value, torch.dtype) and value in FLOATS
        for node in graph.nodes
        for value in (*node.args, *node.kwargs.values())
    )


def float_casts(graph: fx.Graph) -> frozenset[str]:
    """Return the names of the nodes of a trace that cast floating-point tensors."""
    casts = [
        node
        for node in graph.nodes
        if node.op == "call_function" and operator_name(node.target) in {"to", "_to_copy"}
    ]
    sources = {node.name: node.all_input_nodes[0].meta.get("val") for node in casts}
    return frozenset(
        name
        for name, value in sources.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    )


def in_precision(
    network: fx.GraphModule, precision: torch.dtype, *, only: frozenset[str] | None = None
) -> fx.GraphModule:
    """Return a network over the same tensors that names `precision` for every type in `FLOATS`.

    `only` names the nodes that change; None stands for all.
    """
    copied = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        nodes[node] = copied.node_copy(node, nodes.__getitem__)
        if only is not None and node.name not in only:
            continue
        nodes[node].args = tuple(_precise(value, precision) for value in nodes[node].args)
        nodes[node].kwargs = {
            key: _precise(value, precision) for key, value in nodes[node].kwargs.items()
        }
    return fx.GraphModule(network, copied, class_name=type(network).__name__)


def _precise(value: Any, precision: torch.dtype) -> Any:
    return precision if isinstance(value, torch.dtype) and value in FLOATS else value


def check_layer_names(names: Iterable[str]) -> None:
    """Raise `GraphError` for a tensor whose first name a rebuilt network has for something else."""
    for name in names:
        first = name.partition(".")[0]
        if first in _NETWORK_NAMES:
            raise GraphError(
                f"a model that is rebuilt from its graph cannot have a layer called {first!r}",
                code="RESERVED_NAME",
                where=name,
                hint="rename this layer: torch.fx keeps its name for itself",
            )


_NETWORK_NAMES = frozenset({*dir(fx.GraphModule), "meta", "_graph"})
"""Attributes that the rebuilt network has already: none of its layers can be called so."""

_MODULE_NAMES = frozenset(dir(nn.Module()))
"""Attributes of every module."""


class _Builder:
    """Turns nodes of a program into nodes of an `fx.Graph`, one at a time."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}

    def run(self, program: Mapping[str, Any]) -> fx.GraphModule:
        for node in program["nodes"]:
            kind = node["kind"]
            if kind == "output":
                self._returned(program["output"], self.decode(node["args"][0]))
            else:
                self.nodes[_identifier(node["name"])] = getattr(self, f"add_{kind}")(node)
        self.graph.lint()
        module = fx.GraphModule(self.root, self.graph, class_name="GraphNetwork")
        return module.eval()

    def _returned(self, structure: Any, flat: Any) -> None:
        whole = arranged(structure, flat)  # a damaged structure fails here, not in a forward
        if has_kinds(structure):
            self.graph.set_codegen(Arranging(structure))
            whole = flat
        self.graph.output(whole)

    def add_input(self, node: Mapping[str, Any]) -> fx.Node:
        return self._node("placeholder", node, node["name"])

    def add_tensor(self, node: Mapping[str, Any]) -> fx.Node:
        self._own(node["tensor"], trained=node.get("trained", True))
        return self._node("get_attr", node, node["tensor"])

    def add_call(self, node: Mapping[str, Any]) -> fx.Node:
        arguments = tuple(self.decode(value) for value in node["args"])
        keywords = {_identifier(key): self.decode(item) for key, item in node["kwargs"].items()}
        return self._node("call_function", node, resolve(node["target"]), arguments, keywords)

    def add_take(self, node: Mapping[str, Any]) -> fx.Node:
        index, source = self._indices(node), self.decode(node["args"][0])
        arguments = (source, node["dim"], index)
        return self._node("call_function", node, torch.ops.aten.index_select.default, arguments)

    def add_add_at(self, node: Mapping[str, Any]) -> fx.Node:
        index, (stream, added) = self._indices(node), (self.decode(one) for one in node["args"])
        arguments = (stream, node["dim"], index, added)
        return self._node("call_function", node, torch.ops.aten.index_add.default, arguments)

    def _indices(self, node: Mapping[str, Any]) -> fx.Node:
        # Of two networks, tables of indices with the same name are the same.
        content = zlib.crc32(repr(node["indices"]).encode())
        name = f"_index_{node['name']}_{content:08x}"
        indices = torch.tensor(node["indices"], dtype=torch.int64)  # also where there are none
        self.root.register_buffer(name, indices, persistent=False)
        return self.graph.get_attr(name)

    def add_dropout(self, node: Mapping[str, Any]) -> fx.Node:
        name = f"_dropout_{node['name']}"
        kind = _ChannelDropout if node.get("channels") else nn.Dropout
        self.root.add_module(name, kind(node["p"]))
        return self._node("call_module", node, name, (self.decode(node["args"][0]),))

    def add_batch_norm(self, node: Mapping[str, Any]) -> fx.Node:
        names = node["tensors"]
        prefix = names["running_mean"].removesuffix(".running_mean")
        mean = self.tensors[names["running_mean"]]
        # A batch norm of no particular rank: the graph knows the rank of its input.
        module = _AnyBatchNorm(mean.numel(), eps=node["eps"], momentum=node["momentum"])
        for key in ("weight", "bias"):
            value = self.tensors[names[key]] if names[key] else None
            module.register_parameter(key, None if value is None else nn.Parameter(value))
        module.affine = names["weight"] is not None
        for key in ("running_mean", "running_var"):
            module.register_buffer(key, self.tensors[names[key]])
        tracked = self.tensors.get(f"{prefix}.num_batches_tracked")
        if tracked is not None:
            module.register_buffer("num_batches_tracked", tracked)
        holder, leaf = self._holder(prefix)
        known = holder._modules.get(leaf)  # noqa: SLF001
        if not isinstance(known, _AnyBatchNorm):
            if known is not None:
                _move_in(known, module)
            holder._modules[leaf] = module  # noqa: SLF001
        return self._node("call_module", node, prefix, (self.decode(node["args"][0]),))

    def _node(
        self,
        operation: str,
        node: Mapping[str, Any],
        target: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> fx.Node:
        # Nodes keep the names of the trace, so that what is known of one holds for the other.
        return self.graph.create_node(
            operation, target, arguments, keywords or {}, name=node["name"]
        )

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if isinstance(value, dict):
            if "over" in value:
                return self._scaled(self.nodes[value["node"]], value["times"], value["over"])
            if "node" in value:
                return self.nodes[value["node"]]
            return _torch_constant(value["torch"])
        return value

    def _scaled(self, size: fx.Node, times: Any, over: Any) -> fx.Node:
        if type(times) is not int or type(over) is not int or over < 1:
            raise TypeError("a size is scaled by integers")
        product = self.graph.call_function(operator.mul, (size, times))
        return self.graph.call_function(operator.floordiv, (product, over))

    def _own(self, name: str, *, trained: bool) -> None:
        holder, leaf = self._holder(name)
        if leaf in holder._parameters or leaf in holder._buffers:  # noqa: SLF001
            return
        tensor = self.tensors[name]
        if trained:
            trainable = tensor.is_floating_point() or tensor.is_complex()
            holder.register_parameter(leaf, nn.Parameter(tensor, requires_grad=trainable))
        else:
            holder.register_buffer(leaf, tensor)

    def _holder(self, name: str) -> tuple[nn.Module, str]:
        module = self.root
        _check_attribute(name)
        *path, leaf = name.split(".")
        for part in path:
            if part not in module._modules:  # noqa: SLF001
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module, leaf


class _ChannelDropout(nn.Dropout):
    """Dropout of whole channels (dimension 1) of an input of any rank."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return torch.feature_dropout(input, self.p, self.training)


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
    """Batch norm over dimension 1 of an input of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's own name
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")


def _move_in(holder: nn.Module, module: nn.Module) -> None:
    """Let a module take over what a bare holder of its name has: the rest of a user's subclass."""
    module._parameters.update(holder._parameters)  # noqa: SLF001
    module._buffers.update(holder._buffers)  # noqa: SLF001
    module._modules.update(holder._modules)  # noqa: SLF001


def _identifier(name: str) -> str:
    """Return a name that torch.fx may write into the Python that it runs; refuse anything else."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name")
    return name


def _check_attribute(name: str) -> None:
    """Refuse a tensor name that hides an attribute, or that ends the string fx quotes it in."""
    parts = name.split(".")
    for part in parts:
        if not part.isprintable() or '"' in part or "\\" in part or part in _MODULE_NAMES:
            raise ValueError(f"no tensor can be called {name!r}")
    if parts[0] in _NETWORK_NAMES:
        raise ValueError(f"{parts[0]!r} is no name for a layer of a rebuilt model")


def _torch_constant(name: str) -> Any:
    if name.startswith(("cpu", "cuda", "meta", "mps")):
        return torch.device(name)
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype | torch.memory_format | torch.layout):
        raise TypeError(f"torch.{name} is no data type")
    return found
