"""What `prune` takes for options that nobody gave, once it is known whether there are images.

With images a one-shot cut of channels takes the recipe (`options.RECIPE`); as soon as its signal,
its allocation or its repair is named, the others keep their plain defaults. Where the recipe cannot
be followed the plain defaults are taken, and the report says why.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prunecli.errors import GateError, GraphError, PruneError
from prunecli.evaluation.batches import NO_IMAGES, Images
from prunecli.evaluation.scores import UnscorableError
from prunecli.methods.auto import method_for
from prunecli.options import RECIPE, PruneOptions
from prunecli.options.declare import assembled, followed_by
from prunecli.options.methods import ONE_SHOT
from prunecli.options.prune import CHANNEL
from prunecli.options.shared import AGGREGATE
from prunecli.pruning.road import PruneResult
from prunecli.pruning.timed import prune_timed
from prunecli.repair import check_repairable
from prunecli.report import ChoiceReport
from prunecli.sparse.road import SparseResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.architectures.reference import InputSpec
    from prunecli.budget import Budget
    from prunecli.network.traced import Network
    from prunecli.progress import Clock

Result = TypeVar("Result", PruneResult, SparseResult)

NAMED = "named"
WITH_IMAGES = "default with images"


@dataclass(frozen=True)
class Chosen:
    """The options to prune by, and why; `plain` are those to fall back to from the recipe."""

    options: PruneOptions
    choice: ChoiceReport
    plain: PruneOptions | None = None


def choose(options: PruneOptions, budget: Budget | None, *, images: bool) -> Chosen:
    """Return the options with everything decided that nobody gave; a pure function.

    `images` tells whether there are any. Budgets of milliseconds, methods that train, and single
    weights keep their own defaults.
    """
    method, why_method = _method(options, budget)
    if method != options.method:
        options = assembled(PruneOptions, {"method": method}, options)
    choice = ChoiceReport(method, why_method, options.repair)
    if method != ONE_SHOT or options.granularity != CHANNEL:
        return Chosen(options, choice)
    why = next(_against(options, budget, images=images), None)
    if why is not None:
        return Chosen(options, dataclasses.replace(choice, why=why))
    taken = assembled(PruneOptions, RECIPE, options)
    choice = dataclasses.replace(choice, repair=taken.repair, why=WITH_IMAGES)
    return Chosen(taken, choice, plain=options)


def _method(options: PruneOptions, budget: Budget | None) -> tuple[str, str]:
    """Return the method and why it is that one."""
    if "method" not in followed_by(options):
        return options.method, NAMED
    epochs = options.training.epochs
    if epochs is None:
        return ONE_SHOT, "default without training"
    for asked, what in (
        (options.granularity != CHANNEL, "single weights"),
        (options.dead, "dead channels"),
        (_in_milliseconds(budget), "a budget of milliseconds"),
    ):
        if asked:
            return ONE_SHOT, f"default with {what}"
    kept = budget.limits[0].fraction if budget is not None and budget.limits else None
    found = method_for(epochs, kept)
    of = f"{epochs} epoch" if epochs == 1 else f"{epochs} epochs"
    if found == ONE_SHOT:
        return found, f"default with {of}: no measurement favours another method"
    return found, f"default with {of}: measured to be better there"


def _against(options: PruneOptions, budget: Budget | None, *, images: bool) -> Iterator[str]:
    """Yield what speaks against the recipe."""
    if not RECIPE.keys() <= set(followed_by(options)):
        yield NAMED
    if not images:
        yield "default without images"
    if budget is None or not budget.limits:
        yield "default without a budget"
    if _in_milliseconds(budget):
        yield "default with a budget of milliseconds"
    if options.aggregate != AGGREGATE:
        yield f"default with --aggregate {options.aggregate}"


def _in_milliseconds(budget: Budget | None) -> bool:
    return budget is not None and any(limit.kind == "latency" for limit in budget.limits)


def prune_chosen(
    network: Network,
    chosen: Chosen,
    *,
    budget: Budget,
    images: Images = NO_IMAGES,
    clock: Clock,
    input: InputSpec | None = None,  # noqa: A002 - the word that a network's input goes by
    dry_run: bool = False,
    architecture: str = "",
) -> PruneResult:
    """Cut a network as was chosen; by the plain defaults where the recipe does not work for it.

    That is so where the network cannot be repaired, where what its signal sees is not enough for
    the budget, and where outputs have no loss. Raises what `prune_timed` raises.
    """

    def cut(options: PruneOptions) -> PruneResult:
        return prune_timed(
            network,
            input=input,
            budget=budget,
            options=options,
            images=images,
            dry_run=dry_run,
            architecture=architecture,
            clock=clock,
        )

    if chosen.plain is None:
        return told(cut(chosen.options), chosen.choice)
    try:
        check_repairable(network)
        return told(cut(chosen.options), chosen.choice)
    except (GraphError, GateError, UnscorableError) as error:
        problem = error
    return told(cut(chosen.plain), *_fallen(chosen, chosen.plain, problem))


def _fallen(chosen: Chosen, plain: PruneOptions, problem: PruneError) -> tuple[ChoiceReport, str]:
    """Return the choice of the plain defaults in place of the recipe, and a warning about it."""
    choice = dataclasses.replace(
        chosen.choice, repair=plain.repair, why="default where the one for images does not work"
    )
    recipe = ", ".join(_names(chosen.options))
    return choice, f"{', '.join(_names(plain))} instead of {recipe}: {problem.message}"


def _names(options: PruneOptions) -> tuple[str, ...]:
    return (options.signal, options.allocation, *options.repair)


def told(result: Result, choice: ChoiceReport, *warnings: str) -> Result:
    """Return a result whose report says what was chosen."""
    report = dataclasses.replace(
        result.report, choice=choice, warnings=(*warnings, *result.report.warnings)
    )
    return dataclasses.replace(result, report=report)
