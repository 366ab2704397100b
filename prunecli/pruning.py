"""The road of one cut: trace, couple, cost, score, allocate, cut, prove. No files, no screen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.allocation import ALLOCATIONS, Saliency, keep_mask
from prunecli.attributes import mirrored_attributes
from prunecli.dead.living import Living, check_dead, living_network
from prunecli.errors import GraphError, InputError, ProofError
from prunecli.graph.rewrites import baked_sizes
from prunecli.graph.rules.call import operator_name, schema_arguments
from prunecli.graph.trace import source_line
from prunecli.importance import (
    check_importance,
    chosen_importance,
    importance_of,
)
from prunecli.layers import cut_layers
from prunecli.modes import evaluating
from prunecli.network import Clock, Network, read_network
from prunecli.options import PruneOptions
from prunecli.plan import PruningPlan
from prunecli.progress import Progress, silent
from prunecli.repair import check_repair, repair_
from prunecli.report import (
    CutCost,
    FrozenReport,
    GroupReport,
    PruneReport,
    SearchReport,
    Verified,
)
from prunecli.search import AUTO, asked_signals, best_signal, check_search, search_warnings
from prunecli.selection import check_patterns, select
from prunecli.signals import AGGREGATES, PRESETS, needs_data, parse_signal, score_many
from prunecli.surgery import cut_module, slices_of
from prunecli.temperature import temperature_factors
from prunecli.verify import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import fx, nn

    from prunecli.budget import Budget
    from prunecli.cost import CostModel, Widths
    from prunecli.graph.coupling import ChannelGroup
    from prunecli.graph.trace import Example
    from prunecli.signals.score import Batches

GRAPH = "graph"


@dataclass(frozen=True)
class PruneResult:
    """A cut network with its plan; `program` is the graph as JSON where graph mode was needed.

    For a dry run `model` is None.
    """

    model: nn.Module | None
    plan: PruningPlan
    report: PruneReport
    program: Mapping[str, Any] | None

    @property
    def frozen(self) -> tuple[FrozenReport, ...]:
        """What could not be cut, and why."""
        return self.report.frozen


def prune_network(
    model: nn.Module,
    example: Example,
    *,
    budget: Budget,
    options: PruneOptions | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    prepare: Callable[[Network], Network] = lambda network: network,
    dry_run: bool = False,
    architecture: str = "",
    progress: Progress = silent,
) -> PruneResult:
    """Cut `model` until it keeps `budget`, and prove the cut; `model` itself is left untouched.

    `example` holds the inputs of one forward (any batch size); `batches` yields normalised images
    and labels for signals and repairs that look at data, `measured_on` those that the repairs are
    scored on (else the same). `prepare` adds to the traced network what only the caller knows
    (earlier cuts, a latency table). With `options.dead` channels that do nothing go first, at no
    cost; then the budget may have no limit. Raises `GraphError` (cannot be traced, nothing can be
    cut), `GateError` (infeasible budget), `InputError` and `ProofError`.
    """
    options = options or PruneOptions()
    check_search(options, batches)
    check_options(options)
    check_repair(options.repair, batches)
    check_importance(options, batches)
    check_dead(budget, options)
    clock = Clock(progress)
    network = prepare(read_network(model, example, clock=clock))
    check_patterns(network, options)
    warnings = trace_warnings(network)
    with clock.stage("cost"):
        cost = network.cost
    living = living_network(
        network,
        options,
        limited=bool(budget.limits),
        batches=batches,
        measured_on=measured_on,
        clock=clock,
    )
    network = living.network
    with clock.stage("score"):
        options, saliency, candidates = _scored(
            network,
            budget,
            options,
            living=living,
            batches=batches,
            measured_on=measured_on,
            progress=progress,
        )
    warnings.extend([] if candidates is None else search_warnings(candidates))
    with clock.stage("importance"):
        importance = importance_of(network, saliency, options, batches, progress=progress)
    held: dict[str, str] = {}
    slim, program, verified = None, None, None
    while True:
        with clock.stage("allocate"):
            selection = select(
                network,
                saliency,
                budget,
                options,
                held=held,
                importance=importance,
                gone=living.gone,
            )
        widths = selection.widths
        ranked = np.where(living.gone, -np.inf, np.nan_to_num(saliency, nan=np.inf))
        keep = keep_mask(network.coupling.groups, ranked, widths)
        plan = plan_of(network, keep, widths, budget=budget, options=options)
        if dry_run:
            break
        try:
            slim, program, verified = cut_and_prove(network, plan, keep, options, clock)
            break
        except ProofError as error:
            held = _newly_held(network, keep, held, error)
    if program is not None:
        plan = in_graph_mode(plan)
    repaired = None
    if slim is not None and options.repair and batches is not None:
        with clock.stage("repair"), evaluating(slim):
            repaired = repair_(
                slim,
                network,
                plan,
                keep,
                names=options.repair,
                batches=batches,
                measured_on=measured_on,
                progress=progress,
            )
    report = PruneReport(
        output=None,
        plan=plan.to_json(),
        cost=cut_cost(cost, widths),
        verified=verified,
        groups=group_reports(network, widths, importance),
        frozen=(*frozen_reports(network), *selection.whole),
        architecture=architecture or type(model).__name__,
        mode=plan.mode,
        signal=options.signal,
        allocation=options.allocation,
        align="auto" if options.align is None else str(options.align),
        seconds=clock.seconds,
        warnings=(*warnings, *living.warnings, *selection.warnings),
        repair=repaired,
        importance=chosen_importance(options, data=batches is not None),
        candidates=candidates,
        dead=living.report,
        layers=cut_layers(network, keep, widths, whole=selection.whole),
    )
    return PruneResult(slim, plan, report, program)


def check_options(options: PruneOptions) -> None:
    """Raise `InputError` for a name or number that means nothing, before any work."""
    for signal in asked_signals(options):
        check_signal(signal)
    ALLOCATIONS.get(options.allocation)
    AGGREGATES.get(options.aggregate)
    for name, value in (("align", options.align), ("min-width", options.min_width)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below 1", code="BAD_OPTION")


def check_signal(name: str) -> None:
    """Raise `InputError` for a name that is neither a preset nor a point of the taxonomy."""
    if "/" in name:
        parse_signal(name)
    else:
        PRESETS.get(name)


def score_network(
    network: Network,
    options: PruneOptions,
    *,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> Saliency:
    """Return one saliency per atom; NaN where the signal cannot see it."""
    found = score_signals(network, [options.signal], options, batches=batches, progress=progress)
    return found[options.signal]


def score_signals(
    network: Network,
    signals: Sequence[str],
    options: PruneOptions,
    *,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> dict[str, Saliency]:
    """Return one saliency per atom under every signal, in one pass over the images."""
    return score_many(
        signals,
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        latency_removed=network.latency_removed(),
        dense_shapes=network.dense_shapes,
        batches=batches if any(needs_data(signal) for signal in signals) else None,
        aggregate=options.aggregate,
        seed=options.seed,
        progress=progress,
    )


def _scored(
    network: Network,
    budget: Budget,
    options: PruneOptions,
    *,
    living: Living,
    batches: Callable[[], Batches] | None,
    measured_on: Callable[[], Batches] | None,
    progress: Progress,
) -> tuple[PruneOptions, Saliency, SearchReport | None]:
    """Return the saliencies, and under `auto` the options with the signal that was found best."""

    def score(signals: Sequence[str]) -> dict[str, Saliency]:
        found = score_signals(network, signals, options, batches=batches, progress=progress)
        return {name: living.ranked(saliency) for name, saliency in found.items()}

    if options.signal != AUTO or batches is None:
        return options, score([options.signal])[options.signal], None
    candidates, found = best_signal(
        network,
        budget,
        options,
        score=score,
        gone=living.gone,
        batches=batches,
        measured_on=measured_on,
        progress=progress,
    )
    return dataclasses.replace(options, signal=candidates.chosen), found, candidates


def cut_cost(cost: CostModel, widths: Widths) -> CutCost:
    """Return the costs before and after, and the fraction kept of each."""
    before, after = cost.dense, cost.cost(widths)
    return CutCost(
        before=cost.report_dense(),
        after=cost.report(widths),
        kept={kind: after[kind] / before[kind] if before[kind] else 1.0 for kind in before},
    )


def frozen_reports(network: Network) -> tuple[FrozenReport, ...]:
    """Return what the network itself holds fast, with the share of FLOPs of those layers."""
    cost = network.cost
    return tuple(
        FrozenReport(
            item.name,
            item.reason,
            item.where,
            cost.share_of_tensors({name for name, _ in item.sites}),
        )
        for item in network.coupling.frozen
    )


def trace_warnings(network: Network) -> list[str]:
    """Say what the trace of a network found that its owner should know."""
    warnings = []
    if network.trace.recorded:
        warnings.append(
            f"torch.export cannot trace this network ({network.trace.recorded}); one real forward "
            "was recorded instead: costs are those of that forward, and only the network's own "
            "module can be cut"
        )
    if network.trace.unused and network.trace.recorded:
        warnings.append(
            f"no forward tried reached {len(network.trace.unused)} parameters "
            f"({network.trace.unused[0]}, ...): an input that does may not fit the cut network"
        )
    elif network.trace.unused:
        first = network.trace.unused[0]
        warnings.append(
            f"{len(network.trace.unused)} parameters are not used in evaluation ({first}, ...): "
            "they are left as they are"
        )
    if network.trace.folding is not None:
        folded = tuple(network.trace.folding.tensors)
        count = "1 weight is" if len(folded) == 1 else f"{len(folded)} weights are"
        warnings.append(
            f"{count} computed from others in the forward, as weight standardisation and weight "
            f"norm do ({folded[0]}{', ...' if len(folded) > 1 else ''}): folded into plain ones"
        )
    warnings.extend(
        f"operator {name} has no rule ({count} times): the channels that it touches are frozen"
        for name, count in network.coupling.unknown.items()
    )
    return warnings


# --- cut and prove -------------------------------------------------------------------------------


def plan_of(
    network: Network,
    keep: NDArray[np.bool_],
    widths: Widths,
    *,
    budget: Budget,
    options: PruneOptions,
) -> PruningPlan:
    """Return the plan that keeps these atoms, in module mode."""
    return PruningPlan(
        fingerprint=network.coupling.fingerprint,
        keep={
            group.name: tuple(np.flatnonzero(keep[group.atoms]).tolist())
            for group in network.coupling.groups
        },
        slices=slices_of(network.coupling, keep),
        attributes=mirrored_attributes(network.model, network.trace, network.coupling, keep),
        factors=temperature_factors(network.trace, network.coupling, keep),
        signal=options.signal,
        allocation=options.allocation,
        budget=budget.to_json(),
        cost_before=network.cost.dense,
        cost_after=network.cost.cost(widths),
        seed=options.seed,
    )


def cut_and_prove(
    network: Network,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    options: PruneOptions,
    clock: Clock,
) -> tuple[nn.Module, dict[str, Any] | None, Verified]:
    """Cut in module mode; where the forward has sizes baked in, in graph mode. Either is proven.

    A module that computes its weights, or that cannot be copied, is cut in graph mode directly.
    """
    if network.trace.folding is None:
        try:
            with clock.stage("cut"):
                slim = cut_module(
                    network.model, plan.slices, attributes=plan.attributes, factors=plan.factors
                )
            with clock.stage("prove"):
                return slim, None, _prove(network, slim, plan, keep, options)
        except (GraphError, ProofError):
            slim = None
            if network.trace.recorded:
                raise
    with clock.stage("cut"):
        rebuilt, program = network.graph_network(keep)
    rebuilt.train(network.model.training)
    with clock.stage("prove"):
        return rebuilt, program, _prove(network, rebuilt, in_graph_mode(plan), keep, options)


def in_graph_mode(plan: PruningPlan) -> PruningPlan:
    """Return the plan of the re-emitted graph, which has its sizes and temperatures written in."""
    return dataclasses.replace(plan, mode=GRAPH, attributes={}, factors={})


def _newly_held(
    network: Network, keep: NDArray[np.bool_], held: Mapping[str, str], failure: ProofError
) -> dict[str, str]:
    """Return the groups to leave whole after a proof failed, and why.

    A recorded graph says which sizes may be written in the forward, but cannot replace it. Else the
    suspects are channels that meet without a weight between, then those of attention, then those
    under norms. Raises the failure where there is nothing more to leave whole, and a `ProofError`
    of its own (`RANDOM_FORWARD`) for a forward that no two runs of which are equal.
    """
    drawn = random_operator(network.trace.graph)
    if drawn is not None:
        raise ProofError(
            f"the forward draws random numbers in evaluation ({operator_name(drawn.target)}): no "
            "two runs are equal, and nothing can be proven",
            code="RANDOM_FORWARD",
            where=source_line(drawn),
            hint="nothing was written; switch the noise off in evaluation mode",
        ) from failure
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


def random_operator(graph: fx.Graph) -> fx.Node | None:
    """Return the first node that draws random numbers in evaluation; dropout does not."""
    for node in graph.nodes:
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        arguments = schema_arguments(node)
        training = arguments.get("train", arguments.get("training", True))
        if training and arguments.get("dropout_p", 1.0):
            return node  # type: ignore[no-any-return]
    return None


def _is_inexact(group: ChannelGroup) -> bool:
    return not group.exact


def _prove(
    network: Network,
    slim: nn.Module,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    options: PruneOptions,
) -> Verified:
    return prove(
        network.model,
        slim,
        plan.slices,
        keep,
        trace=network.trace,
        coupling=network.coupling,
        factors=plan.factors,
        seed=options.seed,
    )


def group_reports(
    network: Network, widths: Widths, importance: NDArray[np.float64] | None = None
) -> tuple[GroupReport, ...]:
    """Return every group with its width before and after."""
    flops, params = network.cost.share("flops"), network.cost.share("params")
    return tuple(
        GroupReport(
            group.name,
            group.width,
            int(widths[at]),
            float(flops[at]),
            float(params[at]),
            group.exact,
            None if importance is None else float(importance[at]),
        )
        for at, group in enumerate(network.coupling.groups)
    )
