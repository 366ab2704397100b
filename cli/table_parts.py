"""Pieces that the tables of several reports are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunecli.budget import format_bytes, format_quantity
from prunecli.cost.kinds import cost_label
from prunecli.plan import format_indices
from prunecli.report import (
    Cost,
    DeadReport,
    DeadScores,
    FrozenReport,
    Preparation,
    SparsityReport,
)
from prunecli.wording import images_text, percent, printable, processes_text

Parts = list[RenderableType]


BAR = "\u2588"


def bare_percent(share: float | None) -> str:
    """Write a share in per cent without the sign."""
    return "" if share is None else f"{100 * share:.1f}"


def sparsity_parts(sparsity: SparsityReport | None, rows: int | None) -> Parts:
    """Return one row per layer with its weights and those that are kept."""
    if sparsity is None:
        return []
    table = grid("layer", ">weights", ">kept", ">zero", "shape")
    for layer in sparsity.layers[:rows]:
        table.add_row(
            shorten(layer.name.removesuffix(".weight")),
            str(layer.weights),
            str(layer.kept),
            percent(1 - layer.kept / layer.weights),
            "x".join(map(str, layer.shape)),
        )
    add_rest(table, len(sparsity.layers), rows, "layers")
    return [table]


def sparsity_facts(sparsity: SparsityReport) -> dict[str, str]:
    """Return what there is to say about zeros in a line each."""
    of = f"{sparsity.weights - sparsity.kept} of {sparsity.weights} weights"
    facts = {"zero": f"{percent(sparsity.sparsity)} ({of}), {sparsity.granularity}"}
    if sparsity.point:
        facts["saliency"] = f"{sparsity.point}, of single weights"
    if sparsity.bytes_before is not None and sparsity.bytes_after is not None:
        facts["file"] = (
            f"{format_bytes(sparsity.bytes_before)} -> {format_bytes(sparsity.bytes_after)}"
        )
    return facts


def frozen_parts(frozen: Sequence[FrozenReport], rows: int | None) -> Parts:
    """Return what cannot be cut and why, if there is any."""
    if not frozen:
        return []
    table = grid("not pruned", "reason", ">FLOPs")
    for item in frozen[:rows]:
        reason = item.reason if item.where is None else f"{item.reason} ({item.where})"
        table.add_row(shorten(item.name, 24), reason, percent(item.flops_share))
    add_rest(table, len(frozen), rows, "places")
    return [table]


def dead_parts(dead: DeadReport, rows: int | None) -> Parts:
    """Return the dead channels of every group that has some, and what their removal did."""
    below = dead.threshold is not None
    columns = ("constant", "unread", *(["below"] if below else []), "stay")
    table = grid("dead channels", ">width", *(f">{name}" for name in columns), ">FLOPs", "which")
    for group in dead.groups[:rows]:
        kinds = (group.constant, group.unread, *([group.below] if below else []), group.stays)
        table.add_row(
            shorten(group.name, 24),
            str(group.width),
            *(str(len(kind)) for kind in kinds),
            f"{100 * group.flops_share:.1f}",
            _indices(sorted((*group.constant, *group.unread, *group.below)), rows),
        )
    add_rest(table, len(dead.groups), rows, "groups")
    table.caption = "FLOPs: % of the model removed with the channels that can go"
    looked = f"{dead.images} images" if dead.images else "the weights alone"
    facts = {"dead": f"{dead.removable} of {dead.channels} channels can go, judged by {looked}"}
    for reason, count in _stays(dead).items():
        facts.setdefault("stay", "")
        facts["stay"] += f"{'; ' if facts['stay'] else ''}{count}: {reason}"
    if dead.borders:
        facts["borders"] = (
            f"{len(dead.borders)} layers, outputs off by {max(dead.borders.values()):.2g} at most"
        )
    if dead.scores is not None:
        facts["without them"] = _scores(dead.scores)
    return [*([table] if dead.groups else []), fact_rows(facts)]


def _stays(dead: DeadReport) -> dict[str, int]:
    reasons = [reason for group in dead.groups for reason in group.stays.values()]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def _scores(scores: DeadScores) -> str:
    return (
        f"loss {scores.loss_before:.6f} -> {scores.loss_after:.6f}, accuracy "
        f"{percent(scores.accuracy_before)} -> {percent(scores.accuracy_after)} "
        f"on {scores.images} {images_text(scores.measured)}"
    )


def _indices(found: Sequence[int], rows: int | None) -> str:
    """Write indices, runs of them short: `0-3,7`; the first runs alone in a short table."""
    texts = format_indices(found).split(",")
    shown = texts if rows is None else texts[:6]
    return ",".join(shown) + (",..." if len(shown) < len(texts) else "")


def cost_line(cost: Cost) -> str:
    """Write the costs that people ask for first in one line."""
    return ", ".join(
        f"{format_quantity(cost[kind] or 0.0)} {cost_label(kind)}"
        for kind in ("flops", "params", "activations", "bytes")
    )


def grid(*columns: str) -> Table:
    """Return an empty table; a column that starts with `>` is set to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", padding=(0, 1))
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def fact_rows(facts: dict[str, str]) -> Table:
    """Return names with their values, one below the other."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def add_rest(table: Table, total: int, rows: int | None, noun: str) -> None:
    """Say how many rows are left out."""
    if rows is not None and total > rows:
        table.add_row(f"... {total - rows} more {noun}: --verbose", style="dim")


def shorten(name: str, width: int = 34) -> str:
    """Cut a long name in the middle: its layer and its leaf are what people look for."""
    if len(name) <= width:
        return name
    head = (width - 2) // 2
    return f"{name[:head]}..{name[len(name) - (width - 2 - head) :]}"


def shares_facts(shares: Sequence[int]) -> dict[str, str]:
    """Say how many processes trained together; nothing for one."""
    return {"processes": f"{processes_text(shares)}; images/s of all"} if shares else {}


def preparation_facts(preparation: Preparation | None) -> dict[str, str]:
    """Say in one line how images were brought to the model."""
    return {} if preparation is None else {"input": preparation.statement}


def shown_facts(page: Path | None, pictures: Sequence[Path]) -> dict[str, str]:
    """Name the page and the pictures that were written, if any were."""
    facts = {} if page is None else {"report": str(page)}
    return facts | ({"pictures": ", ".join(map(str, pictures))} if pictures else {})


def times_text(factor: float | None) -> str:
    """Write a factor; nothing for none."""
    return "" if factor is None else f"{factor:.2f}x"


def seconds_text(stages: Any) -> str:
    """Write the seconds of every stage."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())
