"""Record one real forward: for networks whose control flow follows the values of tensors.

`torch.export` refuses a forward that asks a tensor for a value. What one input makes such a network
do can still be written down: the same operators, between the same weights, in the order in which
they ran. Sizes and branches that followed from values are baked in, so a recording says where the
channels go, and never stands in for the network itself.
"""

from __future__ import annotations

import operator
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import traceback as fx_traceback
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from prunecli.graph.tracing.running import run_with

AGAIN = "prunecli_again"
"""Marks the nodes of a further forward: it shows where channels go, and adds to no cost."""


@dataclass(frozen=True)
class Recording:
    """A graph of the operators that ran: placeholders are inputs, named tensors or constants."""

    graph: fx.Graph
    tensors: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]


def record(model: nn.Module, example: Sequence[Any]) -> Recording:
    """Run `model` on the positional arguments `example` and return what it did.

    The attributes of the model are left as they were. Raises what the forward raises.
    """
    with torch.no_grad(), attributes_kept(model):
        try:
            return _record(model, tuple(example), AtLeastOne())
        except Exception:  # noqa: BLE001 - what is selected may be counted in another way as well
            return _record(model, tuple(example), nullcontext())


def _record(
    model: nn.Module, example: tuple[Any, ...], context: AbstractContextManager[Any]
) -> Recording:
    from torch.fx.experimental.proxy_tensor import make_fx

    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    leaves, layout = pytree.tree_flatten(example)
    places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def run(weights: dict[str, Tensor], given: list[Tensor]) -> list[Tensor]:
        filled = dict(zip(places, given, strict=True))
        whole = [filled.get(at, leaf) for at, leaf in enumerate(leaves)]
        with context:
            return tensors_in(run_with(model, weights, pytree.tree_unflatten(whole, layout)))

    write_down = make_fx(
        run,
        tracing_mode="real",
        pre_dispatch=True,
        _error_on_data_dependent_ops=False,
        record_stack_traces=True,
    )
    detached = {name: value.detach() for name, value in state.items()}
    shapes = FakeTensorMode(allow_fallback_kernels=True)
    with (
        _modules_noted(model),
        tracing(TracingContext(shapes)),
    ):  # one mode for the shapes of all nodes, not one for each
        module = write_down(detached, [leaves[at] for at in places])
    constants = _lift_constants(module)
    _drop_contexts(module.graph)
    given = [node for node in module.graph.nodes if node.op == "placeholder"]
    given = [node for node in given if node.name not in constants]
    return Recording(
        graph=module.graph,
        tensors={node.name: name for node, name in zip(given, state, strict=False)},
        constants=constants,
        inputs=tuple(node.name for node in given[len(state) :]),
    )


@contextmanager
def _modules_noted(model: nn.Module) -> Iterator[None]:
    """Note on every node the modules whose forward it ran in, as an export does."""
    stack: dict[str, tuple[str, str]] = {}

    def enter(name: str) -> Any:
        def hook(module: nn.Module, _: Any) -> None:
            stack[name] = (name, type(module).__name__)
            fx_traceback.current_meta["nn_module_stack"] = dict(stack)

        return hook

    def leave(name: str) -> Any:
        def hook(_: nn.Module, __: Any, ___: Any) -> None:
            stack.pop(name, None)
            fx_traceback.current_meta["nn_module_stack"] = dict(stack)

        return hook

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter(name)))
        hooks.append(module.register_forward_hook(leave(name)))
    try:
        with fx_traceback.preserve_node_meta():
            yield
    finally:
        for hook in hooks:
            hook.remove()


class AtLeastOne(TorchFunctionMode):
    """Lets a selection of nothing select the first entry, so that every layer is reached.

    What a detector finds may be nothing, on an image of noise say, and then its later heads get
    nothing to work on.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        source = args[0] if args else None
        if func not in _SELECTIONS or not isinstance(source, Tensor) or not source.numel():
            return found
        if isinstance(found, Tensor) and not found.numel():
            return found.new_zeros((1, *found.shape[1:]))
        if isinstance(found, tuple) and not any(index.numel() for index in found):
            return tuple(index.new_zeros(1) for index in found)
        return found


_SELECTIONS = frozenset({torch.where, torch.nonzero, torch.argwhere, Tensor.nonzero})


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of a nested value (also in dataclasses) in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in tensors_in(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return tensors_in([getattr(value, field.name) for field in fields(value)])
    return []


@contextmanager
def attributes_kept(*models: nn.Module) -> Iterator[None]:
    """Give every module back the attributes that it had: a forward may store what it computed."""
    modules = [module for model in models for module in model.modules()]
    held = [(module, dict(vars(module))) for module in modules]
    # A cache is an attribute that stays the same dict or list, with other contents. So are hooks,
    # which a forward may put on its layers when it runs for the first time.
    contents = [
        (value, list(value) if isinstance(value, list | set) else dict(value))
        for _, attributes in held
        for value in attributes.values()
        if type(value) in _CONTAINERS
    ]
    try:
        yield
    finally:
        for module, attributes in held:
            vars(module).clear()
            vars(module).update(attributes)
        for value, content in contents:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(content)


_CONTAINERS = (dict, OrderedDict, defaultdict, list, set)


def _lift_constants(module: fx.GraphModule) -> dict[str, Tensor]:
    """Turn tensors that the forward made itself into placeholders; return them by name."""
    constants: dict[str, Tensor] = {}
    lifted: dict[str, fx.Node] = {}
    graph = module.graph
    first = next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        if node.target not in lifted:
            value = getattr(module, node.target)
            with graph.inserting_before(first):
                placeholder = graph.placeholder(node.target.lstrip("_"))
            with FakeTensorMode(allow_fallback_kernels=True):
                placeholder.meta["val"] = torch.empty_strided(
                    value.shape, value.stride(), device=value.device, dtype=value.dtype
                )
            lifted[node.target] = placeholder
            constants[placeholder.name] = value.detach()
        node.replace_all_uses_with(lifted[node.target])
        graph.erase_node(node)
    return constants


def _drop_contexts(graph: fx.Graph) -> None:
    """Drop calls that are no operators: switches of gradients and of automatic precision."""
    for node in reversed(list(graph.nodes)):
        is_operator = isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001
        known = is_operator or node.target is operator.getitem
        if node.op == "call_function" and not known and not node.users:
            graph.erase_node(node)


def merged(first: Recording, second: Recording) -> Recording:
    """Return both recordings as one graph over the same weights; the second's nodes are `AGAIN`."""
    graph = first.graph
    known = {name: node for node, name in first.tensors.items()}
    by_name = {node.name: node for node in graph.nodes}
    ends = [node for node in graph.nodes if node.op == "output"]
    copied: dict[fx.Node, fx.Node] = {}
    constants = dict(first.constants)
    for node in second.graph.nodes:
        if node.op == "output":
            outputs = fx.node.map_arg(node.args[0], lambda value: copied[value])
            ends[0].args = ([*ends[0].args[0], *outputs],)
        elif node.name in second.tensors:
            copied[node] = by_name[known[second.tensors[node.name]]]
        else:
            with graph.inserting_before(ends[0]):
                copied[node] = graph.node_copy(node, lambda value: copied[value])
            copied[node].meta = {**node.meta, AGAIN: True}
            if node.name in second.constants:
                constants[copied[node].name] = second.constants[node.name]
    return Recording(graph, first.tensors, constants, first.inputs)
