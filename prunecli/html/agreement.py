"""Outputs that follow, or are compared with, those of another model: sections of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.parts import Bar, Grid, Section
from prunecli.wording import percent

if TYPE_CHECKING:
    from prunecli.html.parts import Cell
    from prunecli.report import FinetuneReport


def imitated_sections(report: FinetuneReport) -> tuple[Section, ...]:
    """Return which loss every output got, and how far it agrees in the end; nothing for labels."""
    if not report.imitated:
        return ()
    agreed = {one.name: one.agreement for one in report.outputs}
    rows: list[tuple[Cell, ...]] = []
    for one in report.imitated:
        share = agreed.get(one.name)
        met: Cell = "" if share is None else Bar(share, percent(share))
        shape = "x".join(map(str, one.shape))
        rows.append((one.name, shape, one.kind, one.loss or "none: it does not follow", met))
    grid = Grid(("output", "shape", "kind", "loss", "agreement"), tuple(rows))
    text = "The model follows the outputs of its teacher; no label is looked at."
    return (Section("Outputs", text, (grid,), rank=1),)
