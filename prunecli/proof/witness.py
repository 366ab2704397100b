"""What layers gave during a forward: a proof for networks whose outputs are chosen by value.

A detector returns what its heads found, which may be nothing, and drops the rest. Its cut is judged
by what its layers give besides: those that read cut channels and keep all of their own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prunecli.graph.operators import operator_name
from prunecli.graph.tracing.record import AGAIN, AtLeastOne, attributes_kept, tensors_in
from prunecli.graph.tracing.running import run_with
from prunecli.proof.masked_norms import MASKED_NORMS, Norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prunecli.cutting.surgery import Slices
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


@dataclass
class Witness:
    """Outputs of the watched layers in the order of execution, and which layers gave nothing."""

    outputs: list[Tensor] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    idle: set[str] = field(default_factory=set)


def whole_readers(coupling: CouplingGraph, slices: Slices) -> tuple[str, ...]:
    """Return the layers that read cut channels and keep all of their own."""
    reading: dict[str, set[int]] = {}
    for group in coupling.groups:
        for name, dim in group.consumers:
            reading.setdefault(name, set()).add(dim)
    found = [name for name, dims in reading.items() if name in slices and set(slices[name]) <= dims]
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in found))


def run_watched(
    model: nn.Module,
    state: dict[str, Tensor],
    inputs: tuple[Any, ...],
    layers: tuple[str, ...],
    norms: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Any, Witness]:
    """Run a forward on other tensors; return its output and what the layers gave.

    Selections of nothing take one candidate (`AtLeastOne`) where the network runs on that. `norms`
    makes a context that replaces norms. Raises what the forward raises.
    """
    failure: Exception | None = None
    for mode in (AtLeastOne(), nullcontext()):
        witness = Witness()
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                stack.enter_context(attributes_kept(model))
                stack.enter_context(_watching(model, layers, witness))
                stack.enter_context(norms())
                stack.enter_context(mode)
                return run_with(model, state, inputs), witness
        except Exception as error:  # noqa: BLE001 - the plain forward has the last word
            failure = error
    assert failure is not None
    raise failure


@contextmanager
def _watching(model: nn.Module, layers: tuple[str, ...], witness: Witness) -> Iterator[None]:
    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            for tensor in tensors_in(output):
                (witness.seen if tensor.numel() else witness.idle).add(name)
                witness.outputs.append(_rows(tensor))

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rows(tensor: Tensor) -> Tensor:
    """Return the output of a layer such that the first two entries come from different inputs.

    Of one image, two positions far apart stand for that.
    """
    if tensor.dim() < 3 or tensor.shape[0] != 1 or not tensor[0, 0].numel():
        return tensor
    rows = tensor.flatten(2).movedim(1, -1)[0] if tensor.dim() > 3 else tensor[0]
    middle = len(rows) // 2
    return torch.cat([rows[:1], rows[middle:], rows[1:middle]])


class MaskedNormCalls(TorchFunctionMode):
    """Lets the norms of a recorded forward, in order of execution, see the kept channels alone."""

    def __init__(self, trace: Trace, norms: Norms) -> None:
        super().__init__()
        self.names = [
            node.name
            for node in trace.graph.nodes
            if node.op == "call_function"
            and operator_name(node.target) in MASKED_NORMS
            and AGAIN not in node.meta
        ]
        self.norms = norms
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = _NORMS.get(func)
        if known is None:
            return func(*args, **(kwargs or {}))
        name = self.names[self.calls % len(self.names)]
        self.calls += 1
        if name not in self.norms:
            return func(*args, **(kwargs or {}))
        operator, defaults = known
        arguments = {**defaults, **dict(zip(defaults, args, strict=False)), **(kwargs or {})}
        return MASKED_NORMS[operator](arguments, self.norms[name])


_AFFINE = {"weight": None, "bias": None, "eps": 1e-5}
_NORMS: dict[Any, tuple[str, dict[str, Any]]] = {
    functional.layer_norm: ("layer_norm", {"input": None, "normalized_shape": None, **_AFFINE}),
    functional.group_norm: ("group_norm", {"input": None, "num_groups": None, **_AFFINE}),
    functional.rms_norm: (
        "rms_norm",
        {"input": None, "normalized_shape": None, "weight": None, "eps": None},
    ),
}
"""What a call of each norm is given, in order, with the defaults."""
