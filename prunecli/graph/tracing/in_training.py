"""What a forward does in training and not in evaluation: found by running it, then traced.

An auxiliary head, deep supervision and stochastic depth are branches that `self.training` takes. A
trace of evaluation does not have them, but their weights may read channels that a cut removes.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from prunecli.errors import GraphError
from prunecli.graph.tracing.known_values import FollowingConstants
from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.running import draws_kept, evaluating, in_training, run_with
from prunecli.graph.tracing.shapes import fake_like, norms_keep_shapes
from prunecli.graph.tracing.torch_export import export, first_line, quiet
from prunecli.graph.tracing.trace import exported_trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prunecli.graph.tracing.trace import Trace

PREFIX = "in_training_"
"""What the names of all nodes of a trace of training begin with."""


@dataclass(frozen=True)
class InTraining:
    """What the forward of a network does in training.

    `differs` says that it is not what it does in evaluation, but for dropout and the statistics of
    batch norm; so is a forward counted that cannot be run. `trace` is that of training where it
    differs, over the same tensors, with names of nodes of its own; `failure` says why there is
    none. A network with folded weights, which cannot be cut in its own class, needs none.
    """

    differs: bool = False
    trace: Trace | None = None
    failure: str = ""


THE_SAME = InTraining()
"""A network that does in training what it does in evaluation."""


def look_at_training(model: nn.Module, evaluated: Trace) -> InTraining:
    """Return what `model` does in training, where `evaluated` is its trace.

    Two forwards on the example, on shapes alone where evaluation could be exported, tell whether
    there is anything to trace. The model, its statistics and the state of all random generators are
    left as they were.
    """
    if isinstance(model, fx.GraphModule):
        return THE_SAME  # a graph has no branches
    with draws_kept(model), quiet():
        try:
            trained = _calls(model, evaluated, training=True, gradients=True)
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            return InTraining(True, failure=first_line(error))
        if trained == _calls(model, evaluated, training=False, gradients=False):
            return THE_SAME
        if evaluated.folding is not None:
            return InTraining(True)  # its graph stands in for it, and that is one of evaluation
        try:
            # Without gradients an export takes half the time.
            alike = trained == _calls(model, evaluated, training=True, gradients=False)
            return InTraining(True, _training_trace(model, evaluated.example, gradients=not alike))
        except GraphError as error:
            return InTraining(True, failure=error.message)


# --- does it differ ------------------------------------------------------------------------------


class _Calls(TorchFunctionMode):
    """Notes every call of torch that a forward makes: what is read, and the shapes that it gives.

    A layer is one call in either mode. What computes on buffers alone (counting batches) is left
    out.
    """

    def __init__(self, state: dict[str, Tensor], buffers: Iterable[str]) -> None:
        super().__init__()
        self.names = {id(value): name for name, value in state.items()}
        self.buffers = {id(state[name]) for name in buffers}
        self.calls: list[tuple[Any, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves((args, kwargs))
        read = [id(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
        made = tensors_in(found)
        if made and not (read and self.buffers.issuperset(read)):
            self.calls.append(
                (
                    getattr(func, "__name__", str(func)),
                    tuple(self.names[value] for value in read if value in self.names),
                    tuple(str(leaf) for leaf in leaves if type(leaf) in (int, slice)),
                    tuple(tuple(value.shape) for value in made),
                )
            )
        return found


def _calls(
    model: nn.Module, evaluated: Trace, *, training: bool, gradients: bool
) -> list[tuple[Any, ...]]:
    """Run a forward on copies of the weights, and return what it called."""
    shapes = FakeTensorMode(allow_non_fake_inputs=True)
    plain = partial(fake_like, shapes)
    copied = (lambda value: value.detach().clone()) if evaluated.recorded else plain
    buffers, parameters = dict(model.named_buffers()), dict(model.named_parameters())
    state = {name: copied(value) for name, value in (*parameters.items(), *buffers.items())}
    for name, value in parameters.items():
        state[name].requires_grad_(gradients and value.requires_grad)
    noted = _Calls(state, buffers)
    example = pytree.tree_map_only(Tensor, copied, evaluated.example)
    with (
        nullcontext() if evaluated.recorded else shapes,
        FollowingConstants(shapes),
        norms_keep_shapes(),
        in_training(model) if training else evaluating(model),
        attributes_kept(model),
        torch.set_grad_enabled(gradients),
        noted,
    ):
        run_with(model, state, example)
    return noted.calls


# --- what it does then ---------------------------------------------------------------------------


def _training_trace(model: nn.Module, example: tuple[Any, ...], *, gradients: bool) -> Trace:
    """Trace the forward in training mode; raises `GraphError`.

    With `gradients` layers are seen that run only then; without where that gives no plain graph.
    """
    reason = ""
    with in_training(model):
        for on in (True, False) if gradients else (False,):
            program, used, why = export(model, example, gradients=on)
            if program is not None and not _has_blocks(program.graph_module.graph):
                return _renamed(exported_trace(model, program, used))
            reason = reason or why or "its forward switches gradients"
    raise GraphError(
        f"torch.export cannot trace it in training mode ({reason})",
        code="NOT_TRACEABLE",
        where=type(model).__name__,
    )


def _has_blocks(graph: fx.Graph) -> bool:
    """Tell whether a part of a graph is a graph of its own."""
    return any(node.op == "get_attr" for node in graph.nodes)


def _renamed(trace: Trace) -> Trace:
    """Return a trace whose nodes no trace of evaluation has, by name."""
    named = {}
    for node in trace.graph.nodes:
        name = node.name
        node._rename(PREFIX + name)  # noqa: SLF001 - torch.fx has no other way
        named[name] = node.name
    return dataclasses.replace(
        trace,
        tensors={named[name]: value for name, value in trace.tensors.items()},
        constants={named[name]: value for name, value in trace.constants.items()},
        inputs=tuple(named[name] for name in trace.inputs),
        integers={named[name]: value for name, value in trace.integers.items()},
    )
