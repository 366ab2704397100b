"""`--signal auto`: cut by several signals at the asked budget, and take the one with least loss."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from prunecli.errors import GateError, PruneError
from prunecli.evaluation.batches import CALIBRATION, Images, count_images, first_images
from prunecli.importance import importance_of
from prunecli.preflight.pruning import AUTO, CONTROL
from prunecli.progress import Progress, Step, silent
from prunecli.pruning.scoring import score_living
from prunecli.pruning.selection import select
from prunecli.pruning.trial import dense_trial, try_cut
from prunecli.report import SearchReport, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.allocation import Saliency
    from prunecli.budget import Budget
    from prunecli.dead.removal import WithoutDead
    from prunecli.options import PruneOptions

CANDIDATES = (
    "l1", "magnitude", "geometric-median", "taylor", "taylor-share", "fisher", "mean-replacement",
    "removal",
)  # fmt: skip
"""The signals that are tried where none are named: of the weights, and of one forward and backward
over the images; `CONTROL` is always tried beside them."""

REPAIRED_ON = 256
"""Images that a repair may look at in a trial; the network that is written gets all of them."""

SCORING = 4.0
"""What one pass for all of `CANDIDATES` takes, in plain forwards (3.0 to 3.4 on ResNet-56)."""


def asked_signals(options: PruneOptions) -> tuple[str, ...]:
    """Return the signals that have to be computed: one, or all candidates with the control."""
    if options.signal != AUTO:
        return (options.signal,)
    return tuple(dict.fromkeys((*(options.candidates or CANDIDATES), CONTROL)))


def best_signal(
    living: WithoutDead,
    budget: Budget,
    options: PruneOptions,
    *,
    images: Images,
    progress: Progress = silent,
) -> tuple[SearchReport, Saliency]:
    """Return the trials of all candidates with the best one named, and its saliencies.

    What the user will get is compared: with `options.repair` the loss after it. All saliencies are
    computed in one pass over `images.scored_on`; the loss is that of `images.judged_on`. Atoms that
    are gone from `living` go first. Raises `GateError` (`INFEASIBLE_BUDGET`) where no candidate
    reaches the budget.
    """
    start = time.perf_counter()
    network, names = living.network, asked_signals(options)
    batches, judged_on = images.scored_on, images.judged_on
    assert batches is not None
    assert judged_on is not None
    dense = dense_trial(network, judged_on)
    assert dense.score is not None
    announced: dict[str, float | str] = {
        "images": float(dense.score.images),
        "about": f"{_seconds(dense, scored=count_images(batches), candidates=len(names)):.0f} s",
    }
    if options.repair:
        announced["and"] = "repairs"
    stage = f"try {len(names)} signals"
    progress(Step(stage, 0, len(names), announced))
    saliencies = score_living(living, names, options, batches=batches, progress=progress)
    tried_on = Images(lambda: first_images(batches, REPAIRED_ON), judged_on)
    trials: list[Trial] = []
    for name in names:
        tried = try_cut(
            network,
            saliencies[name],
            budget=budget,
            options=dataclasses.replace(options, signal=name),
            images=tried_on,
            importance=importance_of(network, saliencies[name], options, batches),
            gone=living.gone,
            progress=progress,
        )
        trials.append(tried)
        facts = {} if tried.final is None else {"accuracy": tried.final.accuracy}
        progress(Step(stage, len(trials), len(names), {"signal": name, **facts}))
    best = least_loss(trials)
    if best is None:
        raise _out_of_reach(living, saliencies[names[0]], budget, options, trials[0])
    report = SearchReport(
        chosen=best.signal,
        dense=dense,
        trials=tuple(trials),
        images=dense.score.images,
        measured=images.measured,
        seconds=round(time.perf_counter() - start, 3),
    )
    return report, saliencies[best.signal]


def _out_of_reach(
    living: WithoutDead, saliency: Saliency, budget: Budget, options: PruneOptions, first: Trial
) -> GateError:
    """Return the error that no candidate reaches the budget, with what keeps the first from it."""
    where = None
    try:
        named = dataclasses.replace(options, signal=first.signal)
        select(living.network, saliency, budget, named, held={}, gone=living.gone)
    except PruneError as error:
        where = error.where
    return GateError(
        f"no candidate reaches the budget: {first.problem}",
        code="INFEASIBLE_BUDGET",
        where=where,
        hint="ask for more, or name other signals with --candidates",
    )


def least_loss(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the least calibrated loss of what the user would get, if any has one.

    The plain loss would prefer a collapsed network that is sure of nothing to one that is right in
    half of the cases and too sure of the rest: right after a cut, logits are out of scale.
    """
    found = [
        (trial.final.calibrated, at) for at, trial in enumerate(trials) if trial.final is not None
    ]
    finite = [(loss, at) for loss, at in found if math.isfinite(loss)]
    return trials[min(finite)[1]] if finite else None


def search_warnings(search: SearchReport) -> list[str]:
    """Say what speaks against the choice: random did best, or the images had been seen before."""
    said = []
    others = least_loss([trial for trial in search.trials if trial.signal != CONTROL])
    control = next(trial for trial in search.trials if trial.signal == CONTROL)
    if search.chosen == CONTROL:
        rest = "no other candidate reaches the budget" if others is None else _figures(others)
        said.append(
            f"{_figures(control)}; {rest}: no candidate tells the channels apart here, and random "
            "ones were cut"
        )
    if search.measured == CALIBRATION:
        said.append(
            "the candidates were measured on the images that they had been scored on, because "
            "there were no others"
        )
    return said


def _figures(trial: Trial) -> str:
    assert trial.final is not None
    loss, accuracy = trial.final.calibrated, trial.final.accuracy
    return f"{trial.signal} has a calibrated loss of {loss:.4f} and {accuracy:.1%} accuracy"


def _seconds(dense: Trial, *, scored: int, candidates: int) -> float:
    """Estimate the whole search from the seconds that one pass of the dense network took."""
    assert dense.score is not None
    passes = candidates + SCORING * scored / dense.score.images
    return dense.seconds * passes
