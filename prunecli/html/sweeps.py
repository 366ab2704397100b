"""The page of a sweep: one model pruned to many budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_quantity
from prunecli.cost.kinds import cost_label
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.drawing import drawing
from prunecli.html.page import page
from prunecli.html.parts import Bar, Cell, Facts, Grid, Numbers, Part, Section
from prunecli.html.words import command_fact
from prunecli.pictures import sweep_picture
from prunecli.wording import images_text, percent

if TYPE_CHECKING:
    from prunecli.report import SweepReport, Trial


def sweep_page(report: SweepReport, *, command: str = "") -> str:
    """Return the page of a sweep, as `command` made it."""
    dense, suggested = report.dense.score, report.suggested
    leading = []
    facts = {"model": report.architecture, "repair": ", ".join(report.repair) or "none"}
    if suggested is not None and suggested.final is not None:
        kept = f"at {percent(suggested.kept.get(report.kind))} of the {cost_label(report.kind)}"
        by = f"{suggested.signal}, {suggested.allocation}"
        accuracy = percent(suggested.final.accuracy)
        leading.append((accuracy, "accuracy of the suggestion", f"{by}, {kept}"))
        facts["suggestion"] = f"{by}: accuracy {accuracy} {kept}"
    if dense is not None:
        leading.append((percent(dense.accuracy), "accuracy of the original", ""))
    figures = [
        (format_quantity(report.cost.flops), "FLOPs", "of the original model"),
        (format_quantity(report.cost.params), "parameters", "of the original model"),
    ]
    numbers = Numbers((*leading, *figures), leading=len(leading))
    parts: list[Part] = [numbers, drawing(sweep_picture, report)]
    if report.next_command:
        facts["next command"] = report.next_command
    facts["written to"] = "no model: a sweep only measures"
    facts |= command_fact(command)
    trials = (report.dense, *report.trials)
    grid = trials_grid(trials, repaired=bool(report.repair), kind=report.kind)
    text = (
        f"The model is pruned to several budgets of {cost_label(report.kind)} and scored on "
        f"{report.images:,} {images_text(report.measured)}, without fine-tuning. These trials are "
        "not verified. A model written by prune is."
    )
    sections = [
        Section("Accuracy against cost", text, (*parts, Facts(facts)), rank=1),
        *warning_sections(report.warnings),
        Section("All trials", "", (grid,)),
    ]
    title = f"{report.architecture}: what pruning costs"
    return page(title, sections, made_by=made_by("prune --sweep"))


def trials_grid(trials: tuple[Trial, ...], *, repaired: bool, kind: str = "flops") -> Grid:
    """Return a table with one row per trial, the original model first.

    `kind` is the cost whose budget is shown.
    """
    failed = any(trial.problem for trial in trials)
    rows: list[tuple[Cell, ...]] = []
    for trial in trials:
        score, final = trial.score, trial.final
        asked = trial.budget.get(kind, {}).get("fraction")
        rows.append(
            (
                "" if asked is None else percent(asked),
                "original" if trial is trials[0] else trial.signal,
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
        ">budget", "criterion", "allocation", ">FLOPs", ">parameters", ">loss", ">calibrated loss",
        "accuracy", *([">repaired"] * repaired), *(["not pruned because"] * failed),
    )  # fmt: skip
    caption = (
        "budget, FLOPs, parameters: shares kept; calibrated loss: the lowest loss when all logits "
        "are divided by one temperature"
    )
    return Grid(header, tuple(rows), caption)
