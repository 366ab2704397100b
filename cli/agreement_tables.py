"""What is said of outputs that follow, or are compared with, those of another model."""

from collections.abc import Callable, Sequence

from prunecli.report import FinetuneReport, OutputAgreement
from prunecli.wording import percent

from .table_parts import Parts, add_rest, grid


def agreement_parts(outputs: Sequence[OutputAgreement], rows: int | None) -> Parts:
    """Return a table of outputs, the one that agrees least first; nothing without any."""
    if not outputs:
        return []
    told = {name: tell for name, tell in COLUMNS.items() if any(tell(one) for one in outputs)}
    table = grid("output", *(f">{name}" for name in told))
    worst_first = sorted(outputs, key=lambda one: one.agreement)
    for one in worst_first[:rows]:
        name = f"{one.name} {sizes(one.shape)}\n{one.kind}"
        table.add_row(name, *(tell(one) for tell in told.values()))
    add_rest(table, len(worst_first), rows, "outputs")
    return [table]


COLUMNS: dict[str, Callable[[OutputAgreement], str]] = {
    "agreement": lambda one: percent(one.agreement),
    "same class": lambda one: "" if one.same_class is None else percent(one.same_class),
    "IoU": lambda one: "" if one.iou is None else percent(one.iou),
    "cosine": lambda one: f"{one.cosine:.4f}",
    "relative error": lambda one: f"{one.median_rel_error:.1e}",
    "at most": lambda one: f"{one.max_rel_error:.1e}",
}
"""What is said of an output; a column that says nothing of any is left out."""


def imitated_parts(report: FinetuneReport) -> Parts:
    """Return which loss every output got, and how far it agrees in the end."""
    if not report.imitated:
        return []
    agreed = {one.name: percent(one.agreement) for one in report.outputs}
    table = grid("output", "kind", "loss", ">agreement")
    for one in report.imitated:
        loss = one.loss or "none: it does not follow"
        table.add_row(f"{one.name} {sizes(one.shape)}", one.kind, loss, agreed.get(one.name, ""))
    return [table]


def sizes(shape: Sequence[int]) -> str:
    """Write the shape of one image's output."""
    return "x".join(map(str, shape))
