"""Prove a cut: the dense network, masked by the plan, must equal the slim network.

References:
- *consumer-zero*: the user's own dense network with every weight zeroed that reads a removed
  channel. Built from the dense network and the plan alone.
- *masked-norm*: the traced dense graph with those weights zeroed, and with every norm over channels
  (layer, RMS, group) taking its statistics over the kept ones. It is used where a norm runs over
  cut channels: the plain mask cannot equal a cut there, and this defines what the cut computes.
- *consumer-zero on the traced graph*: where weights that the forward computes were folded, the
  traced dense graph over the folded tensors, with every weight zeroed that reads a removed channel.

Where the reference is a traced graph, that graph must besides equal the user's own dense network.
All run in float64, once on the real weights and once with every vector parameter and statistic
perturbed, so that nothing is neutral by accident.
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunecli.errors import ProofError, PruneError
from prunecli.graph.emit import constant_name, emit
from prunecli.graph.folding import folded_tensors
from prunecli.graph.network import build, float_casts, in_precision, names_floats
from prunecli.graph.record import attributes_kept, tensors_in
from prunecli.graph.run_with import run_with
from prunecli.masked_norms import MaskedNorms, Norms, cut_norms
from prunecli.modes import evaluating
from prunecli.report import Verified
from prunecli.surgery import Slices, cut_tensor
from prunecli.temperature import Factors, scaled
from prunecli.witness import MaskedNormCalls, run_watched, whole_readers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from prunecli.graph.coupling import ChannelGroup, CouplingGraph
    from prunecli.graph.trace import Trace

    _Run = Callable[[list[Any]], Any]

TOLERANCE = 1e-8
"""Largest allowed difference, relative to that between two inputs: correct cuts give 1e-13."""

TOLERANCES = {torch.float64: TOLERANCE, torch.float32: 1e-3}
"""By precision; float32, which only a cast in the forward calls for, gives up to 3e-4."""

ROUNDING = 1e-4
"""The least scale of an error, relative to the size of the output.

In deep networks rounding reaches 1e-13 of the output, whatever little of it follows the input. A
wrong cut in an output that follows by 1e-8 of its size still stands out by a factor of 10.
"""

AMPLIFIED = 1e-5
"""Largest error that is ever put down to rounding.

A deep network with random weights can blow a rounding error up; then the same network differs as
much on inputs that differ in their last bits, and its cut may. Wrong cuts give 1e-3 and more.
"""

SMALL_IMAGE = 64
"""Side of the images of a proof, where the real ones are much larger."""

Tensors = dict[str, Tensor]


def prove(
    model: nn.Module,
    slim: nn.Module,
    slices: Slices,
    keep: NDArray[np.bool_],
    *,
    trace: Trace,
    coupling: CouplingGraph,
    factors: Factors | None = None,
    seed: int = 0,
) -> Verified:
    """Return the largest relative error between the masked dense and the slim network.

    `factors` are those that the cut of `slim` multiplied in (`PruningPlan.factors`).
    Raises `ProofError`: `CUT_NOT_EQUAL` when it exceeds `TOLERANCE`, `CUT_DOES_NOT_RUN` when the
    slim network's own forward fails, `EMPTY_PROOF` when the outputs do not depend on the inputs,
    `TRACE_NOT_EQUAL` when the reference is a traced graph that differs from the dense network.
    """
    generator = torch.Generator().manual_seed(seed)
    claims = _claims(_Claim(model, slim, slices, keep, trace, coupling, factors or {}))
    # Not every network takes a smaller image, or float64 (a cast in its forward): the first way
    # that the dense network itself can go decides, and a small image never has the last word.
    attempts = [(torch.float64, True), (torch.float64, False), (torch.float32, False)]
    if trace.recorded:
        # Boxes that compete closely may be ordered by rounding: other inputs decide then.
        attempts[0] = attempts[1]
    elif not any(_shrinks(value) for value in tensors_in(trace.example)):
        attempts = attempts[1:]
    last = len(attempts) - 2
    with evaluating(model, slim), attributes_kept(model, slim):
        if not trace.recorded:
            _check_runs(model, slim, trace.example)
        for at, (precision, shrink) in enumerate(attempts):
            for claim in claims if precision == torch.float64 else claims[:1]:
                try:
                    return claim.prove(generator, precision, shrink=shrink)
                except _DenseFailedError as error:
                    reason = error
                except ProofError:
                    if at >= last and (claim is claims[-1] or precision != torch.float64):
                        raise
    raise ProofError(
        f"the dense network cannot be run for a proof: {reason}",
        code="DENSE_DOES_NOT_RUN",
        where=type(model).__name__,
        hint="nothing was written; check that the network runs on a batch of two",
    ) from reason


def _claims(claim: _Claim) -> list[_Claim]:
    """Return what may be proven: the claim, and others that read types in its graphs otherwise.

    Where a forward says `x.dtype`, the trace says float32, and so does a re-emitted graph. In
    float64 that is another function, unless all types follow the input, or those of casts alone
    (a table that is made in float32, then cast to the type of a weight).
    """
    trace = claim.trace
    graphs = [trace.graph] if trace.folding is None else [trace.graph, trace.folding.graph]
    if trace.recorded or not any(names_floats(graph) for graph in graphs):
        return [claim]
    found = [claim]
    for casts in (None, float_casts(trace.graph)):
        slim = claim.slim
        if isinstance(slim, fx.GraphModule):
            slim = in_precision(slim, torch.float64, only=casts)
        found.append(dataclasses.replace(claim, slim=slim, follows_inputs=True, casts=casts))
    return found


class _DenseFailedError(Exception):
    """The dense network does not run on the inputs of a proof."""


@dataclass(frozen=True)
class _Claim:
    """That `slim` is what is left of `model` when the channels outside `keep` are masked."""

    model: nn.Module
    slim: nn.Module
    slices: Slices
    keep: NDArray[np.bool_]
    trace: Trace
    coupling: CouplingGraph
    factors: Factors
    follows_inputs: bool = False
    """Whether floating-point types in traced graphs stand for that of the inputs."""
    casts: frozenset[str] | None = None
    """If so, the nodes of which this holds; None for all."""

    def prove(
        self, generator: torch.Generator, precision: torch.dtype, *, shrink: bool
    ) -> Verified:
        """Compare on the real weights and on perturbed ones; raise `ProofError` if they differ."""
        inputs = pytree.tree_map_only(
            Tensor,
            lambda value: _cast(self._random(value, generator, shrink=shrink), precision),
            list(self.trace.example),
        )
        norms = cut_norms(self.trace, self.coupling, self.keep)
        test = _Test(inputs, norms, precision, generator)
        real = _tensors(self.model)
        own = self._unrounded(real, _tensors(self.slim))
        perturbed = _perturbed(real, generator)
        traced = folded_tensors(self.trace, real)
        if norms or self.trace.folding is not None:
            self._check_trace(perturbed, traced, test)
        worst = self._compare(traced, own, test)
        for given in self.trace.further:
            shown = pytree.tree_map_only(Tensor, lambda value: _cast(value, precision), list(given))
            worst = max(worst, self._compare(traced, own, dataclasses.replace(test, inputs=shown)))
        if self.trace.folding is not None:
            perturbed = self._refolded(perturbed, precision)
        worst = max(worst, self._compare(perturbed, self._cut(perturbed, own), test))
        return Verified(self._method(test), worst)

    def _method(self, test: _Test) -> str:
        method = "consumer-zero"
        if test.norms:
            method = "masked-norm"
        elif self.trace.folding is not None:
            method = "consumer-zero on the traced graph"
        return method + ("" if test.precision == torch.float64 else " in float32")

    def _compare(self, state: Tensors, slim_state: Tensors, test: _Test) -> float:
        """Return how far the slim network is from the masked one; raise `ProofError` if too far."""
        error, equal = test.compare(
            partial(_run_slim, self.slim, slim_state, test.precision, self._run),
            _dense_runs(partial(self._masked, state, test)),
        )
        if not equal:
            raise ProofError(
                f"the cut network differs from the masked one by {error:.2e}",
                code="CUT_NOT_EQUAL",
                where=f"{self._method(test)}, relative to the difference between two inputs",
                hint="nothing was written; please report this network",
            )
        return error

    def _check_trace(self, state: Tensors, traced: Tensors, test: _Test) -> None:
        """Raise `ProofError` unless the traced dense graph equals the dense network itself."""
        if self.trace.recorded:
            return

        # Either holds a copy of the weights in double precision, and only while it runs.
        def run_trace(inputs: list[Any]) -> Any:
            return self._traced(self._refolded(state, test.precision), {}, test.precision, inputs)

        def run_own(inputs: list[Any]) -> Any:
            cast = {name: _cast(value, test.precision) for name, value in state.items()}
            return self._run(self.model, cast, inputs)

        error, equal = test.compare(_dense_runs(run_trace), _dense_runs(run_own))
        if not (equal and self._is_stored(traced, test.precision)):
            raise ProofError(
                f"the traced network differs from its own module by {error:.2e}",
                code="TRACE_NOT_EQUAL",
                where=type(self.model).__name__,
                hint="nothing was written; please report this network",
            )

    def _is_stored(self, traced: Tensors, precision: torch.dtype) -> bool:
        """Tell whether the folded tensors follow from the real weights, but for one rounding."""
        if self.trace.folding is None:
            return True
        exact = self._refolded(_tensors(self.model), precision)
        pairs = [(traced[name], exact[name]) for name in self.trace.folding.tensors]
        return all(
            float((stored.to(value) - value).abs().max())
            <= 4 * torch.finfo(stored.dtype).eps * float(value.abs().max())
            for stored, value in pairs
        )

    def _refolded(self, state: Tensors, precision: torch.dtype) -> Tensors:
        """Return what the traced graph reads where the network holds `state`, in a precision."""
        cast = {name: _cast(value, precision) for name, value in state.items()}
        if self.trace.folding is None:
            return cast
        folded = self.trace.folding.evaluate(cast, follows_inputs=self.follows_inputs)
        return {**folded_tensors(self.trace, cast), **folded}

    def _random(self, value: Tensor, generator: torch.Generator, *, shrink: bool) -> Tensor:
        """Return a random input; where the batch is fixed, of the size of the example."""
        if self.trace.batch is None:
            return _random_like(value, generator, shape=value.shape, shrink=False)
        shape = (2, *value.shape[1:]) if value.dim() else ()
        return _random_like(value, generator, shape=shape, shrink=shrink)

    def _run(
        self,
        model: nn.Module,
        state: Tensors,
        inputs: list[Any],
        norms: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Any:
        """Run a network; besides its outputs, a recorded one is judged by those of its layers."""
        if not self.trace.recorded:
            with attributes_kept(model):  # what one forward caches is not for the next
                return run_with(model, state, inputs)
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
                f"{len(wrong)} tensors of the cut network are not those of the plan",
                code="CUT_NOT_EQUAL",
                where=wrong[0],
                hint="nothing was written; please report this network",
            )
        exact = {name: self._cut_one(name, real[name].double()) for name in self.factors}
        return {**own, **exact}

    def _masked(self, state: Tensors, test: _Test, inputs: list[Any]) -> Any:
        """Run the dense network over masked tensors."""
        reference = _zero_consumers(state, self.coupling, self.slices, test.precision)
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
            constant_name(name): _cast(value, precision)
            for name, value in self.trace.constants.items()
        }
        network = build(program, {**state, **constants})
        if self.follows_inputs:
            network = in_precision(network, precision, only=self.casts)
        return MaskedNorms(network, norms).run(*inputs)


@dataclass(frozen=True)
class _Test:
    """What a comparison runs on: inputs, the norms that lose channels, and a precision."""

    inputs: list[Any]
    norms: Norms
    precision: torch.dtype
    generator: torch.Generator

    def compare(self, network: _Run, reference: _Run) -> tuple[float, bool]:
        """Return the error of a network, and whether it is no more than rounding explains."""
        # The reference first: where it does not run on these inputs, nothing else is at fault.
        expected = reference(self.inputs)
        error = relative_error(network(self.inputs), expected)
        tolerance = TOLERANCES[self.precision]
        if not error <= tolerance and error <= AMPLIFIED:
            jittered = pytree.tree_map_only(
                Tensor, lambda value: _jitter(value, self.generator), self.inputs
            )
            amplified = relative_error(reference(jittered), expected)
            tolerance = min(AMPLIFIED, 100 * amplified)
        return error, error <= tolerance


def _dense_runs(run: _Run) -> _Run:
    """Tell a dense network that does not run on the inputs of a proof from one that differs."""

    def guarded(inputs: list[Any]) -> Any:
        try:
            with torch.no_grad():
                return run(inputs)
        except PruneError:
            raise
        except Exception as error:
            lines = str(error).splitlines() or [repr(error)]
            raise _DenseFailedError(lines[0]) from error

    return guarded


def relative_error(found: Any, expected: Any) -> float:
    """Return the largest difference of two outputs, relative to how far they follow the input.

    The first two entries of the batch are different inputs; the largest difference between their
    outputs is the scale. What is the same for every input (a bias) would hide an error. Not finite
    counts as infinite. Raises `ProofError` (`EMPTY_PROOF`) where no output follows the input.
    """
    differences, scales = [], []
    outputs = [_signed(tensor) for tensor in tensors_in(found)]
    others = tensors_in(expected)
    if len(outputs) != len(others):
        return float("inf")
    for first, other in zip(outputs, others, strict=True):
        second = _signed(other)
        if first.shape != second.shape:
            return float("inf")
        if not first.numel():
            continue
        batch = first if first.dim() and first.shape[0] > 1 else torch.stack([first * 0, first])
        scales.append(float((batch[0] - batch[1]).abs().max()))
        differences.append(float((first - second).abs().max()))
        if not math.isfinite(scales[-1] + differences[-1]):
            return float("inf")
    sizes = [float(tensor.abs().max()) for tensor in outputs if tensor.numel()]
    if max(scales, default=0.0) <= TOLERANCE * max(sizes, default=0.0):
        raise ProofError(
            "the network's output does not depend on its input, so no proof means anything",
            code="EMPTY_PROOF",
            hint="nothing was written; the weights are dead or were never loaded",
        )
    floor = TOLERANCE * max(scales)
    return max(
        difference / max(scale, ROUNDING * size, floor)
        for difference, scale, size in zip(differences, scales, sizes, strict=True)
    )


def _check_runs(model: nn.Module, slim: nn.Module, example: Sequence[Any]) -> None:
    """Raise `ProofError` where the slim network fails on the example, before any long work."""
    try:
        with torch.no_grad(), attributes_kept(slim):
            slim(*example)
    except Exception as error:
        try:
            with torch.no_grad(), attributes_kept(model):
                model(*example)
        except Exception:  # noqa: BLE001 - a type that this device has no operators for, say
            return
        raise _does_not_run(slim, error) from error


def _does_not_run(slim: nn.Module, error: Exception) -> ProofError:
    return ProofError(
        f"the cut network's own forward fails: {(str(error).splitlines() or [repr(error)])[0]}",
        code="CUT_DOES_NOT_RUN",
        where=type(slim).__name__,
        hint="nothing was written; please report this network",
    )


def _run_slim(
    slim: nn.Module,
    state: Tensors,
    precision: torch.dtype,
    run: Callable[[nn.Module, Tensors, list[Any]], Any],
    inputs: list[Any],
) -> Any:
    given = {name: _cast(value, precision) for name, value in state.items()}
    try:
        with torch.no_grad():
            return run(slim, given, inputs)
    except PruneError:
        raise
    except Exception as error:
        raise _does_not_run(slim, error) from error


def _shrinks(value: Tensor) -> bool:
    return value.dim() == 4 and value.shape[2] == value.shape[3] > 2 * SMALL_IMAGE


def _random_like(
    value: Tensor, generator: torch.Generator, *, shape: Sequence[int], shrink: bool
) -> Tensor:
    if not value.is_floating_point():
        return _random_integers(value, shape, generator)
    if shrink and _shrinks(value):
        # A third of the side costs a ninth of the time, and every tap of a kernel still counts.
        side = max(SMALL_IMAGE, value.shape[2] // 3 // 32 * 32)
        shape = (2, value.shape[1], side, side)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(value.device)


def _jitter(value: Tensor, generator: torch.Generator) -> Tensor:
    """Change an input in its last bits."""
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return value * (1 + noise * torch.finfo(value.dtype).eps)


def _random_integers(value: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return the first of the example inputs and, second, one drawn from the range of them all."""
    if not value.dim() or not value.numel():
        return value
    low, high = int(value.min()), int(value.max())
    drawn = torch.randint(low, high + 1, tuple(shape), generator=generator).to(value)
    drawn[0] = value[0]
    return drawn


def _tensors(model: nn.Module) -> Tensors:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach() for name, value in named.items()}


def _signed(value: Tensor) -> Tensor:
    return value if value.is_floating_point() or value.is_complex() else value.double()


def _cast(value: Tensor, precision: torch.dtype) -> Tensor:
    return value.to(precision) if value.is_floating_point() else value


def _perturbed(state: Tensors, generator: torch.Generator) -> Tensors:
    """Return the state with every vector (bias, scale, statistic) moved off its neutral value."""
    result = {}
    for name, value in state.items():
        is_vector = value.dim() <= 1 or value.numel() == value.shape[0]
        if not value.is_floating_point() or not is_vector or not bool(value.isfinite().all()):
            result[name] = value
            continue
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        scale = value.abs().mean().clamp(min=1e-3)
        shifted = value * (0.75 + 0.5 * noise)
        positive = name.endswith(("running_var",))
        result[name] = shifted + (0.1 * scale * noise if positive else scale * (noise - 0.5) * 0.4)
    return result


def _zero_consumers(
    state: Tensors, coupling: CouplingGraph, slices: Slices, precision: torch.dtype
) -> Tensors:
    """Return the state with every weight zeroed that reads a removed channel.

    Channels that meet each other without a weight between (queries and keys) are zeroed at all
    their sites, biases too: a removed channel must not count there. So are channels that no weight
    reads.
    """
    result = {name: _cast(value, precision) for name, value in state.items()}
    for name, dim in {site for group in coupling.groups for site in _zeroed_sites(group)}:
        kept = slices.get(name, {}).get(dim)
        if kept is None or name not in state:
            continue
        mask = torch.zeros(state[name].shape[dim], dtype=precision, device=state[name].device)
        mask[torch.tensor(kept, device=mask.device)] = 1
        shape = [1] * state[name].dim()
        shape[dim] = -1
        if result[name] is state[name]:
            result[name] = result[name].clone()
        result[name].mul_(mask.view(shape))
    return result


def _zeroed_sites(group: ChannelGroup) -> tuple[tuple[str, int], ...]:
    return group.sites if group.contracted or not group.consumers else group.consumers
