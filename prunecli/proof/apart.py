"""Prove a cut at sizes of its own: the network is traced anew there, and compared with that trace.

Where a forward does something else at another image size (it resizes its table of positions), the
trace of the example says nothing of that. A trace at those sizes does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.cutting.graphs import cut_graph
from prunecli.cutting.surgery import slices_of
from prunecli.graph.coupling.groups import ALL_KEPT, NOTHING_CUT, STAYS, CouplingGraph, couple
from prunecli.graph.emitting.emit import constant_name
from prunecli.graph.emitting.program import in_precision
from prunecli.graph.tracing.folding import stored_tensors
from prunecli.graph.tracing.trace import trace_fixed
from prunecli.proof.conditions import Condition, difference, differing, events_under

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from prunecli.graph.tracing.trace import Trace
    from prunecli.plan import PruningPlan
    from prunecli.proof.events import Fakes


@dataclass(frozen=True)
class Apart:
    """Proves one cut of `model` in module mode under conditions of sizes, the same ones once."""

    fakes: Fakes
    model: nn.Module
    example: Sequence[Any]
    conditions: Sequence[Condition]
    slim: nn.Module
    plan: PruningPlan
    _known: dict[frozenset[tuple[tuple[int, int], int]], bool] = field(default_factory=dict)

    def __call__(self, condition: Condition) -> bool:
        """Tell whether a trace of its own proves the cut under a condition."""
        sizes = frozenset(condition.sizes.items())
        if not sizes:
            return False
        if sizes not in self._known:
            self._known[sizes] = self._proven(condition)
        return self._known[sizes]

    def _proven(self, condition: Condition) -> bool:
        inputs = tuple(condition.inputs(self.example))
        try:
            traced = trace_fixed(self.model, inputs)
            coupling = couple(traced)
            keep = _kept_by(self.plan, coupling)
            tensors = tensors_of(self.model, traced)
            graph, _ = cut_graph(traced, coupling, keep, tensors, of_module=True)
            dense, _ = cut_graph(traced, NOTHING_CUT, ALL_KEPT, tensors)
        except Exception:  # noqa: BLE001 - what cannot be traced apart is not proven
            return False
        calls = [replace(one, sizes={}) for one in self.conditions if not one.sizes]
        pairs = ((self.model, dense), (self.slim, graph))
        return all(
            same_but_for_types(self.fakes, pairs, inputs, one)
            for one in differing(self.fakes, self.slim, graph, inputs, calls).departures
        )


def same_but_for_types(
    fakes: Fakes,
    pairs: Iterable[tuple[nn.Module, fx.GraphModule]],
    inputs: Sequence[Any],
    condition: Condition,
) -> bool:
    """Tell whether modules are their graphs in another precision, if these name that as well.

    The forward says `x.dtype`, which its module follows, and a trace does not.
    """
    dtype = condition.dtype
    return dtype is not None and not any(
        difference(
            *(
                events_under(fakes, model, inputs, [condition])[0]
                for model in (module, in_precision(traced, dtype))
            )
        )
        for module, traced in pairs
    )


def tensors_of(model: nn.Module, traced: Trace) -> dict[str, Tensor]:
    """Return what the graph of a network reads, by name."""
    constants = {constant_name(name): value for name, value in traced.constants.items()}
    return {**stored_tensors(model), **constants}


def _kept_by(plan: PruningPlan, coupling: CouplingGraph) -> NDArray[np.bool_]:
    """Return the atoms of another trace of the same network that a plan keeps.

    Raises `ValueError` where these atoms do not make the same cut.
    """
    keep = np.ones(coupling.atom_count, np.bool_)
    for name, dims in coupling.tensors.items():
        for dim, atoms in dims.items():
            kept = plan.slices.get(name, {}).get(dim)
            if kept is not None:
                # What decides about a position that stays, stays; along each axis of several.
                gone = np.setdiff1d(atoms, atoms[:, np.array(kept)])
                keep[gone[gone != STAYS]] = False
    if slices_of(coupling, keep) != {
        name: dims for name, dims in plan.slices.items() if name in coupling.tensors
    }:
        raise ValueError("the plan does not fit this trace")
    return keep
