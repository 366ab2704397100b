"""The road of one cut: trace, couple, cost, score, allocate, cut, prove. No files, no screen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.allocation import ALLOCATIONS, Saliency, keep_mask
from prunecli.dead.removal import WithoutDead, check_dead, living_network, slow_widths
from prunecli.errors import InputError, ProofError
from prunecli.graph.tracing.running import evaluating
from prunecli.importance import (
    check_importance,
    chosen_importance,
    importance_of,
)
from prunecli.network.described import cut_cost, frozen_reports, group_reports, trace_warnings
from prunecli.network.layers import cut_layers
from prunecli.network.patterns import check_patterns
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.proven_cut import cut_and_prove, in_graph_mode, newly_held, plan_of
from prunecli.pruning.scoring import check_signal, score_signals
from prunecli.pruning.search import AUTO, asked_signals, best_signal, check_search, search_warnings
from prunecli.pruning.selection import select
from prunecli.repair import check_repair, repair_
from prunecli.report import (
    FrozenReport,
    PruneReport,
    SearchReport,
)
from prunecli.signals import AGGREGATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from prunecli.budget import Budget
    from prunecli.evaluation.outputs import Batches
    from prunecli.graph.tracing.trace import Example
    from prunecli.plan import PruningPlan


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
            held = newly_held(network, keep, held, error)
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
        warnings=(
            *warnings,
            *living.warnings,
            *slow_widths(living, widths, options),
            *selection.warnings,
        ),
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


def _scored(
    network: Network,
    budget: Budget,
    options: PruneOptions,
    *,
    living: WithoutDead,
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
