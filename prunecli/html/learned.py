"""The part of a page that is about what models learned of a data set, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.dataset_images import place
from prunecli.html.drawing import drawing
from prunecli.html.parts import Grid, Section, Thumbnails, Tile
from prunecli.pictures import agreement_picture, learned_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.report import HardImage, LearnabilityReport

DRAWN = 4
"""Pairs of runs that are drawn."""


def learned_images(report: LearnabilityReport) -> list[str]:
    """Return the names of the images that `learned_sections` shows."""
    return [image.path for image in (*report.label_errors, *report.hardest)]


def learned_sections(
    report: LearnabilityReport, images: Mapping[str, str], *, folder: str = ""
) -> list[Section]:
    """Return what records of training say; `images` are data URIs of `learned_images`."""
    wrong = {image.path for image in report.label_errors}
    rest = [image for image in report.hardest if image.path not in wrong]
    sections = [_runs(report)]
    if report.pairs:
        sections.append(_agreement(report))
    if report.label_errors:
        text = (
            "No model classified these images correctly at the end. Those that were correct least "
            "often come first. Check their labels, and what else is in the picture."
        )
        part = _shown(report.label_errors, images, folder)
        sections.append(Section("Labels to check", text, (part,)))
    if rest:
        text = (
            "These images were correct least often on average over all runs, but at least one "
            "model learned them in the end."
        )
        shown = _shown(rest, images, folder)
        sections.append(Section("Hardest images", text, (shown,), rank=3))
    return sections


def _runs(report: LearnabilityReport) -> Section:
    rows = tuple(
        (
            run.name,
            run.network,
            f"{run.images:,}",
            str(run.epochs),
            f"{run.learnability:.3f}",
            f"{run.always:,}",
            f"{run.never:,}",
            f"{run.forgetting:.2f}",
        )
        for run in report.runs
    )
    numbers = ("images", "epochs", "learnability", "always correct", "never correct", "forgotten")
    table = Grid(
        ("run", "model", *(f">{name}" for name in numbers)),
        rows,
        "Learnability: the share of epochs after which an image is correct, mean over images. "
        "Forgotten: how often an image is correct after one epoch and wrong after the next.",
    )
    scored = ", ".join(dict.fromkeys(run.scored for run in report.runs))
    text = (
        "Learnability is about which images models learn, and when. "
        "finetune --record-learnability records after every epoch whether each training image is "
        f"classified correctly (here in {scored} mode). Images on the right of the picture were "
        "learned early, images on the left late or never."
    )
    drawn = [drawing(learned_picture, report)] if any(run.levels for run in report.runs) else []
    return Section("Learnability", text, (*drawn, table), rank=1)


def _agreement(report: LearnabilityReport) -> Section:
    names = ("images", "Pearson", "Spearman", "hardest tenth", "Pearson, not always correct")
    rows = tuple(
        (
            f"{pair.first}, {pair.second}",
            f"{pair.images:,}",
            *(
                "" if value is None else f"{value:.3f}"
                for value in (pair.pearson, pair.spearman, pair.overlap, pair.pearson_wrong)
            ),
        )
        for pair in report.pairs
    )
    table = Grid(
        ("runs", *(f">{name}" for name in names)),
        rows,
        "Hardest tenth: the share of images that the hardest tenths of both runs have in common. "
        "Not always correct: without images that were correct after every epoch in both runs.",
    )
    drawn = [pair for pair in report.pairs if pair.counts][:DRAWN]
    rest = (
        f" Shown: the first {DRAWN} of {len(report.pairs)} pairs."
        if len(report.pairs) > DRAWN
        else ""
    )
    text = (
        "Each picture counts images by their learnability in two runs, darker for more on a "
        "logarithmic scale. If two runs find the same images hard, the dark cells lie along the "
        f"line.{rest}"
    )
    drawings = [drawing(agreement_picture, pair) for pair in drawn]
    return Section("Agreement between runs", text, (*drawings, table))


def _shown(
    images: Sequence[HardImage], addresses: Mapping[str, str], folder: str
) -> Grid | Thumbnails:
    """Return images with their classes, or a table of them where none can be shown."""
    if not addresses.keys() & {image.path for image in images}:
        rows = tuple(
            (place(image.path, folder), image.name, f"{image.learnability:.3f}") for image in images
        )
        return Grid(("image", "class", ">learnability"), rows)
    return Thumbnails(
        tuple(
            (
                Tile(
                    addresses.get(image.path, ""),
                    f"an image of {image.name} that was correct after {image.learnability:.0%} of "
                    "the epochs",
                    f"{image.name}, {image.learnability:.0%}",
                    place(image.path, folder),
                ),
            )
            for image in images
        )
    )
