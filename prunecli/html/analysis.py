"""The page of `analyze`."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from prunecli.html.dataset_images import dataset_images
from prunecli.html.datasets import dataset_sections, dataset_title
from prunecli.html.learned import learned_images, learned_sections
from prunecli.html.masks import mask_sections
from prunecli.html.models import model_sections, model_title
from prunecli.html.page import page
from prunecli.html.parts import Facts, Grid, Section
from prunecli.html.thumbnails import thumbnails
from prunecli.html.words import command_fact
from prunecli.progress import Progress, silent

if TYPE_CHECKING:
    from prunecli.data import DataSource
    from prunecli.report import AnalyzeReport


def analysis_page(
    report: AnalyzeReport,
    source: DataSource | None,
    *,
    command: str = "",
    progress: Progress = silent,
) -> str:
    """Return the page of an analysis, as `command` made it.

    Images that it shows are read from `source` anew.
    """
    model, dataset, learned = report.model, report.dataset, report.learnability
    names = [] if dataset is None else dataset_images(dataset)
    names += [] if learned is None else learned_images(learned)
    images = {} if source is None else thumbnails(source, names, progress=progress)
    sections: list[Section] = [] if model is None else model_sections(model)
    if dataset is not None:
        sections += dataset_sections(dataset, images)
    if report.masks is not None:
        sections += mask_sections(report.masks)
    if learned is not None:
        folder = "" if dataset is None else dataset.path
        sections += learned_sections(learned, images, folder=folder)
    first, *rest = sections
    titles = [] if model is None else [model_title(model)]
    titles += [] if dataset is None else [dataset_title(dataset)]
    titles += [] if report.masks is None else [f"{report.masks.path}: images with masks"]
    title = "; ".join(titles) or "What models learned"
    found = [_with_command(first, command), *warning_sections(report.warnings), *rest]
    return page(title, found, made_by=made_by("analyze"))


def _with_command(section: Section, command: str) -> Section:
    """Return a section whose facts end with the command."""
    *parts, last = section.parts
    facts = last.rows if isinstance(last, Facts) else {}
    parts += [] if isinstance(last, Facts) else [last]
    return replace(section, parts=(*parts, Facts({**facts, **command_fact(command)})))


def warning_sections(warnings: tuple[str, ...]) -> list[Section]:
    """Return a section of warnings, if there are any."""
    rows = tuple((warning,) for warning in warnings)
    return [Section("Warnings", "", (Grid(("warning",), rows),), rank=3)] if rows else []


def made_by(verb: str) -> str:
    """Return what stands at the end of a page."""
    return (
        f"Made by prunecli {version('prunecli')}, {verb}. A self-contained file: it works offline."
    )
