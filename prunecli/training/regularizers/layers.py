"""Which layers of a network are regularised, found without a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from prunecli.graph.operators import CONVOLUTIONS, LINEAR, operator_name, schema_arguments
from prunecli.graph.tracing.running import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecli.architectures.reference import InputSpec


@dataclass(frozen=True)
class Reach:
    """The layers that a regulariser acts on, and those of their kind that it leaves out, and why.

    A layer is called by its weight, `features.0.weight`.
    """

    layers: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    reason: str = ""


def convolutions(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained weights `[out, in / groups, k, ...]` of convolutions with k > 1, by name.

    Where every parameter is frozen, as in a network that was just loaded, all count as trained.
    Transposed convolutions, whose filters lie along the other dimension, are not among them.
    """
    names = [f"{name}.weight" for name, _ in _modules(model, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    names += [weight for weight, _ in _graph_layers(model, CONVOLUTIONS)]
    trained = _trained(model)
    return {
        name: trained[name]
        for name in dict.fromkeys(names)
        if name in trained and trained[name][0, 0].numel() > 1
    }


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers that are modules, with trained weights, by the name of the weight.

    The output projection of torch's attention is one in name only: its weight is read elsewhere.
    """
    trained = _trained(model)
    return {
        f"{name}.weight": module
        for name, module in _modules(model, (nn.Linear,))
        if f"{name}.weight" in trained and not isinstance(module, NonDynamicallyQuantizableLinear)
    }


def linear_without_module(model: nn.Module) -> tuple[str, ...]:
    """Return the weights of linear layers that `linear_layers` does not have.

    Those of a network that is a graph, and of the output projections of torch's attention.
    """
    named = _modules(model, (NonDynamicallyQuantizableLinear,))
    return (
        *(f"{name}.weight" for name, _ in named),
        *(weight for weight, _ in _graph_layers(model, LINEAR)),
    )


def convolutions_without_module(model: nn.Module) -> tuple[str, ...]:
    """Return the convolutions of `convolutions` that `ends_of_convolutions` does not have."""
    wanted = convolutions(model)
    calls = _graph_layers(model, CONVOLUTIONS)
    return tuple(weight for weight, norm in calls if not norm and weight in wanted)


def ends_of_convolutions(model: nn.Module, input_spec: InputSpec) -> dict[str, nn.Module]:
    """Return the module whose output stands for each convolution of `convolutions`.

    That is the batch norm right behind it, or the convolution itself where there is none. One
    forward of a black image shows which batch norm reads which convolution. Of a network that is a
    graph, convolutions without batch norm are not among them: no module has their output.
    """
    wanted = convolutions(model)
    own = {
        f"{name}.weight": module
        for name, module in _modules(model, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    }
    found = {name: own[name] for name in wanted if name in own}
    found |= _norms_that_read(model, found, input_spec)
    calls = _graph_layers(model, CONVOLUTIONS)
    behind = {weight: norm for weight, norm in calls if norm and weight in wanted}
    return found | {weight: model.get_submodule(norm) for weight, norm in behind.items()}


@torch.no_grad()
def _norms_that_read(
    model: nn.Module, layers: Mapping[str, nn.Module], input_spec: InputSpec
) -> dict[str, nn.Module]:
    """Return the batch norm that reads the very output of each of some layers, where one does."""
    made: list[tuple[Tensor, str]] = []
    norms: dict[str, nn.Module] = {}

    def norm_reads(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        norms.update({name: module for output, name in made if given and output is given[0]})

    hooks = [
        layer.register_forward_hook(lambda _m, _i, output, name=name: made.append((output, name)))
        for name, layer in layers.items()
    ]
    hooks += [
        module.register_forward_pre_hook(norm_reads)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
    ]
    device = next(model.parameters()).device
    black = torch.zeros(1, input_spec.channels, input_spec.height, input_spec.width, device=device)
    try:
        with evaluating(model):
            model(black)
    finally:
        for hook in hooks:
            hook.remove()
    return norms


def _graph_layers(model: nn.Module, operators: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield weight and batch norm behind it ("": none) of layers that a graph network calls."""
    if not isinstance(model, fx.GraphModule):
        return
    for node in model.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) not in operators:
            continue
        weight = schema_arguments(node).get("weight")
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            yield str(weight.target), _norm_behind(model, node)


def _norm_behind(model: fx.GraphModule, node: fx.Node) -> str:
    readers = [user for user in node.users if user.op == "call_module"]
    norms = [
        str(user.target)
        for user in readers
        if isinstance(model.get_submodule(str(user.target)), _BatchNorm)
    ]
    return norms[0] if norms else ""


def _modules(
    model: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of some kinds, each once, by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes; of a wholly frozen network all of them."""
    known = dict(model.named_parameters())
    trained = {name: value for name, value in known.items() if value.requires_grad}
    return trained or known
