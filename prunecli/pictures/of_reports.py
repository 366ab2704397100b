"""The pictures that go with the report of a verb, by name."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from prunecli.pictures import (
    agreement_picture,
    balance_picture,
    class_map_picture,
    difficulty_picture,
    layers_picture,
    learned_picture,
    oracle_picture,
    reduction_picture,
    relation_picture,
    sensitivity_picture,
    similarity_picture,
    spectrum_picture,
)
from prunecli.pictures.candidates import candidates_picture
from prunecli.pictures.courses import course_picture, widths_picture
from prunecli.pictures.layers import kept_picture, weights_picture
from prunecli.pictures.runs import run_picture
from prunecli.pictures.saving import Picture
from prunecli.pictures.sweeps import sweep_picture
from prunecli.pictures.timings import benchmark_picture, latency_picture
from prunecli.pictures.training import removals_picture, training_picture
from prunecli.report import ExportReport, FinetuneReport, PruneReport, SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.options import AnalyzeOptions
    from prunecli.report import AnalyzeReport, DatasetAnalysis, ModelAnalysis


@singledispatch
def pictures_of(report: Any) -> dict[str, Picture]:
    """Return the pictures of a report by name; nothing for what it does not hold."""
    raise NotImplementedError(type(report).__name__)


@pictures_of.register
def _(report: PruneReport) -> dict[str, Picture]:
    found = {}
    if report.sparsity is not None:
        found["layers"] = weights_picture(report.sparsity, report.architecture)
    elif report.layers:
        found["layers"] = kept_picture(report)
    if report.iterative is not None and report.iterative.removals:
        found["removals"] = removals_picture(report.iterative)
    if report.learning is not None and report.learning.course:
        found["course"] = course_picture(report)
        if report.learning.searched:
            found["widths"] = widths_picture(report)
    if report.latency is not None:
        found["latency"] = latency_picture(report.latency)
    if report.candidates is not None:
        found["candidates"] = candidates_picture(report.candidates)
    return found


@pictures_of.register
def _(report: SweepReport) -> dict[str, Picture]:
    return {"sweep": sweep_picture(report)}


@pictures_of.register
def _(report: FinetuneReport) -> dict[str, Picture]:
    found = {"training": training_picture(report)}
    if report.history:
        found["run"] = run_picture(report.history)
    if report.sparsity is not None:
        found["layers"] = weights_picture(report.sparsity, report.architecture)
    return found


@pictures_of.register
def _(report: ExportReport) -> dict[str, Picture]:
    found = {"run": run_picture(report.history)} if report.history else {}
    if report.benchmark:
        found["benchmark"] = benchmark_picture(report.benchmark)
    return found


OF_MODEL: dict[str, Callable[[ModelAnalysis], Picture]] = {
    "layers": layers_picture,
    "sensitivity": sensitivity_picture,
    "oracle": oracle_picture,
}

OF_DATA: dict[str, Callable[[DatasetAnalysis], Picture]] = {
    "class-map": class_map_picture,
    "similarity": similarity_picture,
    "difficulty": difficulty_picture,
    "balance": balance_picture,
    "spectrum": spectrum_picture,
    "reduction": reduction_picture,
}

PAIRS = 4
"""Pairs of runs whose agreement is drawn."""


def picture_names(options: AnalyzeOptions, *, model: bool, data: bool) -> list[str]:
    """Return the names of the pictures that an analysis may give, before it is made."""
    with_both = model and data
    asked = {
        **dict.fromkeys(OF_DATA, data),
        "layers": model,
        "sensitivity": with_both and options.sensitivity,
        "oracle": with_both and options.oracle,
        "reduction": data and options.complexity.reduce,
        "expected-error": data,
        "learned": bool(options.learnability),
    }
    runs = len(options.learnability)
    pairs = min(runs * (runs - 1) // 2, PAIRS)
    return [name for name, wanted in asked.items() if wanted] + _agreements(pairs)


def analysis_pictures(report: AnalyzeReport, options: AnalyzeOptions) -> dict[str, Picture]:
    """Return the pictures of an analysis by name: `options` say which of them were asked for."""
    model, dataset, learned = report.model, report.dataset, report.learnability
    names = picture_names(options, model=model is not None, data=dataset is not None)
    found: dict[str, Picture] = {}
    if model is not None:
        found |= {name: draw(model) for name, draw in OF_MODEL.items() if name in names}
    if dataset is not None:
        found |= {name: draw(dataset) for name, draw in OF_DATA.items() if name in names}
        expected = dataset.expected
        if expected is not None and expected.error is not None and expected.relation is not None:
            classes = len(dataset.difficulty)
            found["expected-error"] = relation_picture(expected.relation, expected, classes=classes)
    if learned is not None:
        found["learned"] = learned_picture(learned)
        pairs = learned.pairs[:PAIRS]
        agreements = map(agreement_picture, pairs)
        found |= dict(zip(_agreements(len(pairs)), agreements, strict=True))
    return found


def _agreements(pairs: int) -> list[str]:
    return [f"agreement-{at}" for at in range(1, pairs + 1)]
