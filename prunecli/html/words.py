"""How pages write numbers, and the tables that pages of several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_bytes, format_cost
from prunecli.cost.kinds import cost_label
from prunecli.html.parts import Bar, Drawing, Folded, Grid, Section
from prunecli.pictures import weights_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.html.parts import Cell
    from prunecli.report import DeadReport, DeadScores, FrozenReport, SparsityReport, Verified

MEASURED = {
    "held_out": "images held out from training",
    "calibration": "the images that the choice was made on",
    "test": "test images",
}
"""What images are called by where they are from."""


def percent(share: float | None, *, digits: int = 1) -> str:
    """Write a share in per cent; nothing for none."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many digits that count; nothing for none."""
    return "" if value is None else f"{value:.{digits}g}"


def images_text(measured: str) -> str:
    """Say what images figures are from."""
    return MEASURED.get(measured, f"{measured} images" if measured else "images")


def budget_text(budget: Mapping[str, Mapping[str, float]] | None) -> str:
    """Say what a cut was to keep: `at most 50.0 % of the FLOPs`."""
    parts = []
    for kind, limit in (budget or {}).items():
        name = cost_label(kind)
        if "absolute" in limit:
            parts.append(f"at most {format_cost(kind, limit['absolute'])} {name}")
        elif "fraction" in limit:
            parts.append(f"at most {percent(limit['fraction'])} of the {name}")
    return ", ".join(parts)


def share_bar(share: float, largest: float) -> Bar:
    """Return a cell with a share in per cent and a bar that is full at the largest one."""
    return Bar(share / largest if largest > 0 else 0.0, percent(share, digits=2))


PROOFS = {
    "consumer-zero": "equals the dense network with all weights zero that read a removed channel",
    "masked-norm": "equals the dense graph with the statistics of its norms over the kept channels",
    "dense x mask": "equals the dense network times the mask",
    "stored and restored": "read back from the file, it equals the dense network times the mask",
}
"""What the proof of a cut compares, by the beginning of its name."""


def proof_text(verified: Verified) -> str:
    """Say how a cut was proven."""
    meaning = next((text for name, text in PROOFS.items() if verified.method.startswith(name)), "")
    how = f"{meaning} ({verified.method})" if meaning else verified.method
    return f"{how}; largest relative error {error_text(verified)}"


def error_text(verified: Verified) -> str:
    """Write the largest relative error of a proof; a plain 0 where no bit differs."""
    return f"{verified.max_rel_error:.1e}" if verified.max_rel_error else "0"


def command_fact(command: str) -> dict[str, str]:
    """Return the line that says what was typed, where that is known."""
    return {"command": command} if command else {}


def gates_fact(gates: str) -> dict[str, str]:
    """Return the line that says whether the stated gates were met, where any was stated."""
    return {"gates": gates} if gates else {}


def frozen_sections(frozen: Sequence[FrozenReport]) -> list[Section]:
    """Return what cannot be cut and why, if there is any."""
    if not frozen:
        return []
    rows = tuple(
        (item.name, item.reason, item.where or "", percent(item.flops_share, digits=2))
        for item in sorted(frozen, key=lambda item: -item.flops_share)
    )
    held = Grid(("layer", "because", "line of code", ">FLOPs"), rows)
    count = "one layer stay" if len(frozen) == 1 else f"{len(frozen):,} layers or groups stay"
    text = f"Channels of {count}, whatever the budget."
    return [Section("What cannot be cut", text, (folded("All of them", held),))]


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
    grid = Grid(("layer", "shape", ">weights", ">kept", "kept", "left dense because"), tuple(rows))
    zeros = sparsity.weights - sparsity.kept
    pattern = f"in the pattern {sparsity.granularity} along the inputs"
    text = (
        f"{zeros:,} of {sparsity.weights:,} weights of these layers are zero "
        f"({percent(sparsity.sparsity)}), {GRANULARITIES.get(sparsity.granularity, pattern)}."
    )
    if sparsity.bytes_before is not None and sparsity.bytes_after is not None:
        sizes = (format_bytes(sparsity.bytes_before), format_bytes(sparsity.bytes_after))
        text += f" The file was {sizes[0]} and is {sizes[1]}."
    picture = weights_picture(sparsity, architecture)
    return [Section("Weights", text, (Drawing(picture), folded("All layers", grid)))]


def dead_sections(dead: DeadReport | None) -> list[Section]:
    """Return channels that do nothing, and what went with them, if that was looked for."""
    if dead is None:
        return []
    looked = f"{dead.images:,} images" if dead.images else "the weights alone"
    text = f"{dead.removable:,} of {dead.channels:,} channels do nothing and can go, from {looked}."
    if dead.scores is not None:
        text += f" {_scores(dead.scores)}"
    if dead.borders:
        text += (
            f" At zero padding, outputs of {len(dead.borders)} layers are off by "
            f"{max(dead.borders.values()):.2g} at most."
        )
    text += "".join(
        f" {count:,} channels were not looked at: {reason}."
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
        "some stay because",
    )  # fmt: skip
    parts = (folded("Groups with dead channels", Grid(header, rows)),) if rows else ()
    return [Section("Dead channels", text, parts)]


def _scores(scores: DeadScores) -> str:
    return (
        f"Without them the loss goes from {scores.loss_before:.6f} to {scores.loss_after:.6f}, the "
        f"accuracy from {percent(scores.accuracy_before)} to {percent(scores.accuracy_after)}, on "
        f"{scores.images:,} {images_text(scores.measured)}."
    )
