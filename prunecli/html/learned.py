"""The part of a page that is about what networks learned of a data set, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.dataset_images import place
from prunecli.html.parts import Drawing, Grid, Section, Thumbnails, Tile
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
            "No network had these right at the end; those that were right least often come first. "
            "Look at their labels, and at what else is in the picture."
        )
        part = _shown(report.label_errors, images, folder)
        sections.append(Section("Labels to look at", text, (part,)))
    if rest:
        text = "Right least often, the mean over all runs, but learned in the end by one of them."
        sections.append(Section("The hardest images", text, (_shown(rest, images, folder),)))
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
    numbers = ("images", "epochs", "learnability", "always right", "never right", "forgotten")
    table = Grid(
        ("run", "network", *(f">{name}" for name in numbers)),
        rows,
        "Learnability: the share of epochs after which an image was right, mean over images. "
        "Forgotten: how often an image was right after an epoch and wrong after the next.",
    )
    scored = ", ".join(dict.fromkeys(run.scored for run in report.runs))
    text = (
        "Whether each training image was right after each epoch, as finetune --record-learnability "
        f"wrote it down (images looked at in {scored} mode). Images on the right of the picture "
        "were learned early, those on the left late or never."
    )
    drawing = [Drawing(learned_picture(report))] if any(run.levels for run in report.runs) else []
    return Section("What networks learned, and when", text, (*drawing, table))


def _agreement(report: LearnabilityReport) -> Section:
    names = ("images", "Pearson", "Spearman", "hardest tenth", "Pearson, not always right")
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
        "Hardest tenth: the share that the hardest tenths of the images have in common. Not always "
        "right: without images that both runs had right after every epoch.",
    )
    drawn = [pair for pair in report.pairs if pair.counts][:DRAWN]
    rest = f" The first {DRAWN} of {len(report.pairs)} pairs." if len(report.pairs) > DRAWN else ""
    text = (
        "Images by their learnability in two runs, stronger for more on a logarithmic scale. Runs "
        f"that find the same images hard lie along the line.{rest}"
    )
    drawings = [Drawing(agreement_picture(pair)) for pair in drawn]
    return Section("How far runs agree", text, (*drawings, table))


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
                    f"an image of {image.name} that was right after {image.learnability:.0%} of "
                    "the epochs",
                    f"{image.name}, {image.learnability:.0%}",
                    place(image.path, folder),
                ),
            )
            for image in images
        )
    )
