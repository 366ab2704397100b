"""Loss and accuracy against cost: a network cut to many budgets by several signals, unproven."""

from __future__ import annotations

import dataclasses
import time
from itertools import product
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.evaluation.batches import CALIBRATION
from prunecli.importance import check_importance, importance_of
from prunecli.preflight.pruning import AUTO, BY_IMPORTANCE, CONTROL, no_sweep_images
from prunecli.progress import Progress, Step, silent
from prunecli.pruning.road import check_options
from prunecli.pruning.scoring import score_signals
from prunecli.pruning.search import asked_signals
from prunecli.pruning.trial import dense_trial, try_cut
from prunecli.repair import check_repair
from prunecli.report import SweepReport, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.allocation import Saliency
    from prunecli.budget import Sweep
    from prunecli.evaluation.batches import Images
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

BEARABLE = 0.01
"""The loss of accuracy up to which the cheapest cut is suggested."""


def sweep_network(
    network: Network,
    sweep: Sweep,
    *,
    signals: Sequence[str],
    allocations: Sequence[str],
    options: PruneOptions,
    images: Images,
    architecture: str = "",
    progress: Progress = silent,
) -> SweepReport:
    """Cut to every budget by every signal and allocation, and by random channels, and score it.

    `signals` and `allocations` stand for those of `options`; `auto` among the signals stands for
    all candidates. The network is read and its signals are computed once.
    """
    start = time.perf_counter()
    batches, judged_on = images.scored_on, images.judged_on
    if batches is None or judged_on is None:
        raise no_sweep_images()
    names = sweep_signals(signals, options)
    ways = [
        dataclasses.replace(options, signal=signal, allocation=allocation, candidates=())
        for allocation, signal in product(dict.fromkeys(allocations), names)
    ]
    for way in ways:
        check_options(way)
    check_repair(options.repair, batches)
    _check_choices(signals, ways, options)
    dense = dense_trial(network, judged_on)
    assert dense.score is not None
    total = len(sweep.budgets) * len(ways)
    announced: dict[str, float | str] = {
        "images": float(dense.score.images),
        "about": f"{dense.seconds * total:.0f} s",
    }
    if options.repair:
        announced["and"] = "repairs"
    progress(Step("sweep", 0, total, announced))
    saliencies = score_signals(network, names, options, batches=batches, progress=progress)
    trials = _tried(network, sweep, ways, saliencies, images=images, progress=progress)
    return SweepReport(
        architecture=architecture,
        kind=sweep.kind,
        cost=network.cost.report_dense(),
        dense=dense,
        trials=tuple(trials),
        images=dense.score.images,
        measured=images.measured,
        repair=options.repair,
        suggested=_suggested(dense, trials, sweep.kind),
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(_warnings(trials, images)),
    )


def _check_choices(
    signals: Sequence[str], ways: Sequence[PruneOptions], options: PruneOptions
) -> None:
    """Raise `InputError` for candidates without `auto`, or an importance that no way looks at."""
    if options.candidates and AUTO not in signals:
        raise InputError(
            "candidates were named, and the signal auto was not",
            code="BAD_OPTION",
            hint="name them all as signals (--signal a,b), or add auto",
        )
    if options.importance is not None:
        uses = [way for way in ways if way.allocation in BY_IMPORTANCE]
        for way in uses or ways[:1]:
            check_importance(way, ())


def sweep_signals(signals: Sequence[str], options: PruneOptions) -> tuple[str, ...]:
    """Return the signals that a sweep compares, once each, random channels last."""
    auto = asked_signals(dataclasses.replace(options, signal=AUTO))
    named = [name for signal in signals for name in (auto if signal == AUTO else (signal,))]
    rest = dict.fromkeys(name for name in named if name != CONTROL)
    return (*rest, CONTROL)


def _tried(
    network: Network,
    sweep: Sweep,
    ways: Sequence[PruneOptions],
    saliencies: Mapping[str, Saliency],
    *,
    images: Images,
    progress: Progress,
) -> list[Trial]:
    """Return the trials of every budget, one for each way of choosing channels."""
    trials = []
    importances = {
        way: importance_of(network, saliencies[way.signal], way, images.scored_on) for way in ways
    }
    for budget, way in product(sweep.budgets, ways):
        tried = try_cut(
            network,
            saliencies[way.signal],
            budget=budget,
            options=way,
            images=images,
            importance=importances[way],
            progress=progress,
        )
        trials.append(tried)
        facts = {} if tried.final is None else {"accuracy": tried.final.accuracy}
        done, total = len(trials), len(sweep.budgets) * len(ways)
        progress(Step("sweep", done, total, {"signal": way.signal, **facts}))
    return trials


def _suggested(dense: Trial, trials: Sequence[Trial], kind: str) -> Trial | None:
    assert dense.score is not None
    able = [
        (trial.final.accuracy, trial)
        for trial in trials
        if trial.final is not None and trial.signal != CONTROL
    ]
    good = [
        (trial.kept[kind], -accuracy, at)
        for at, (accuracy, trial) in enumerate(able)
        if accuracy >= dense.score.accuracy - BEARABLE
    ]
    if good:
        return able[min(good)[2]][1]
    return max(able, key=lambda item: item[0])[1] if able else None


def _warnings(trials: Sequence[Trial], images: Images) -> list[str]:
    said = []
    missed = sum(trial.score is None for trial in trials)
    if missed:
        first = next(trial.problem for trial in trials if trial.score is None)
        said.append(f"{missed} of {len(trials)} cuts could not be made, such as: {first}")
    if images.measured == CALIBRATION:
        said.append(
            "the cuts were measured on the images that their channels had been chosen on, because "
            "there were no others"
        )
    return said
