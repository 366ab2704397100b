"""The page of several models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.evaluation.compared import compared_rows, preparations
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.page import page
from prunecli.html.parts import Facts, Grid, Section
from prunecli.html.words import place_text
from prunecli.wording import counted, images_text

if TYPE_CHECKING:
    from prunecli.report import CompareReport


def compare_page(report: CompareReport) -> str:
    """Return the page of a comparison."""
    names = [model.name for model in report.models]
    rows = tuple((label.strip(), *cells) for label, cells in compared_rows(report))
    caption = f"Ratios are to {names[0]}. Intervals are 95 % intervals."
    first = report.models[0]
    facts = {
        "compared with": first.name,
        "images": compared_on(report),
        **preparations(report),
        **{model.name: place_text(model.file) for model in report.models},
    }
    missing = {model.name: "; ".join(model.missing) for model in report.models if model.missing}
    sections = [
        Section(
            "Side by side",
            "Every model is compared with the first one.",
            (Grid(("", *names), rows, caption), Facts(facts)),
            rank=1,
        ),
        *([Section("What could not be told", "", (Facts(missing),))] if missing else []),
        *warning_sections(report.warnings),
    ]
    title = f"{counted(len(names), 'model')} side by side"
    return page(title, sections, made_by=made_by("compare"))


def compared_on(report: CompareReport) -> str:
    """Say what agreement and scores are from."""
    if report.data is None:
        return f"{report.images:,} random inputs"
    return f"{report.images:,} {images_text(report.split)} of {place_text(report.data)}"
