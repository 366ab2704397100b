"""Weights under which every layer of a network passes its signal on, for a proof.

A network as its constructor leaves it may let nothing through: a head of zeros, scales of 1e-6,
batch norms that divide by what no input ever was. Whether a cut is right is a matter of structure,
so it can be proven on any weights that show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.graph.tracing.record import tensors_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.tracing.trace import Trace
    from prunecli.proof.inputs import Tensors


def signal_passing(state: Tensors, generator: torch.Generator) -> Tensors:
    """Return random weights in the places of `state`: of unit gain, with scales about 1.

    Statistics of batch norm stay; `with_statistics` takes them from inputs.
    """
    return {name: _drawn(name, value, generator) for name, value in state.items()}


def _drawn(name: str, value: Tensor, generator: torch.Generator) -> Tensor:
    leaf = name.rpartition(".")[2]
    if not value.is_floating_point() or leaf.startswith("running_") or not value.numel():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    if value.dim() > 1 and value.numel() > value.shape[0]:
        return noise.mul_((value.shape[0] / value.numel()) ** 0.5)
    return noise.mul_(0.1) if "bias" in leaf else noise.mul_(0.2).add_(1)


def with_statistics(trace: Trace, state: Tensors, inputs: Sequence[Any]) -> Tensors:
    """Return the state with the statistics of every batch norm taken from these inputs.

    `state` holds what the traced graph reads, `inputs` its positional arguments.
    """
    constants = {name: _like(value, inputs) for name, value in trace.constants.items()}
    given = iter(tensors_in(inputs))
    held = dict(state)
    arguments = []
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            stored = held.get(trace.tensors.get(node.name, ""), constants.get(node.name))
            arguments.append(next(given) if stored is None else stored)
    with torch.no_grad():
        _Statistics(trace, held).run(*arguments)
    return held


class _Statistics(fx.Interpreter):
    """Runs a traced graph; every batch norm normalises by the statistics of what it is given."""

    def __init__(self, trace: Trace, state: Tensors) -> None:
        super().__init__(fx.GraphModule(nn.Module(), trace.graph))
        self._names = trace.tensors
        self._state = state

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and operator_name(n.target) == "batch_norm":
            arguments = schema_arguments(n)
            value = self.env[arguments["input"]]
            dims = [dim for dim in range(value.dim()) if dim != 1]
            for key, found in (
                ("running_mean", value.mean(dims)),
                ("running_var", value.var(dims, unbiased=False) + 1e-3),
            ):
                node = arguments[key]
                if node is not None and node.name in self._names:
                    self._state[self._names[node.name]] = found
                    self.env[node] = found
        return super().run_node(n)


def _like(value: Tensor, inputs: Sequence[Any]) -> Tensor:
    precision = next((one.dtype for one in tensors_in(inputs) if one.is_floating_point()), None)
    return value.to(precision) if precision and value.is_floating_point() else value
