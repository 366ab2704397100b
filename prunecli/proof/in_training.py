"""Compare a pruned model in training mode with the masked original in training mode.

The proof of a cut is about evaluation. In training, batch norm takes the statistics of the batch,
and a forward may take other branches. One comparison on random inputs tells whether the cut holds
there too; random draws give their means (`draws.py`). It refuses no cut: the report says what it
found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.errors import ProofError
from prunecli.graph.emitting.emit import constant_name, emit
from prunecli.graph.emitting.program import build
from prunecli.graph.tracing.folding import evaluate_folding, folded_tensors, stored_tensors
from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.running import draws_kept, in_training, run_with
from prunecli.graph.tracing.torch_export import first_line
from prunecli.proof.draws import MeanDraws
from prunecli.proof.error import AMPLIFIED, TOLERANCES, relative_error
from prunecli.proof.inputs import Tensors, cast_to, random_like, shrinks, zero_consumers
from prunecli.proof.masked_norms import MaskedNorms, Norms, cut_norms
from prunecli.report import TrainingMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from prunecli.cutting.surgery import Slices
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

_Outputs = list[Tensor]


class _NotComparableError(Exception):
    """There is no masked original to compare with."""


@dataclass(frozen=True)
class TrainedCut:
    """A cut whose two networks are compared as they train.

    `trace` is a trace of what the dense network does in training: that of evaluation where it does
    the same. `graph_failure` says why there is no such graph; then `trace` is that of evaluation.
    `zeroed` are the tensors of `model` whose zeros make deleted blocks vanish.
    """

    model: nn.Module
    slim: nn.Module
    slices: Slices
    keep: NDArray[np.bool_]
    trace: Trace
    coupling: CouplingGraph
    graph_failure: str = ""
    zeroed: frozenset[str] = frozenset()


def compare_in_training(cut: TrainedCut, *, seed: int = 0) -> TrainingMode:
    """Return how far the pruned model is in training from the masked original in training.

    The models, their statistics and the state of all random generators are left as they were.
    """
    attempts = [(torch.float64, True), (torch.float64, False), (torch.float32, False)]
    if cut.trace.batch is None or not any(map(shrinks, tensors_in(cut.trace.example))):
        attempts = attempts[1:]
    reason = ""
    with (
        draws_kept(cut.model),
        in_training(cut.model, cut.slim),
        attributes_kept(cut.model, cut.slim),
    ):
        for precision, shrink in attempts:
            inputs = _inputs(cut.trace, seed, precision, shrink=shrink)
            run = partial(_as_it_trains, seed, inputs)
            try:
                expected = run(partial(_masked, cut, precision))
            except _NotComparableError as error:
                reason = str(error)
                break
            except Exception as error:  # noqa: BLE001 - inputs that do not suit it, a type, a target
                reason = reason or f"the model's own forward fails in training: {first_line(error)}"
                continue
            try:
                found = run(partial(_own, cut.slim, stored_tensors(cut.slim), precision))
            except Exception as error:  # noqa: BLE001
                # A graph may have the size of its images written in, or a type.
                reason = f"the pruned model's forward fails in training: {first_line(error)}"
                continue
            return _compared(found, expected, precision)
    return TrainingMode(verified=False, reason=reason)


def _compared(found: _Outputs, expected: _Outputs, precision: torch.dtype) -> TrainingMode:
    try:
        error = relative_error(found, expected)
    except ProofError as empty:
        return TrainingMode(verified=False, reason=empty.message)
    if error <= max(AMPLIFIED, TOLERANCES[precision]):
        return TrainingMode(verified=True, max_rel_error=error)
    reason = f"in training it differs from the masked original by {error:.1e}"
    return TrainingMode(verified=False, max_rel_error=error, reason=reason)


def _inputs(trace: Trace, seed: int, precision: torch.dtype, *, shrink: bool) -> list[Any]:
    """Return random inputs, three where the batch is free: of two, batch norm leaves the signs."""
    generator = torch.Generator().manual_seed(seed)

    def one(value: Tensor) -> Tensor:
        if trace.batch is None or not value.dim():
            return random_like(value, generator, shape=value.shape, shrink=False)
        return random_like(value, generator, shape=(3, *value.shape[1:]), shrink=shrink)

    cast = pytree.tree_map_only(Tensor, lambda value: cast_to(one(value), precision), trace.example)
    return list(cast)


def _as_it_trains(seed: int, inputs: list[Any], run: Callable[[list[Any]], Any]) -> _Outputs:
    torch.manual_seed(seed)
    with torch.enable_grad(), MeanDraws():  # type: ignore[no-untyped-call]
        return [value.detach() for value in tensors_in(run(inputs))]


def _own(model: nn.Module, state: Tensors, precision: torch.dtype, inputs: list[Any]) -> Any:
    """Run a network's own forward over copies: batch norm writes its statistics into them."""
    learnt = {name for name, value in model.named_parameters() if value.requires_grad}
    copied = {name: cast_to(value.clone(), precision) for name, value in state.items()}
    for name in learnt & copied.keys():
        copied[name].requires_grad_()
    with attributes_kept(model):
        return run_with(model, copied, inputs)


def _masked(cut: TrainedCut, precision: torch.dtype, inputs: list[Any]) -> Any:
    """Run the dense network over masked tensors; norms over removed channels ask for its graph."""
    real = {name: value.clone() for name, value in stored_tensors(cut.model).items()}
    state = {
        name: torch.zeros_like(value) if name in cut.zeroed else value
        for name, value in real.items()
    }
    norms = cut_norms(cut.trace, cut.coupling, cut.keep)
    if not norms and cut.trace.folding is None:
        masked = zero_consumers(state, cut.coupling, cut.slices, precision)
        return _own(cut.model, masked, precision, inputs)
    if cut.graph_failure:
        raise _NotComparableError(f"a norm runs over removed channels, and {cut.graph_failure}")
    folded = _folded(cut.trace, state, precision)
    of_graph, of_own = (
        [value.detach() for value in tensors_in(output)]
        for output in (
            _traced(cut, folded, {}, precision, inputs),
            _own(cut.model, state, precision, inputs),
        )
    )
    if relative_error(of_graph, of_own) > max(AMPLIFIED, TOLERANCES[precision]):
        raise _NotComparableError("a norm runs over removed channels, and its graph is another")
    masked = zero_consumers(folded, cut.coupling, cut.slices, precision)
    return _traced(cut, masked, norms, precision, inputs)


def _folded(trace: Trace, state: Tensors, precision: torch.dtype) -> Tensors:
    cast = {name: cast_to(value, precision) for name, value in state.items()}
    if trace.folding is None:
        return cast
    return {**folded_tensors(trace, cast), **evaluate_folding(trace.folding, cast)}


def _traced(
    cut: TrainedCut, state: Tensors, norms: Norms, precision: torch.dtype, inputs: list[Any]
) -> Any:
    program = emit(cut.trace, cut.coupling, np.ones_like(cut.keep))
    constants = {
        constant_name(name): cast_to(value, precision)
        for name, value in cut.trace.constants.items()
    }
    copied = {name: value.clone() for name, value in {**state, **constants}.items()}
    return MaskedNorms(build(program, copied).train(), norms).run(*inputs)
