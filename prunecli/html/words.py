"""How pages write numbers, and the tables that pages of several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.budget import format_bytes
from prunecli.html.drawing import drawing
from prunecli.html.parts import Bar, Folded, Grid, Section
from prunecli.pictures import weights_picture
from prunecli.wording import images_text, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.html.parts import Cell
    from prunecli.report import DeadReport, DeadScores, FrozenReport, SparsityReport, Verified

FAR = 2
"""Folders up to which a path leads from where the command ran; beyond, it is absolute."""


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many digits that count; nothing for none."""
    return "" if value is None else f"{value:.{digits}g}"


def place_text(path: str | Path, *, start: Path | None = None) -> str:
    """Write a path as seen from where the command ran: absolute only where that is far away.

    >>> place_text("/home/me/work/runs/slim.pt", start=Path("/home/me/work"))
    'runs/slim.pt'
    >>> place_text("/data/images", start=Path("/home/me/work"))
    '/data/images'
    """
    if not str(path) or not Path(path).is_absolute():
        return str(path)
    try:
        seen = os.path.relpath(path, start or Path.cwd())
    except ValueError:  # another drive
        return str(path)
    return str(path) if Path(seen).parts.count(os.pardir) > FAR else seen


def share_bar(share: float, largest: float) -> Bar:
    """Return a cell with a share in per cent and a bar that is full at the largest one."""
    return Bar(share / largest if largest > 0 else 0.0, percent(share, digits=2))


REFERENCES = {
    "consumer-zero": "the original with every weight set to zero that reads a removed channel",
    "masked-norm": "the original graph with norm statistics taken over the kept channels",
    "dense x mask": "the original weights times the mask",
    "stored and restored": "the original weights times the mask, with the file read back",
}
"""What a pruned model is compared with, by the beginning of the name of the verification."""


def reference_text(verified: Verified) -> str:
    """Say what a pruned model was compared with."""
    found = (text for name, text in REFERENCES.items() if verified.method.startswith(name))
    meaning = next(found, "")
    if "blocks zeroed" in verified.method:
        meaning += ", and in each deleted block the last weights, which silences it"
    if verified.by_structure:
        meaning += (
            ". Besides, every operator of the result reads and writes what the original's does"
        )
    return f"{meaning} ({verified.method})" if meaning else verified.method


def command_fact(command: str) -> dict[str, str]:
    """Return the line with the command that was typed, where that is known."""
    return {"command": command} if command else {}


def gates_fact(gates: str) -> dict[str, str]:
    """Return the line that says whether the stated gates were met, where any was stated."""
    return {"gates": gates} if gates else {}


def frozen_sections(frozen: Sequence[FrozenReport]) -> list[Section]:
    """Return what cannot be pruned and why, if there is any."""
    if not frozen:
        return []
    rows = tuple(
        (item.name, item.reason, item.where or "", percent(item.flops_share, digits=2))
        for item in sorted(frozen, key=lambda item: -item.flops_share)
    )
    table = Grid(("layer", "because", "line of code", ">FLOPs"), rows)
    count = "One layer is" if len(frozen) == 1 else f"{len(frozen):,} layers or channel groups are"
    text = f"{count} frozen: all channels are kept, whatever the budget."
    return [Section("What cannot be pruned", text, (folded("All of them", table),), rank=3)]


def folded(title: str, grid: Grid, *, above: int = 12) -> Folded | Grid:
    """Return a table, folded where it has more rows than `above`."""
    return Folded(f"{title} ({len(grid.rows):,})", (grid,)) if len(grid.rows) > above else grid


GRANULARITIES = {"weight": "chosen one by one"}
"""How weights were chosen, where it is not by a pattern such as 2:4."""


def sparsity_sections(sparsity: SparsityReport | None, architecture: str) -> list[Section]:
    """Return the weights that are zero, layer by layer, if any are."""
    if sparsity is None:
        return []
    rows: list[tuple[Cell, ...]] = [
        (
            layer.name.removesuffix(".weight"),
            "x".join(map(str, layer.shape)),
            f"{layer.weights:,}",
            f"{layer.kept:,}",
            Bar(layer.kept / layer.weights, percent(layer.kept / layer.weights)),
            layer.reason,
        )
        for layer in sparsity.layers
    ]
    grid = Grid(("layer", "shape", ">weights", ">kept", "kept", "not pruned because"), tuple(rows))
    zeros = sparsity.weights - sparsity.kept
    pattern = f"in the pattern {sparsity.granularity} along the inputs"
    text = (
        f"{zeros:,} of {sparsity.weights:,} weights in these layers are zero "
        f"({percent(sparsity.sparsity)}), {GRANULARITIES.get(sparsity.granularity, pattern)}."
    )
    if sparsity.bytes_before is not None and sparsity.bytes_after is not None:
        sizes = (format_bytes(sparsity.bytes_before), format_bytes(sparsity.bytes_after))
        text += f" The file shrank from {sizes[0]} to {sizes[1]}."
    picture = drawing(weights_picture, sparsity, architecture)
    return [Section("Weights", text, (picture, folded("All layers", grid)), rank=1)]


def dead_sections(dead: DeadReport | None) -> list[Section]:
    """Return dead channels, and what was removed with them, if they were looked for."""
    if dead is None:
        return []
    looked = f"on {dead.images:,} images" if dead.images else "by the weights alone"
    text = (
        f"{dead.removable:,} of {dead.channels:,} channels are dead and can be removed, judged "
        f"{looked}. A dead channel is constant, or no layer reads it."
    )
    if dead.scores is not None:
        text += f" {_scores(dead.scores)}"
    if dead.borders:
        text += (
            f" At zero padding, the outputs of {len(dead.borders)} layers change by "
            f"{max(dead.borders.values()):.2g} at most."
        )
    text += "".join(
        f" {count:,} channels were not examined: {reason}."
        for reason, count in dead.not_looked_at.items()
    )
    rows = tuple(
        (
            group.name,
            f"{group.width:,}",
            f"{len(group.constant):,}",
            f"{len(group.unread):,}",
            f"{len(group.below):,}",
            percent(group.flops_share, digits=2),
            ", ".join(dict.fromkeys(group.stays.values())),
        )
        for group in dead.groups
    )
    header = (
        "channel group", ">channels", ">constant", ">unread", ">below the threshold", ">FLOPs",
        "some kept because",
    )  # fmt: skip
    parts = (folded("Groups with dead channels", Grid(header, rows)),) if rows else ()
    return [Section("Dead channels", text, parts, rank=3)]


def _scores(scores: DeadScores) -> str:
    return (
        f"Without them the loss changes from {scores.loss_before:.6f} to {scores.loss_after:.6f} "
        f"and the accuracy from {percent(scores.accuracy_before)} to "
        f"{percent(scores.accuracy_after)}, on {scores.images:,} {images_text(scores.measured)}."
    )
