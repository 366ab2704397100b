"""The road of one cut of a traced network: score, allocate, cut, prove. No files, no screen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.allocation import ALLOCATIONS, Saliency, keep_mask
from prunecli.dead.removal import WithoutDead, living_network, slow_widths
from prunecli.errors import InputError, ProofError, PruneError
from prunecli.evaluation.batches import NO_IMAGES, Images
from prunecli.graph.coupling.matching import atoms_in
from prunecli.graph.tracing.running import evaluating
from prunecli.importance import check_importance, importance_of
from prunecli.network.described import trace_warnings
from prunecli.network.patterns import check_patterns
from prunecli.options import PruneOptions
from prunecli.preflight.pruning import (
    AUTO,
    check_dead,
    check_deletion,
    check_search,
    chosen_importance,
)
from prunecli.progress import Clock, silent
from prunecli.proof.structure import StructureProof
from prunecli.pruning.deletion import delete_blocks
from prunecli.pruning.described import cut_report
from prunecli.pruning.proven_cut import Cut, newly_held, planned_cut, proven
from prunecli.pruning.scoring import check_signal, score_living
from prunecli.pruning.search import asked_signals, best_signal, search_warnings
from prunecli.pruning.selection import select
from prunecli.pruning.training_mode import baked_in_training
from prunecli.repair import check_repair, repair_, repair_warnings
from prunecli.signals import AGGREGATES, fallbacks_of, needs_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from prunecli.architectures.inputs import InputSpec
    from prunecli.budget import Budget
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan
    from prunecli.report import (
        BlocksReport,
        FrozenReport,
        PruneReport,
        RepairReport,
        SearchReport,
    )


@dataclass(frozen=True)
class PruneResult:
    """A cut network with its plan; `program` is the graph as JSON where graph mode was needed.

    For a dry run `model` is None.
    """

    model: nn.Module | None
    plan: PruningPlan
    report: PruneReport
    program: Mapping[str, Any] | None
    input: InputSpec | None = None
    """What the network takes, where it is known."""

    @property
    def frozen(self) -> tuple[FrozenReport, ...]:
        """What could not be cut, and why."""
        return self.report.frozen


def prune_network(
    network: Network,
    *,
    budget: Budget,
    options: PruneOptions | None = None,
    images: Images = NO_IMAGES,
    dry_run: bool = False,
    architecture: str = "",
    clock: Clock | None = None,
) -> PruneResult:
    """Cut a network until it keeps `budget`, and prove the cut; its model is left untouched.

    `images.scored_on` gives normalised images and labels for signals and repairs that look at data,
    `images.measured_on` those that repairs and candidates are measured on. With `options.dead`
    channels that do nothing go first, at no cost; then the budget may have no limit. Raises
    `GraphError` (nothing can be cut), `GateError` (infeasible budget), `InputError` and
    `ProofError`.
    """
    options, clock = options or PruneOptions(), clock or Clock(silent)
    check_prune(budget, options, images)
    check_patterns(network, options)
    with clock.stage("cost"):
        cost = network.cost
    living = living_network(
        network, options, limited=bool(budget.limits), images=images, clock=clock
    )
    if needs_images(options) and budget.limits:
        check_reachable(living, budget, options)
    ranking = _ranked(living, budget, options, images, clock)
    blocks, no_block = None, tuple[str, ...]()
    if options.delete_blocks:
        living, ranking, blocks, no_block = _without_blocks(living, ranking, budget, images, clock)
    cut, gave_way = _cut(living, ranking, budget, dry_run=dry_run, clock=clock)
    repaired = _repaired(living.network, cut, options, images, clock)
    report = cut_report(
        living.network,
        cut,
        ranking.options,
        cost=cost if blocks is None else living.network.cost,
        seconds=clock.seconds,
        architecture=architecture or type(network.model).__name__,
        importance=ranking.importance,
        warnings=(
            *trace_warnings(network),
            *([] if ranking.candidates is None else search_warnings(ranking.candidates)),
            *living.warnings,
            *fallbacks_of(ranking.options.signal, living.network, images.scored_on),
            *([] if repaired is None else repair_warnings(repaired)),
            *no_block,
            *slow_widths(living, cut.widths, options),
            *gave_way,
        ),
    )
    report = dataclasses.replace(
        report,
        repair=repaired,
        importance=chosen_importance(options, data=images.scored_on is not None),
        candidates=ranking.candidates,
        dead=living.report,
        blocks=blocks,
    )
    return PruneResult(cut.model, cut.plan, report, cut.program)


def check_prune(budget: Budget, options: PruneOptions, images: Images) -> None:
    """Raise `InputError` for what a cut cannot do, before any work."""
    check_choices(budget, options, images.scored_on)


def check_choices(budget: Budget, options: PruneOptions, images: object) -> None:
    """Raise what `check_prune` raises; of the images it only matters whether there are any."""
    check_search(options, images)
    check_options(options)
    check_repair(options.repair, images)
    check_importance(options, images)
    check_dead(budget, options)
    check_deletion(budget, options)


def needs_images(options: PruneOptions) -> bool:
    """Tell whether a signal that is asked for looks at images, which takes its time."""
    return any(needs_data(signal) for signal in asked_signals(options))


def check_reachable(living: WithoutDead, budget: Budget, options: PruneOptions) -> None:
    """Raise what `select` raises for a budget that no ranking reaches, before images are looked at.

    All channels count alike here, so that no more groups stay whole than under any signal.
    """
    count = living.network.coupling.atom_count
    alike = dataclasses.replace(options, allocation="uniform")
    select(living.network, np.ones(count), budget, alike, held={}, gone=living.gone)


def check_options(options: PruneOptions) -> None:
    """Raise `InputError` for a name or number that means nothing, before any work."""
    for signal in asked_signals(options):
        check_signal(signal)
    ALLOCATIONS.get(options.allocation)
    AGGREGATES.get(options.aggregate)
    for name, value in (("align", options.align), ("min-width", options.min_width)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below 1", code="BAD_OPTION")


@dataclass(frozen=True)
class _Ranking:
    """What every channel and every group is worth, and the options by which it was found."""

    options: PruneOptions
    saliency: Saliency
    importance: NDArray[np.float64] | None
    candidates: SearchReport | None


def _ranked(
    living: WithoutDead, budget: Budget, options: PruneOptions, images: Images, clock: Clock
) -> _Ranking:
    """Score channels and groups; under `auto` the options get the signal that was found best."""
    batches, candidates = images.scored_on, None
    with clock.stage("score"):
        if options.signal == AUTO and batches is not None:
            candidates, saliency = best_signal(
                living, budget, options, images=images, progress=clock.progress
            )
            options = dataclasses.replace(options, signal=candidates.chosen)
        else:
            found = score_living(
                living, [options.signal], options, batches=batches, progress=clock.progress
            )
            saliency = found[options.signal]
    with clock.stage("importance"):
        importance = importance_of(
            living.network, saliency, options, batches, progress=clock.progress
        )
    return _Ranking(options, saliency, importance, candidates)


def _without_blocks(
    living: WithoutDead, ranking: _Ranking, budget: Budget, images: Images, clock: Clock
) -> tuple[WithoutDead, _Ranking, BlocksReport, tuple[str, ...]]:
    """Leave out the residual blocks that are worth less than the channels in their place."""
    with clock.stage("blocks"):
        found = delete_blocks(
            living.network,
            ranking.saliency,
            budget,
            ranking.options,
            images=images,
            progress=clock.progress,
        )
    atoms = atoms_in(living.network.coupling, found.network.coupling)
    gone = np.append(living.gone, False)[atoms]  # what could not go before is the last
    left = dataclasses.replace(living, network=found.network, gone=gone, dead=None)
    ranked = dataclasses.replace(ranking, saliency=found.saliency, importance=found.importance)
    return left, ranked, found.report, found.warnings


def _cut(
    living: WithoutDead, ranking: _Ranking, budget: Budget, *, dry_run: bool, clock: Clock
) -> tuple[Cut, tuple[str, ...]]:
    """Return the cut, and what had to give way for it.

    Groups whose size is written in what the forward does in training alone stay whole, where that
    makes the cut hold in training and the budget can still be met.
    """
    cut = partial(
        _proven_cut,
        living,
        ranking,
        budget,
        structure=StructureProof(living.network),
        dry_run=dry_run,
        clock=clock,
    )
    first = found = cut({})
    held: dict[str, str] = {}
    while baked := baked_in_training(living.network, found[0].training, found[0].keep):
        held |= baked
        try:
            found = cut(held)
        except PruneError:
            return first
    return found if found[0].training is None or found[0].training.verified else first


def _proven_cut(
    living: WithoutDead,
    ranking: _Ranking,
    budget: Budget,
    held: Mapping[str, str],
    *,
    structure: StructureProof,
    dry_run: bool,
    clock: Clock,
) -> tuple[Cut, tuple[str, ...]]:
    """Return the cut that leaves `held` whole, and what gave way.

    Groups whose cut has no proof stay whole as well.
    """
    network, options = living.network, ranking.options
    ranked = np.where(living.gone, -np.inf, np.nan_to_num(ranking.saliency, nan=np.inf))
    while True:
        with clock.stage("allocate"):
            selection = select(
                network,
                ranking.saliency,
                budget,
                options,
                held=held,
                importance=ranking.importance,
                gone=living.gone,
            )
        keep = keep_mask(network.coupling.groups, ranked, selection.widths)
        cut = planned_cut(
            network,
            keep,
            selection.widths,
            whole=selection.whole,
            budget=budget,
            options=options,
        )
        if dry_run:
            return cut, selection.warnings
        try:
            return proven(network, cut, options, clock, structure), selection.warnings
        except ProofError as error:
            held = newly_held(network, keep, held, error)


def _repaired(
    network: Network, cut: Cut, options: PruneOptions, images: Images, clock: Clock
) -> RepairReport | None:
    """Repair the cut network in place, where that was asked for."""
    if cut.model is None or not options.repair or images.scored_on is None:
        return None
    with clock.stage("repair"), evaluating(cut.model):
        return repair_(
            cut.model,
            network,
            cut.plan,
            cut.keep,
            names=options.repair,
            images=images,
            progress=clock.progress,
        )
