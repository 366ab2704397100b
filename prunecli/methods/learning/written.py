"""What a search with mixed connectivity reports: blocks that went, and who writes which slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.pruning.deletion import block_reports
from prunecli.report import BlocksReport, WriterReport
from prunecli.report.cuts import GATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.methods.learning.choice import Choice
    from prunecli.methods.learning.streams import Streams


def blocks_report(streams: Streams, choice: Choice | None) -> BlocksReport:
    """Return which blocks went, and what writers left write of the slots that are left."""
    left = streams.whole if choice is None else choice.network
    return BlocksReport(
        deleted=block_reports(streams.whole, left.deleted),
        found=len(streams.whole.blocks),
        measured=GATES,
        writers=() if choice is None else tuple(_writers(streams, choice)),
    )


def _writers(streams: Streams, choice: Choice) -> Iterator[WriterReport]:
    apart, deleted = streams.whole.untied, {block.name for block in choice.network.deleted}
    for writer in apart.writers:
        if writer.name in deleted:
            continue
        alive = np.append(choice.opened, True)[apart.slots(writer)]
        written = int(choice.opened[apart.made(writer)].sum())
        if written < alive.sum():
            yield WriterReport(writer.name, written, int(alive.sum()))
