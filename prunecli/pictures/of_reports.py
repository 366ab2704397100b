"""The pictures that go with the report of a verb, by name."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from prunecli.pictures.candidates import candidates_picture
from prunecli.pictures.layers import kept_picture, weights_picture
from prunecli.pictures.runs import run_picture
from prunecli.pictures.saving import Picture
from prunecli.pictures.sweeps import sweep_picture
from prunecli.pictures.timings import benchmark_picture, latency_picture
from prunecli.pictures.training import removals_picture, training_picture
from prunecli.report import ExportReport, FinetuneReport, PruneReport, SweepReport

NAMES = {
    "prune": ("layers", "removals", "latency", "candidates"),
    "sweep": ("sweep",),
    "finetune": ("training", "run", "layers"),
    "export": ("benchmark", "run"),
}
"""What a verb may draw; which of them it draws depends on what it was asked."""


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
