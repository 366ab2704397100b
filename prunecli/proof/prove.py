"""Prove a cut: the dense network, masked by the plan, must equal the slim network.

References:
- *consumer-zero*: the user's own dense network with every weight zeroed that reads a removed
  channel. Built from the dense network and the plan alone.
- *masked-norm*: the traced dense graph with those weights zeroed, and with every norm over channels
  (layer, RMS, group) taking its statistics over the kept ones. It is used where a norm runs over
  cut channels: the plain mask cannot equal a cut there, and this defines what the cut computes.
- *with blocks zeroed*: where residual blocks are deleted, the user's own dense network besides has
  the last weights of every such block set to zero, which makes its branch exactly 0. The trace and
  the coupling of such a proof are those of the network without the blocks.
- *consumer-zero on the traced graph*: where weights that the forward computes were folded, the
  traced dense graph over the folded tensors, with every weight zeroed that reads a removed channel.

Where the reference is a traced graph, that graph must besides equal the user's own dense network.
All run in float64, once on the real weights and once with every vector parameter and statistic
perturbed, so that nothing is neutral by accident.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from prunecli.errors import ProofError
from prunecli.graph.emitting.program import float_casts, in_precision, names_floats
from prunecli.graph.tracing.fake_quantizers import ROUNDS, at_rest
from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.running import buffers_kept, evaluating
from prunecli.proof.claim import Claim
from prunecli.proof.error import AMPLIFIED
from prunecli.proof.inputs import (
    shrinks,
)
from prunecli.proof.runs import DenseFailedError, check_runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunecli.cutting.surgery import Slices
    from prunecli.cutting.temperature import Factors
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace
    from prunecli.report import Verified


def prove(
    model: nn.Module,
    slim: nn.Module,
    slices: Slices,
    keep: NDArray[np.bool_],
    *,
    trace: Trace,
    coupling: CouplingGraph,
    factors: Factors | None = None,
    zeroed: frozenset[str] = frozenset(),
    own_type_only: bool = False,
    own_size: bool = False,
    seed: int = 0,
) -> Verified:
    """Return the largest relative error between the masked dense and the slim network.

    `factors` are those that the cut of `slim` multiplied in (`PruningPlan.factors`). `zeroed` are
    the tensors of `model` whose zeros make deleted blocks vanish (`Block.zeroed`).
    With `own_type_only`, nothing runs in double precision: the forward does something else there.
    With `own_size`, images are first as large as those of the example: nothing else covers these.
    Raises `ProofError`: `CUT_NOT_EQUAL` when it exceeds `TOLERANCE`, `CUT_DOES_NOT_RUN` when the
    slim network's own forward fails, `EMPTY_PROOF` when the outputs do not depend on the inputs,
    `TRACE_NOT_EQUAL` when the reference is a traced graph that differs from the dense network.
    """
    generator = torch.Generator().manual_seed(seed)
    claims = _claims(Claim(model, slim, slices, keep, trace, coupling, factors or {}, zeroed))
    # Not every network takes a smaller image, or float64 (a cast in its forward): the first way
    # that the dense network itself can go decides, and a small image never has the last word.
    attempts = [(torch.float64, True), (torch.float64, False), (torch.float32, False)]
    if own_type_only:
        attempts = [(torch.float32, True), (torch.float32, False)]
    attempts += [(own, False) for own in _half_precisions(model)]
    if trace.recorded or own_size:
        # Where boxes compete closely, rounding may order them: other inputs decide then.
        attempts[0] = attempts[1]
    elif not any(shrinks(value) for value in tensors_in(trace.example)):
        attempts = attempts[1:]
    last = len(attempts) - 2
    failure: ProofError | None = None
    # Rounding follows from scales that are cut as channels are, which the proof of structure sees:
    # here it would turn the last digits into whole steps.
    resting = at_rest(model, slim, switch=ROUNDS)
    with evaluating(model, slim), resting, attributes_kept(model, slim), buffers_kept(model, slim):
        if not trace.recorded:
            check_runs(model, slim, trace.example)
        for at, (precision, shrink) in enumerate(attempts):
            for claim in claims if precision == torch.float64 else claims[:1]:
                try:
                    return claim.prove(generator, precision, shrink=shrink)
                except DenseFailedError as error:
                    reason = error
                except ProofError as error:
                    failure = failure or error
                    if at >= last and (claim is claims[-1] or precision != torch.float64):
                        raise failure from None
    raise ProofError(
        f"the dense model cannot be run for a proof: {reason}",
        code="DENSE_DOES_NOT_RUN",
        where=type(model).__name__,
        hint="nothing was written; check that the model runs on a batch of two",
    ) from reason


def _half_precisions(model: nn.Module) -> list[torch.dtype]:
    """Return the half precision that a network holds its weights in, if it does."""
    found = {value.dtype for value in model.parameters()}
    return [precision for precision in (torch.float16, torch.bfloat16) if precision in found]


def _claims(claim: Claim) -> list[Claim]:
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
    # What a forward computes in float32 on purpose (a softmax, a norm) rounds there, in any case.
    return found + [dataclasses.replace(one, tolerance=AMPLIFIED) for one in found]
