"""The part of a page that is about residual blocks: those that went, and those that can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.parts import Bar, Cell, Grid, Part, Section
from prunecli.report.cuts import GATES
from prunecli.wording import counted, images_text, percent, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import BlockReport, BlocksReport

_BY_GATES = "by the gates of what they write"
_BY_WIDTHS = "by the channels that the budget leaves of each"


def deleted_blocks(report: BlocksReport | None) -> list[Section]:
    """Return which blocks a cut has deleted, and what was tried for it."""
    if report is None:
        return []
    count = f"{len(report.deleted)} of {counted(report.found, 'residual block')}"
    how = _BY_GATES if report.measured == GATES else _BY_WIDTHS
    if report.trials:
        how = f"by the loss on {report.images:,} {images_text(report.measured)}"
    verb = "was" if len(report.deleted) == 1 else "were"
    parts: list[Part] = [_grid(report.deleted)] if report.deleted else []
    if report.trials:
        parts.append(_trials(report))
    if report.writers:
        rows = tuple((each.name, str(each.written), str(each.slots)) for each in report.writers)
        caption = "what is left of streams that blocks and first layers write a part of"
        parts.append(Grid(("writes into the stream", ">channels", ">of"), rows, caption))
    return [Section("Blocks", f"{count} {verb} deleted, chosen {how}.", tuple(parts))]


def listed_blocks(blocks: Sequence[BlockReport]) -> list[Section]:
    """Return the blocks of a model that can be deleted."""
    if not blocks:
        return []
    text = (
        f"{counted(len(blocks), 'residual block')} can be deleted as a whole "
        "(prunecli prune --delete-blocks)."
    )
    return [Section("Blocks", text, (_grid(blocks),))]


def _grid(blocks: Sequence[BlockReport]) -> Grid:
    rows = tuple(
        (
            block.name,
            some(block.layers),
            percent(block.flops_share),
            percent(block.params_share),
        )
        for block in blocks
    )
    return Grid(("block", "layers", ">FLOPs", ">parameters"), rows)


def _trials(report: BlocksReport) -> Grid:
    rows: list[tuple[Cell, ...]] = []
    for trial in report.trials:
        score = trial.score
        rows.append(
            (
                ", ".join(trial.deleted) or "nothing deleted",
                trial.problem if score is None else f"{score.calibrated:.4f}",
                "" if score is None else Bar(score.accuracy, percent(score.accuracy)),
            )
        )
    caption = "pruned to the budget and repaired; the lowest calibrated loss was selected"
    return Grid(("pruned without", ">calibrated loss", "accuracy"), tuple(rows), caption)
