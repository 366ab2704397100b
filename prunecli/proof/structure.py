"""Prove a cut by its structure: the slim network does, call by call, what was left of the dense.

The traced dense graph, rewritten for the kept channels, says what every operator of the slim
network must read and write. The slim network runs on tensors without values, and its events are
compared with those of that graph: equal events are one function, whatever the values of inputs and
weights. Before that, the dense module is compared with its own graph under every condition that a
forward can ask about (`conditions`): where they differ, the proof does not reach, and says so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from prunecli.cutting.graphs import cut_graph
from prunecli.cutting.surgery import cut_tensor
from prunecli.cutting.temperature import scaled
from prunecli.errors import ProofError, PruneError
from prunecli.graph.coupling.groups import ALL_KEPT, NOTHING_CUT
from prunecli.graph.tracing.folding import stored_tensors
from prunecli.graph.tracing.record import tensors_in
from prunecli.graph.tracing.trace import trace
from prunecli.proof.apart import Apart, same_but_for_types, tensors_of
from prunecli.proof.bits import same_bits
from prunecli.proof.conditions import (
    STEP,
    Condition,
    Outcome,
    calls_of,
    difference,
    differing,
    events_under,
    runs_under,
    same_numbers,
    single_conditions,
)
from prunecli.proof.events import Events, Fakes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import fx, nn

    from prunecli.graph.tracing.any_size import AnySize, Asked
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan


@dataclass(frozen=True)
class Structure:
    """What a proof of structure covers: `scope` as text, and `limits`, what it does not.

    `equal` is False where there was nothing to compare.
    """

    equal: bool
    scope: str = ""
    limits: tuple[str, ...] = ()
    own_type_only: bool = False
    """Whether the forward does something else on inputs of another precision."""


class StructureProof:
    """Proves cuts of one network; what the dense network alone shows is found out once."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._example = network.trace.example
        self._fakes = Fakes()

    def prove(self, slim: nn.Module, plan: PruningPlan, keep: NDArray[np.bool_]) -> Structure:
        """Return what holds of a cut; raise `ProofError` (`STRUCTURE_NOT_EQUAL`) where it fails.

        In graph mode the slim network is the graph itself: only the conditions are left to find.
        """
        why_not = self.unseen if not self._network.trace.recorded else _RECORDED
        if why_not:
            return Structure(equal=False, limits=(f"verified on samples alone: {why_not}",))
        in_module = plan.mode == "module"
        departures = self.departures
        if any(condition.plain for condition in departures):
            raise ProofError(
                "the forward does something else when it is traced: "
                + next(iter(departures.values())),
                code="TRACE_NOT_EQUAL",
                where=type(self._network.model).__name__,
                hint="nothing was written; let the forward not ask whether it is being exported "
                "or compiled",
            )
        model, conditions = self._network.model, self._conditions
        apart = Apart(self._fakes, model, self._example, conditions, slim, plan)
        all_run = False
        if in_module:
            departures, all_run = self._compared(slim, plan, keep, apart)
        any_size = self._takes_any_size(slim, all_run=all_run)
        limits = [*self._named(departures), *self._bounds(apart if in_module else _never)]
        if not in_module:
            limits += self._fixed(any_size=any_size)
        return Structure(
            equal=True,
            scope=self._scope(any_size=any_size),
            limits=tuple(dict.fromkeys(limits)),
            own_type_only=any(condition.dtype is not None for condition in departures),
        )

    @cached_property
    def _sizes(self) -> AnySize | None:
        return (self._network.whole or self._network).any_size

    @cached_property
    def _conditions(self) -> list[Condition]:
        return single_conditions(self._example, self._sizes)

    # --- the dense network alone ------------------------------------------------------------------

    @cached_property
    def unseen(self) -> str:
        """Why the dense network cannot be followed without values; empty where it can."""
        if isinstance(self._dense_calls[0], str):
            return f"the forward does not run on tensors without values: {self._dense_calls[0]}"
        try:
            assert self._graph is not None
        except PruneError as error:
            return f"its graph cannot be written: {error.message}"
        return ""

    @cached_property
    def _dense_calls(self) -> list[Outcome]:
        """What the dense module does in the calls that hold all conditions."""
        calls = calls_of(self._conditions)
        return events_under(self._fakes, self._network.model, self._example, calls)

    @cached_property
    def departures(self) -> dict[Condition, str]:
        """The conditions under which the dense module is not its graph, and where they part."""
        model, example = self._network.model, self._example
        found = differing(
            self._fakes, model, self._graph, example, self._conditions, own=self._dense_calls
        )
        return {
            condition: text
            for condition, text in found.departures.items()
            if runs_under(self._fakes, model, example, condition)
            and not same_numbers(model, self._graph, example, condition)
        }

    @cached_property
    def _graph(self) -> fx.GraphModule:
        """The graph of the dense network, as its own module computes it."""
        whole = self._network.whole or self._network
        traced = whole.trace if self._sizes is None else self._sizes.unfolded
        if self._sizes is None and traced.folding is not None:
            traced = trace(whole.model, traced.example)
        return cut_graph(traced, NOTHING_CUT, ALL_KEPT, tensors_of(whole.model, traced))[0]

    # --- a cut in module mode ---------------------------------------------------------------------

    def _compared(
        self,
        slim: nn.Module,
        plan: PruningPlan,
        keep: NDArray[np.bool_],
        apart: Callable[[Condition], bool],
    ) -> tuple[dict[Condition, str], bool]:
        """Compare a slim module with the graph it has to be.

        Return the departures that remain, and whether it ran under all other conditions.
        """
        self._check_tensors(slim, plan)
        graph, _ = self._network.graph_network(keep, any_size=True, of_module=True)
        left = [one for one in self._conditions if one not in self.departures]
        found = differing(self._fakes, slim, graph, self._example, left)
        for condition, text in found.departures.items():
            # What one call caches, the next does not compute: the same values by fewer operators.
            cached = condition.earlier and same_numbers(slim, graph, self._example, condition)
            dense_runs = runs_under(self._fakes, self._network.model, self._example, condition)
            if dense_runs and not cached:
                raise ProofError(
                    f"the pruned module is not what is left of the original: {text}",
                    code="STRUCTURE_NOT_EQUAL",
                    where=condition.name or type(slim).__name__,
                    hint="nothing was written; please report this model",
                )
        remaining = {
            condition: text
            for condition, text in self.departures.items()
            if not apart(condition) and not self._follows_types(slim, graph, condition)
        }
        return remaining, found.all_run and len(left) == len(self._conditions)

    def _check_tensors(self, slim: nn.Module, plan: PruningPlan) -> None:
        """Raise `ProofError` unless every tensor is the dense one, selected, bit for bit."""
        dense = stored_tensors(self._network.model)
        for name, value in stored_tensors(slim).items():
            factors = plan.factors.get(name, ())
            own = scaled(dense[name], factors) if factors else dense[name]
            if not same_bits(value, cut_tensor(own, plan.slices.get(name, {}))):
                raise ProofError(
                    "a tensor of the pruned model is not that of the plan",
                    code="CUT_NOT_EQUAL",
                    where=name,
                    hint="nothing was written; please report this model",
                )

    def _follows_types(self, slim: nn.Module, graph: fx.GraphModule, condition: Condition) -> bool:
        """Tell whether all that differs in another precision is that graphs name their own."""
        pairs = ((self._network.model, self._graph), (slim, graph))
        return same_but_for_types(self._fakes, pairs, self._example, condition)

    # --- what is said of it -----------------------------------------------------------------------

    def _named(self, departures: Mapping[Condition, str]) -> Iterator[str]:
        for condition, text in departures.items():
            if condition.one_image:
                yield (
                    "verified for batches of 2 and more: the forward treats one image differently "
                    f"({text})"
                )
            else:
                yield f"not verified for {condition.name}: the forward differs there ({text})"

    def _bounds(self, apart: Callable[[Condition], bool]) -> Iterator[str]:
        """Yield what the forward asks of its sizes, where it does something else beyond that."""
        for side in () if self._sizes is None else self._sizes.free:
            # Every free size starts at 2 for the exporter; batches of one are a condition.
            beyond = [] if side.low <= 2 else [(side.low - 1, f"of {side.low} and more")]
            if side.high is not None:
                beyond.append((side.high + 1, f"up to {side.high}"))
            for size, text in beyond:
                there = Condition(sizes=dict.fromkeys(side.places, size))
                if self._departs(there) and not apart(there):
                    yield f"verified for a {side.name} {text}: the forward differs beyond that"
        for asked in () if self._sizes is None else self._sizes.asked:
            others = [Condition(sizes=sizes) for sizes in self._against(asked)]
            if any(self._departs(there) and not apart(there) for there in others):
                yield f"verified where {asked.text}: the forward differs elsewhere"

    def _against(self, asked: Asked) -> Iterator[dict[tuple[int, int], int]]:
        """Yield sizes near those of the example for which something asked does not hold."""
        tensors = tensors_in(self._example)
        free = self._sizes.free if self._sizes else ()
        own = {
            (tensor, dim): tensors[tensor].shape[dim]
            for side in free
            for tensor, dim in side.places
        }
        for side, more in itertools.product(free, (1, STEP)):
            sizes = {**own, **{place: own[place] + more for place in side.places}}
            if not asked.holds(sizes):
                yield sizes

    def _departs(self, condition: Condition) -> bool:
        """Tell whether the dense module runs under a condition, and is not its graph there."""
        outcomes = (
            events_under(self._fakes, model, self._example, [condition])[0]
            for model in (self._network.model, self._graph)
        )
        own = next(outcomes)
        return isinstance(own, Events) and bool(difference(own, next(outcomes)))

    def _takes_any_size(self, slim: nn.Module, *, all_run: bool) -> bool:
        """Tell whether a pruned network is the same at the image sizes that the trace leaves free.

        Not every graph with free sizes can be written; then it has those of the example. With
        `all_run` it is known to run under all conditions.
        """
        if self._sizes is None or not self._sizes.sides:
            return False
        if all_run:
            return True
        other = next(one for one in self._conditions if one.sides)
        return runs_under(self._fakes, slim, self._example, other)

    def _fixed(self, *, any_size: bool) -> Iterator[str]:
        """Yield the sizes that a graph fixes, where the forward itself takes others."""
        tensors = tensors_in(self._example)
        if self._sides() and not any_size:
            larger = {key: tensors[key[0]].shape[key[1]] + STEP for key in self._sides()}
            if runs_under(self._fakes, self._network.model, self._example, Condition(sizes=larger)):
                yield f"{self._image_text()} alone: the pruned model is a graph of that size"
        if self._network.trace.batch is None:
            batch = tensors[0].shape[0]
            yield f"a batch of {batch} alone: the pruned model is a graph of that size"

    def _scope(self, *, any_size: bool) -> str:
        """Say for which inputs a cut is verified."""
        batch = "any batch" if self._network.trace.batch is not None else "the batch of the example"
        if not self._sides():
            return batch
        return f"{batch} and {'any image size' if any_size else self._image_text()}"

    def _sides(self) -> list[tuple[int, int]]:
        """Return the image sides of the example: (tensor, dim)."""
        return [
            (at, dim)
            for at, value in enumerate(tensors_in(self._example))
            if value.dim() > 3
            for dim in range(2, value.dim())
        ]

    def _image_text(self) -> str:
        tensors = tensors_in(self._example)
        shape = next(tuple(value.shape[2:]) for value in tensors if value.dim() > 3)
        return f"images of {' x '.join(map(str, shape))}"


def _never(_: Condition) -> bool:
    """Say that nothing is proven apart of a graph, which is what it is."""
    return False


_RECORDED = (
    "the forward follows the values of tensors, and branches other than those that were run are "
    "not covered"
)
