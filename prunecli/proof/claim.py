"""One claim of a proof: that a slim network is what is left of a masked one, and its test."""

from __future__ import annotations

import dataclasses
import math
import operator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.cutting.surgery import Slices, cut_tensor
from prunecli.cutting.temperature import Factors, scaled
from prunecli.errors import ProofError
from prunecli.graph.emitting.emit import constant_name, emit
from prunecli.graph.emitting.program import build, in_precision
from prunecli.graph.tracing.folding import evaluate_folding, folded_tensors, stored_tensors
from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.running import run_with
from prunecli.proof.awake import signal_passing, with_statistics
from prunecli.proof.error import AMPLIFIED, TOLERANCES, relative_errors
from prunecli.proof.inputs import (
    Tensors,
    cast_to,
    jitter,
    perturb,
    random_like,
    zero_consumers,
)
from prunecli.proof.masked_norms import MaskedNorms, Norms, cut_norms
from prunecli.proof.runs import Run, dense_runs, run_slim
from prunecli.proof.witness import MaskedNormCalls, run_watched, whole_readers
from prunecli.report import Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


@dataclass(frozen=True)
class Claim:
    """That `slim` is what is left of `model` when the channels outside `keep` are masked."""

    model: nn.Module
    slim: nn.Module
    slices: Slices
    keep: NDArray[np.bool_]
    trace: Trace
    coupling: CouplingGraph
    factors: Factors
    zeroed: frozenset[str] = frozenset()
    """Tensors that are zero in the dense network: those of deleted blocks."""
    follows_inputs: bool = False
    """Whether floating-point types in traced graphs stand for that of the inputs."""
    casts: frozenset[str] | None = None
    """If so, the nodes of which this holds; None for all."""
    tolerance: float = 0.0
    """A tolerance above that of the precision."""

    def prove(
        self, generator: torch.Generator, precision: torch.dtype, *, shrink: bool
    ) -> Verified:
        """Compare on the real weights and on perturbed ones; raise `ProofError` if they differ."""
        inputs = self._inputs(generator, precision, 2, shrink=shrink)
        norms = cut_norms(self.trace, self.coupling, self.keep)
        tolerance = max(TOLERANCES[precision], self.tolerance)
        test = Comparison(inputs, norms, precision, generator, tolerance)
        real = self._without_blocks(stored_tensors(self.model))
        own = self._unrounded(real, stored_tensors(self.slim))
        perturbed = self._without_blocks(perturb(real, generator))
        traced = folded_tensors(self.trace, real)
        if norms or self.trace.folding is not None:
            self._check_trace(perturbed, traced, test)
        many = partial(self._inputs, generator, precision, _MANY, shrink=shrink)
        loud = dataclasses.replace(test, inputs=magnified(inputs))
        if self.trace.folding is not None:
            perturbed = self._refolded(perturbed, precision)
        errors = [
            self._compare(traced, own, dataclasses.replace(test, inputs=shown))
            for shown in self._further(precision)
        ]
        asleep = False
        for state, given in ((traced, test), (perturbed, loud)):
            cut = own if state is traced else self._cut(state, own)
            try:
                errors.append(self._compare(state, cut, given, many))
            except ProofError as error:
                if error.code != "EMPTY_PROOF" or self.trace.recorded:
                    raise
                asleep = True
        if asleep:
            awake = self._awake(real, loud)
            errors.append(self._compare(awake, self._cut(awake, own), loud, many))
        method = self._method(test)
        return Verified(
            f"{method}, on weights that pass a signal" if asleep else method, max(errors)
        )

    def _further(self, precision: torch.dtype) -> Iterator[list[Any]]:
        """Yield the inputs that made a recorded forward take other branches."""
        for given in self.trace.further:
            yield pytree.tree_map_only(Tensor, lambda value: cast_to(value, precision), list(given))

    def _inputs(
        self, generator: torch.Generator, precision: torch.dtype, batch: int, *, shrink: bool
    ) -> list[Any]:
        """Return random inputs, as many as `batch` where it is free."""
        return pytree.tree_map_only(  # type: ignore[no-any-return]
            Tensor,
            lambda value: cast_to(
                self._random(value, generator, batch=batch, shrink=shrink), precision
            ),
            list(self.trace.example),
        )

    def _awake(self, real: Tensors, test: Comparison) -> Tensors:
        """Return what the traced graph reads on weights under which every layer passes a signal."""
        drawn = self._without_blocks(signal_passing(real, test.generator))
        found = with_statistics(self.trace, self._refolded(drawn, test.precision), test.inputs)
        return self._without_blocks(found)

    def _without_blocks(self, state: Tensors) -> Tensors:
        """Return a state of the dense network in which the branches of deleted blocks are 0."""
        return {
            name: torch.zeros_like(value) if name in self.zeroed else value
            for name, value in state.items()
        }

    def _method(self, test: Comparison) -> str:
        method = "consumer-zero"
        if test.norms:
            method = "masked-norm"
        elif self.trace.folding is not None:
            method = "consumer-zero on the traced graph"
        if self.zeroed:
            method += ", deleted blocks zeroed"
        if test.precision != torch.float64:
            return f"{method} in {str(test.precision).removeprefix('torch.')}"
        return method + (", float32 inside" if self.tolerance else "")

    def _compare(
        self,
        state: Tensors,
        slim_state: Tensors,
        test: Comparison,
        many: Callable[[], list[Any]] | None = None,
    ) -> float:
        """Return how far the slim network is from the masked one; raise `ProofError` if too far.

        Where two inputs give the same (a class number), `many` decide.
        """
        runs = (
            partial(run_slim, self.slim, slim_state, test.precision, self._run),
            dense_runs(partial(self._masked, state, test)),
        )
        try:
            error, equal = test.compare(*runs)
        except ProofError as failure:
            if failure.code != "EMPTY_PROOF" or many is None or self.trace.batch is None:
                raise
            error, equal = dataclasses.replace(test, inputs=magnified(many(), 10.0)).compare(*runs)
        if not equal:
            raise ProofError(
                f"the pruned model differs from the masked one by {error:.2e}",
                code="CUT_NOT_EQUAL",
                where=f"{self._method(test)}, relative to the difference between two inputs",
                hint="nothing was written; please report this model",
            )
        return error

    def _check_trace(self, state: Tensors, traced: Tensors, test: Comparison) -> None:
        """Raise `ProofError` unless the traced dense graph equals the dense network itself."""
        if self.trace.recorded:
            return

        # Either holds a copy of the weights in double precision, and only while it runs.
        def run_trace(inputs: list[Any]) -> Any:
            return self._traced(self._refolded(state, test.precision), {}, test.precision, inputs)

        def run_own(inputs: list[Any]) -> Any:
            cast = {name: cast_to(value, test.precision) for name, value in state.items()}
            return self._run(self.model, cast, inputs)

        error, equal = test.compare(dense_runs(run_trace), dense_runs(run_own))
        if not (equal and self._is_stored(traced, test.precision)):
            raise ProofError(
                f"the traced model differs from its own module by {error:.2e}",
                code="TRACE_NOT_EQUAL",
                where=type(self.model).__name__,
                hint="nothing was written; please report this model",
            )

    def _is_stored(self, traced: Tensors, precision: torch.dtype) -> bool:
        """Tell whether the folded tensors follow from the real weights, but for one rounding."""
        if self.trace.folding is None:
            return True
        exact = self._refolded(stored_tensors(self.model), precision)
        pairs = [(traced[name], exact[name]) for name in self.trace.folding.tensors]
        return all(
            float((stored.to(value) - value).abs().max())
            <= 4 * torch.finfo(stored.dtype).eps * float(value.abs().max())
            for stored, value in pairs
        )

    def _refolded(self, state: Tensors, precision: torch.dtype) -> Tensors:
        """Return what the traced graph reads where the network holds `state`, in a precision."""
        cast = {name: cast_to(value, precision) for name, value in state.items()}
        if self.trace.folding is None:
            return cast
        folded = evaluate_folding(self.trace.folding, cast, follows_inputs=self.follows_inputs)
        return {**folded_tensors(self.trace, cast), **folded}

    def _random(
        self, value: Tensor, generator: torch.Generator, *, batch: int, shrink: bool
    ) -> Tensor:
        """Return a random input; where the batch is fixed, of the size of the example."""
        if self.trace.batch is None:
            return random_like(value, generator, shape=value.shape, shrink=False)
        shape = (batch, *value.shape[1:]) if value.dim() else ()
        return random_like(value, generator, shape=shape, shrink=shrink)

    def _run(
        self,
        model: nn.Module,
        state: Tensors,
        inputs: list[Any],
        norms: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Any:
        """Run a network; besides its outputs, a recorded one is judged by those of its layers."""
        if not self.trace.recorded:
            # What one forward caches, or writes to a buffer, is not for the next.
            given = {
                name: value.clone() if name in self.trace.buffers else value
                for name, value in state.items()
            }
            with attributes_kept(model):
                return run_with(model, given, inputs)
        layers = whole_readers(self.coupling, self.slices)
        output, witness = run_watched(model, state, tuple(inputs), layers, norms)
        return [witness.outputs, tensors_in(output)]

    def _cut(self, state: Tensors, names: Tensors) -> Tensors:
        cut = {
            name: self._cut_one(name, value.double() if name in self.factors else value)
            for name, value in state.items()
            if name in names
        }
        return {**names, **cut}

    def _cut_one(self, name: str, value: Tensor) -> Tensor:
        factors = self.factors.get(name, ())
        return cut_tensor(scaled(value, factors) if factors else value, self.slices.get(name, {}))

    def _unrounded(self, real: Tensors, own: Tensors) -> Tensors:
        """Return the slim tensors, with the factors that were multiplied in not yet rounded."""
        wrong = [
            name
            for name in self.factors
            if not torch.equal(own[name], self._cut_one(name, real[name]))
        ]
        if wrong:
            raise ProofError(
                f"{len(wrong)} tensors of the pruned model are not those of the plan",
                code="CUT_NOT_EQUAL",
                where=wrong[0],
                hint="nothing was written; please report this model",
            )
        exact = {name: self._cut_one(name, real[name].double()) for name in self.factors}
        return {**own, **exact}

    def _masked(self, state: Tensors, test: Comparison, inputs: list[Any]) -> Any:
        """Run the dense network over masked tensors."""
        reference = zero_consumers(state, self.coupling, self.slices, test.precision)
        run = partial(self._run, self.model, reference)
        if test.norms and self.trace.recorded:
            run = partial(run, norms=partial(MaskedNormCalls, self.trace, test.norms))
        elif test.norms or self.trace.folding is not None:
            run = partial(self._traced, reference, test.norms, test.precision)
        return run(inputs)

    def _traced(
        self, state: Tensors, norms: Norms, precision: torch.dtype, inputs: list[Any]
    ) -> Any:
        """Run the traced dense graph."""
        program = emit(self.trace, self.coupling, np.ones_like(self.keep))
        constants = {
            constant_name(name): cast_to(value, precision)
            for name, value in self.trace.constants.items()
        }
        network = build(program, {**state, **constants})
        if self.follows_inputs:
            network = in_precision(network, precision, only=self.casts)
        return MaskedNorms(network, norms).run(*inputs)


_MANY = 16
"""How many inputs are tried where two give the same output."""


def magnified(inputs: list[Any], largest: float = 1.0) -> list[Any]:
    """Return inputs of several magnitudes, from `largest` times the usual one to a tenth of it.

    Larger ones amplify rounding, which then looks like an error; structure knows no magnitude.
    """

    def magnified(value: Tensor) -> Tensor:
        if not value.is_floating_point() or not value.dim():
            return value
        sizes = torch.logspace(math.log10(largest), -1, len(value), dtype=torch.float64).to(value)
        return value * sizes.view(-1, *[1] * (value.dim() - 1))

    return pytree.tree_map_only(Tensor, magnified, inputs)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Comparison:
    """What a comparison runs on: inputs, the norms that lose channels, and a precision."""

    inputs: list[Any]
    norms: Norms
    precision: torch.dtype
    generator: torch.Generator
    tolerance: float

    def compare(self, network: Run, reference: Run) -> tuple[float, bool]:
        """Return the error of a network, and whether it is no more than rounding explains."""
        # The reference first: where it does not run on these inputs, nothing else is at fault.
        expected = reference(self.inputs)
        found = relative_errors(network(self.inputs), expected)
        limits = [self.tolerance] * len(found.channels)
        if not found.largest <= self.tolerance and found.outputs <= AMPLIFIED:
            jittered = pytree.tree_map_only(
                Tensor, lambda value: jitter(value, self.generator), self.inputs
            )
            amplified = relative_errors(reference(jittered), expected).channels
            limits = [max(self.tolerance, 10 * one) for one in amplified]
        return found.largest, all(map(operator.le, found.channels, limits))
