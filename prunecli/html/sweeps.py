"""The page of a sweep: many cuts beside one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_quantity
from prunecli.cost.kinds import cost_label
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.page import page
from prunecli.html.parts import Bar, Cell, Drawing, Facts, Grid, Numbers, Part, Section
from prunecli.html.words import command_fact, images_text, percent
from prunecli.pictures import sweep_picture

if TYPE_CHECKING:
    from prunecli.report import SweepReport, Trial


def sweep_page(report: SweepReport, *, command: str = "") -> str:
    """Return the page of a sweep, as `command` made it."""
    dense = report.dense.score
    figures = [
        (format_quantity(report.cost.flops), "FLOPs", "of the dense network"),
        (format_quantity(report.cost.params), "parameters", ""),
    ]
    if dense is not None:
        figures.append((percent(dense.accuracy), "accuracy", "of the dense network"))
    parts: list[Part] = [Numbers(tuple(figures)), Drawing(sweep_picture(report))]
    facts = {"model": report.architecture, "repair": ", ".join(report.repair) or "none"}
    if report.suggested is not None and report.suggested.final is not None:
        taken = report.suggested
        facts["suggested"] = (
            f"{taken.signal}, {taken.allocation}: {percent(taken.kept.get(report.kind))} of the "
            f"{cost_label(report.kind)}, accuracy {percent(report.suggested.final.accuracy)}"
        )
    if report.next_command:
        facts["command for it"] = report.next_command
    facts["written"] = "no network: a sweep only measures"
    facts |= command_fact(command)
    trials = (report.dense, *report.trials)
    grid = trials_grid(trials, repaired=bool(report.repair), kind=report.kind)
    text = (
        f"The network is cut to many budgets of {cost_label(report.kind)} and scored on "
        f"{report.images:,} {images_text(report.measured)}, without training. The trials are not "
        "proven; what prune writes is."
    )
    sections = [
        Section("Accuracy against cost", text, (*parts, Facts(facts))),
        *warning_sections(report.warnings),
        Section("All trials", "", (grid,)),
    ]
    title = f"{report.architecture}: what a cut costs"
    return page(title, sections, made_by=made_by("prune --sweep"))


def trials_grid(trials: tuple[Trial, ...], *, repaired: bool, kind: str = "flops") -> Grid:
    """Return a table with one row per trial; `kind` is the cost whose budget is shown."""
    failed = any(trial.problem for trial in trials)
    rows: list[tuple[Cell, ...]] = []
    for trial in trials:
        score, final = trial.score, trial.final
        asked = trial.budget.get(kind, {}).get("fraction")
        rows.append(
            (
                "" if asked is None else percent(asked),
                trial.signal,
                trial.allocation,
                percent(trial.kept.get("flops")),
                percent(trial.kept.get("params")),
                "" if score is None else f"{score.loss:.4f}",
                "" if final is None else f"{final.calibrated:.4f}",
                Bar(score.accuracy, percent(score.accuracy)) if score is not None else "",
                *([percent(trial.repaired.accuracy if trial.repaired else None)] * repaired),
                *([trial.problem] * failed),
            )
        )
    header = (
        ">asked", "signal", "allocation", ">FLOPs", ">parameters", ">loss", ">calibrated loss",
        "accuracy", *([">repaired"] * repaired), *(["not cut because"] * failed),
    )  # fmt: skip
    caption = (
        "asked: the share to keep; calibrated loss: the least when all logits are divided by one "
        "number"
    )
    return Grid(header, tuple(rows), caption)
