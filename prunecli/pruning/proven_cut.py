"""Cut a network to a plan, in its own module or re-emitted, prove it, and find what to hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.cutting.attributes import Attributes, mirrored_attributes
from prunecli.cutting.surgery import cut_module, slices_of
from prunecli.cutting.temperature import temperature_factors
from prunecli.errors import GraphError, ProofError, PruneError
from prunecli.graph.emitting.rewrites import baked_sizes
from prunecli.graph.operators import operator_name, schema_arguments, source_line
from prunecli.graph.tracing.stale import call_once
from prunecli.plan import GRAPH, PruningPlan
from prunecli.proof.prove import prove
from prunecli.proof.structure import StructureProof
from prunecli.pruning.training_mode import trained_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import fx, nn

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.progress import Clock
    from prunecli.report import FrozenReport, TrainingMode, Verified


@dataclass(frozen=True)
class Cut:
    """What is kept of a network: one boolean per atom, and the widths of the groups.

    `whole` are the groups that could have been cut and were not. `model` is the network that was
    cut and proven, None for a plan; `program` is its graph where graph mode was needed. `training`
    says what is known of it in training mode.
    """

    plan: PruningPlan
    keep: NDArray[np.bool_]
    widths: Widths
    whole: tuple[FrozenReport, ...]
    model: nn.Module | None = None
    program: Mapping[str, Any] | None = None
    verified: Verified | None = None
    training: TrainingMode | None = None


def planned_cut(
    network: Network,
    keep: NDArray[np.bool_],
    widths: Widths,
    *,
    whole: tuple[FrozenReport, ...],
    budget: Budget,
    options: PruneOptions,
) -> Cut:
    """Return the cut that keeps these atoms, not yet made."""
    plan = plan_of(network, keep, widths, budget=budget, options=options)
    return Cut(plan, keep, widths, whole)


def proven(
    network: Network,
    cut: Cut,
    options: PruneOptions,
    clock: Clock,
    structure: StructureProof | None = None,
) -> Cut:
    """Return the cut as it was made and proven; raises `GraphError` and `ProofError`.

    `structure` is what proves the cuts of this network, where several are tried.
    """
    structure = structure or StructureProof(network)
    slim, program, verified = _cut_and_prove(network, cut, structure, options, clock)
    plan = cut.plan if program is None else in_graph_mode(cut.plan)
    made = dataclasses.replace(cut, plan=plan, model=slim, program=program, verified=verified)
    with clock.stage("prove"):
        training = trained_mode(network, slim, plan, cut.keep, seed=options.seed)
        if network.apart and program is None:
            call_once(slim, network.trace.example)  # its caches hold what it makes itself
    if options.strict:
        _check_limits(network, verified, training)
    return dataclasses.replace(made, training=training)


def _check_limits(network: Network, verified: Verified, training: TrainingMode) -> None:
    """Raise `ProofError` (`LIMITED_PROOF`) where a proof does not cover everything."""
    limits = list(verified.limits)
    if not training.verified:
        limits.append(f"not verified in training mode: {training.reason}")
    if limits:
        raise ProofError(
            f"the proof has limits: {'; '.join(limits)}",
            code="LIMITED_PROOF",
            where=type(network.model).__name__,
            hint="nothing was written; without --strict the result is written, with a warning",
        )


def plan_of(
    network: Network,
    keep: NDArray[np.bool_],
    widths: Widths,
    *,
    budget: Budget,
    options: PruneOptions,
) -> PruningPlan:
    """Return the plan that keeps these atoms.

    It is in module mode, unless blocks lose all or a part of what they write.
    """
    plan = PruningPlan(
        fingerprint=network.fingerprint,
        keep={
            group.name: tuple(np.flatnonzero(keep[group.atoms]).tolist())
            for group in network.coupling.groups
        },
        slices=slices_of(network.coupling, keep),
        attributes=_attributes(network, keep),
        factors=temperature_factors(network.trace, network.coupling, keep),
        signal=options.signal,
        allocation=options.allocation,
        budget=budget.to_json(),
        cost_before=network.cost.dense,
        cost_after=network.cost.cost(widths),
        seed=options.seed,
        deleted={block.name: block.zeroed for block in network.deleted},
        writes=dict(network.writes),
    )
    return plan if network.whole is None else in_graph_mode(plan)


def _attributes(network: Network, keep: NDArray[np.bool_]) -> Attributes:
    """Return the attributes that follow a cut, also those of modules that run in training alone."""
    traces = [trace for trace in (network.training.trace, network.trace) if trace is not None]
    found: Attributes = {}
    for trace in traces:
        own = mirrored_attributes(network.model, trace, network.coupling, keep)
        found = {path: found.get(path, {}) | own.get(path, {}) for path in (*found, *own)}
    return found


def _cut_and_prove(
    network: Network,
    cut: Cut,
    structure: StructureProof,
    options: PruneOptions,
    clock: Clock,
) -> tuple[nn.Module, dict[str, Any] | None, Verified]:
    """Cut in module mode; where the forward has sizes baked in, in graph mode. Either is proven.

    A module that computes its weights, that cannot be copied, or that loses blocks or what they
    write (its own forward would still add all of it) is cut in graph mode directly.
    """
    plan = cut.plan
    if network.trace.folding is None and network.whole is None:
        try:
            with clock.stage("cut"):
                slim = cut_module(
                    network.model, plan.slices, attributes=plan.attributes, factors=plan.factors
                )
            with clock.stage("prove"):
                return slim, None, _prove(network, slim, cut, structure, options)
        except (GraphError, ProofError):
            slim = None
            if network.trace.recorded:
                raise
    with clock.stage("cut"):
        try:
            rebuilt, program = network.graph_network(cut.keep, any_size=True)
        except PruneError as error:
            check_not_random(network, error)
            raise
    rebuilt.train(network.model.training)
    with clock.stage("prove"):
        cut = dataclasses.replace(cut, plan=in_graph_mode(plan))
        return rebuilt, program, _prove(network, rebuilt, cut, structure, options)


def in_graph_mode(plan: PruningPlan) -> PruningPlan:
    """Return the plan of the re-emitted graph, which has its sizes and temperatures written in."""
    return dataclasses.replace(plan, mode=GRAPH, attributes={}, factors={})


def newly_held(
    network: Network, keep: NDArray[np.bool_], held: Mapping[str, str], failure: ProofError
) -> dict[str, str]:
    """Return the groups to leave whole after a proof failed, and why.

    A recorded graph says which sizes may be written in the forward, but cannot replace it. Else the
    suspects are channels that meet without a weight between, then those of attention, then those
    under norms. Raises the failure where there is nothing more to leave whole, and a `ProofError`
    of its own (`RANDOM_FORWARD`) for a forward that no two runs of which are equal.
    """
    check_not_random(network, failure)
    if failure.code in {"LIMITED_PROOF", "TRACE_NOT_EQUAL"}:
        raise failure
    if network.trace.recorded:
        found = baked_sizes(network.trace, network.coupling, keep)
        if found.keys() - held.keys():
            return {**held, **found}
    cut = [group for group in network.coupling.groups if not keep[group.atoms].all()]
    for suspect in (lambda group: group.contracted, lambda group: group.axes > 1, _is_inexact):
        groups = {group.name: "its cut could not be proven" for group in cut if suspect(group)}
        if groups:
            return {**held, **groups}
    raise failure


def check_not_random(network: Network, failure: PruneError) -> None:
    """Raise `ProofError` (`RANDOM_FORWARD`) where a failure comes from a forward with noise."""
    drawn = random_operator(network.trace.graph)
    if drawn is not None:
        raise ProofError(
            f"the forward draws random numbers in evaluation ({operator_name(drawn.target)}): no "
            "two runs are equal, and nothing can be proven",
            code="RANDOM_FORWARD",
            where=source_line(drawn),
            hint="nothing was written; switch the noise off in evaluation mode",
        ) from failure


def random_operator(graph: fx.Graph) -> fx.Node | None:
    """Return the first node that draws random numbers in evaluation; dropout does not."""
    for node in graph.nodes:
        arguments = schema_arguments(node)
        drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if not drawn and "generator" not in arguments:
            continue
        training = arguments.get("train", arguments.get("training", True))
        if training and arguments.get("dropout_p", 1.0):
            return node  # type: ignore[no-any-return]
    return None


def _is_inexact(group: ChannelGroup) -> bool:
    return not group.exact


def _prove(
    network: Network,
    slim: nn.Module,
    cut: Cut,
    structure: StructureProof,
    options: PruneOptions,
) -> Verified:
    """Prove a cut by its structure, then by numbers; raises `ProofError`."""
    plan, keep = cut.plan, cut.keep
    found = structure.prove(slim, plan, keep)
    verified = prove(
        network.model,
        slim,
        plan.slices,
        keep,
        trace=network.trace,
        coupling=network.coupling,
        factors=plan.factors,
        zeroed=network.silenced,
        own_type_only=found.own_type_only,
        own_size=not found.equal,
        seed=options.seed,
    )
    return dataclasses.replace(
        verified,
        by_structure=found.equal,
        scope=found.scope,
        limits=found.limits,
    )
