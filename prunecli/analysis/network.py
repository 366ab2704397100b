"""What a network is made of: which groups matter, how small they can get, what is frozen."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import Saliency, allowed_widths, keep_mask
from prunecli.dead import find_dead
from prunecli.evaluation.images import evaluate
from prunecli.importance import IMPORTANCES, Measured, agreements, measure_importance
from prunecli.network.described import frozen_reports
from prunecli.network.layers import analyzed_layers
from prunecli.options import AnalyzeOptions, PruneOptions
from prunecli.preflight.analysis import no_images_to_measure, no_oracle_images
from prunecli.progress import Progress, Step, silent
from prunecli.pruning.deletion import block_reports
from prunecli.pruning.scoring import check_signal, score_network, score_signals
from prunecli.report import (
    GroupAnalysis,
    ImportanceReport,
    ModelAnalysis,
    OracleReport,
    SignalAgreement,
)
from prunecli.signals.oracle import agreement, loss_changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network

COMPARED = (
    "random", "l1", "l2", "bn-gamma", "geometric-median", "mean-activation", "apoz",
    "average-gradient", "mean-replacement", "removal", "taylor", "fisher", "taylor-2019", "obd",
)  # fmt: skip
"""The signals that stand beside the oracle where none are named."""

CUTS = (0.25, 0.5, 0.75)
"""Shares of a group that are cut alone to see how sensitive the network is to it."""


def analyze_network(
    network: Network,
    *,
    options: AnalyzeOptions,
    architecture: str,
    images: ImageSet | None = None,
    input: InputSpec | None = None,  # noqa: A002 - the word for it everywhere here
    batches: BatchSource | None = None,
    progress: Progress = silent,
) -> ModelAnalysis:
    """Return costs, saliencies, dead channels and, with `images`, the sensitivity of all groups."""
    groups, cost = network.coupling.groups, network.cost
    for name in (options.signal, *options.signals):
        check_signal(name)
    choice = PruneOptions(signal=options.signal, aggregate=options.aggregate, seed=options.seed)
    saliency = score_network(network, choice, batches=batches, progress=progress)
    flops, params = cost.share("flops"), cost.share("params")
    widths = allowed_widths(groups, eligible=lambda _: True, align=1, min_width=1)
    smallest = np.asarray([options_[0] for options_ in widths], np.int64)
    lowest = cost.cost(smallest)["flops"] / (cost.dense["flops"] or 1.0)
    accuracy, sensitivity = None, {}
    if images is not None and input is not None:
        whole, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
        accuracy = evaluate(whole, images, input=input).accuracy
        if options.sensitivity:
            sensitivity = _sensitivity(network, saliency, images, input, progress)
    oracle = None
    if options.oracle:
        oracle = _oracle(network, options, choice, batches=batches, progress=progress)
    importance = None
    if options.importance:
        importance = _importance(Measured(network, saliency, batches, progress))
    dead = None
    if not network.trace.recorded:  # a recorded forward cannot be run again
        dead = find_dead(
            network,
            batches=batches,
            threshold=options.dead_threshold,
            seed=options.seed,
            progress=progress,
        ).report
    layers, elsewhere = analyzed_layers(network, saliency)
    return ModelAnalysis(
        architecture=architecture,
        cost=cost.report_dense(),
        groups=tuple(
            GroupAnalysis(
                name=group.name,
                width=group.width,
                minimum=int(smallest[at]),
                flops_share=float(flops[at]),
                params_share=float(params[at]),
                exact=group.exact,
                saliency=_summary(saliency[group.atoms]),
                sensitivity=sensitivity.get(at, ()),
            )
            for at, group in enumerate(groups)
        ),
        frozen=frozen_reports(network),
        prunable_flops=1.0 - lowest,
        lowest_flops=lowest,
        accuracy=accuracy,
        not_counted=cost.not_counted,
        oracle=oracle,
        importance=importance,
        dead=dead,
        layers=layers,
        elsewhere=elsewhere,
        blocks=block_reports(network, network.blocks),
    )


def _oracle(
    network: Network,
    options: AnalyzeOptions,
    choice: PruneOptions,
    *,
    batches: BatchSource | None,
    progress: Progress,
) -> OracleReport:
    """Return the loss change of every channel, and how the signals rank them on the same images."""
    if batches is None:
        raise no_oracle_images()
    start = time.perf_counter()
    signals = tuple(dict.fromkeys(options.signals or COMPARED))
    found = score_signals(network, signals, choice, batches=batches, progress=progress)
    changes = loss_changes(
        network.trace, network.coupling, network.tensors, batches, progress=progress
    )
    groups = network.coupling.groups
    rows = [
        SignalAgreement(name, against, **dataclasses.asdict(agreement(groups, found[name], truth)))
        for against, truth in (("size", np.abs(changes)), ("change", changes))
        for name in signals
    ]
    return OracleReport(
        images=sum(len(labels) for _, labels in batches()),
        channels=len(changes),
        seconds=round(time.perf_counter() - start, 3),
        loss_changes={group.name: tuple(changes[group.atoms].tolist()) for group in groups},
        signals=tuple(rows),
    )


def _importance(measured: Measured) -> ImportanceReport:
    """Return every importance of every group, and how much they agree."""
    if measured.batches is None:
        raise no_images_to_measure()
    start = time.perf_counter()
    found = {name: measure_importance(name, measured) for name in IMPORTANCES.names()}
    groups = measured.network.coupling.groups
    return ImportanceReport(
        images=sum(len(labels) for _, labels in measured.batches()),
        seconds=round(time.perf_counter() - start, 3),
        groups={
            name: {
                group.name: None if np.isnan(value) else float(value)
                for group, value in zip(groups, values, strict=True)
            }
            for name, values in found.items()
        },
        agreement=agreements(found),
    )


def _summary(values: Saliency) -> dict[str, float]:
    if np.isnan(values).any():
        return {}
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": float(values.max()),
    }


def _sensitivity(
    network: Network,
    saliency: Saliency,
    images: ImageSet,
    spec: InputSpec,
    progress: Progress,
) -> dict[int, tuple[Mapping[str, float], ...]]:
    """Return loss and accuracy after cutting shares of each group alone, least salient first."""
    groups = network.coupling.groups
    ranked = np.nan_to_num(saliency, nan=np.inf)
    found: dict[int, list[Mapping[str, float]]] = {}
    total = len(groups) * len(CUTS)
    for at, group in enumerate(groups):
        for share in CUTS:
            progress(Step("sensitivity", at * len(CUTS) + CUTS.index(share), total))
            kept = max(1, round(group.width * (1 - share)))
            if kept == group.width:
                continue
            widths = network.cost.dense_widths.copy()
            widths[at] = kept
            slim, _ = network.graph_network(keep_mask(groups, ranked, widths))
            scores = evaluate(slim, images, input=spec)
            found.setdefault(at, []).append(
                {"cut": share, "loss": scores.loss, "accuracy": scores.accuracy}
            )
    progress(Step("sensitivity", total, total))
    return {at: tuple(rows) for at, rows in found.items()}
