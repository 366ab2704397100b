"""Images with masks on a page: how many there are, and the share of every class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.parts import Bar, Facts, Grid, Section
from prunecli.html.words import place_text
from prunecli.wording import mask_facts, percent

if TYPE_CHECKING:
    from prunecli.html.parts import Cell
    from prunecli.report import MaskAnalysis


def mask_sections(masks: MaskAnalysis) -> list[Section]:
    """Return what is known of images with masks."""
    facts = {"data": f"{place_text(masks.path)} ({masks.format})", **mask_facts(masks)}
    rows: list[tuple[Cell, ...]] = [
        (one.name, f"{one.images:,}", Bar(one.pixels, percent(one.pixels))) for one in masks.classes
    ]
    grid = Grid(("class", ">images with it", "share of the pixels"), tuple(rows))
    return [Section("Images with masks", "", (grid, Facts(facts)), rank=1)]
