"""What `prune` and `analyze` say about residual blocks."""

from collections.abc import Sequence

from rich.table import Table

from prunecli.report import BlockReport, BlocksReport, WriterReport
from prunecli.wording import counted, images_text, percent

from .table_parts import Parts, add_rest, grid, shorten

BY_WIDTHS = "widths"


def block_facts(report: BlocksReport) -> dict[str, str]:
    """Return the line that says which blocks were deleted."""
    names = ", ".join(block.name for block in report.deleted)
    found = f"{len(report.deleted)} of {report.found}"
    facts = {"blocks deleted": f"{found}: {names}" if names else found}
    if report.writers:
        facts["mixed connectivity"] = (
            f"{counted(len(report.writers), 'layer')} write a part of a stream"
        )
    return facts


def blocks_parts(report: BlocksReport) -> Parts:
    """Return the blocks that were deleted, and what was tried for it."""
    tables = [block_table(report.deleted, None)] if report.deleted else []
    written = [writer_table(report.writers)] if report.writers else []
    return [*tables, *([trial_table(report)] if report.trials else []), *written]


def writer_table(writers: Sequence[WriterReport]) -> Table:
    """Return one row per layer or block that writes a part of its stream."""
    table = grid("writes into the stream", ">channels", ">of")
    for writer in writers:
        table.add_row(shorten(writer.name), str(writer.written), str(writer.slots))
    table.caption = "of: channels left of the stream; the others pass by"
    return table


def block_table(blocks: Sequence[BlockReport], rows: int | None) -> Table:
    """Return one row per block, with what goes with it."""
    table = grid("block", ">layers", ">FLOPs", ">parameters")
    for block in blocks[:rows]:
        table.add_row(
            shorten(block.name),
            str(len(block.layers)),
            percent(block.flops_share),
            percent(block.params_share),
        )
    add_rest(table, len(blocks), rows, "blocks")
    table.caption = "FLOPs, parameters: share of the model removed if the block is deleted"
    return table


def trial_table(report: BlocksReport) -> Table:
    """Return one row per set of blocks that the model was pruned without."""
    table = grid("pruned without", ">calibrated", ">accuracy", "")
    kept = tuple(block.name for block in report.deleted)
    for trial in report.trials:
        mark = "*" if set(trial.deleted) == set(kept) else ""
        score = trial.score
        table.add_row(
            shorten(" + ".join(trial.deleted) or "nothing deleted", 48),
            "not cut" if score is None else f"{score.calibrated:.3f}",
            "" if score is None else percent(score.accuracy),
            mark,
        )
    table.caption = (
        f"* selected: the least calibrated loss of {counted(len(report.trials), 'trial')} on "
        f"{report.images} {images_text(report.measured)}"
    )
    return table
