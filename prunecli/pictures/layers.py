"""Layers as rows of bars: what they cost, what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.pictures.rows import MOST_ROWS, rows_of
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, GRID, entitle_, explain_, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from prunecli.pictures.rows import Row
    from prunecli.report import LayerAnalysis, LayerCut, ModelAnalysis, PruneReport, SparsityReport

FREE, FROZEN, WHOLE = COLOURS[0], COLOURS[1], GRID
"""Bars of what is prunable or kept, of what is frozen, and of the original model behind them."""

WIDE = 200.0
"""Values that differ by more than this factor are drawn on a logarithmic axis."""

MOST = {False: MOST_ROWS, True: 30}
"""Rows of a picture, and of a narrow one, in which the panels are stacked."""

TICKS = 5
"""Numbers below a panel: more would touch each other."""

NAMED = 5
"""Layers that the text of a picture names."""


@dataclass(frozen=True)
class _Bars:
    """One panel: a value per row, and what lies behind it; `may_span` many powers of ten."""

    title: str
    unit: str
    values: Sequence[float]
    behind: Sequence[float] | None = None
    may_span: bool = False


def layers_picture(model: ModelAnalysis, *, narrow: bool = False) -> Picture:
    """Draw FLOPs, parameters and mean saliency of every layer, frozen ones in another colour.

    Layers are in the order of execution; many of them share rows, with their sums (of the saliency:
    the mean over prunable channels).
    """
    layers, flops, params = model.layers, model.cost.flops or 1.0, model.cost.params or 1.0
    rows = rows_of([layer.name for layer in layers], most=MOST[narrow], narrow=narrow)
    panels = [
        _Bars(
            "FLOPs",
            "% of the model",
            [100 * sum(layer.flops for layer in layers[row.at]) / flops for row in rows],
        ),
        _Bars(
            "Parameters",
            "% of the model",
            [100 * sum(layer.params for layer in layers[row.at]) / params for row in rows],
        ),
        _Bars(
            "Mean saliency",
            "of the prunable channels",
            [_saliency(layers[row.at]) for row in rows],
            may_span=True,
        ),
    ]
    frozen = [not any(layer.free for layer in layers[row.at]) for row in rows]
    title = f"{model.architecture}: cost and mean saliency of each layer"
    looks = [FROZEN if is_frozen else FREE for is_frozen in frozen]
    figure = _figure(rows, panels, looks, title, narrow=narrow)
    legend = {"prunable": FREE, "frozen": FROZEN}
    shown = {name: look for name, look in legend.items() if look in looks}
    _legend_(figure, shown, narrow=narrow)
    return Picture(figure, title, _analysis_text(model))


def kept_picture(report: PruneReport, *, narrow: bool = False) -> Picture:
    """Draw what is kept of the channels and FLOPs of every layer, and the original behind it."""
    layers, flops = report.layers, report.cost.before.flops or 1.0
    rows = rows_of([layer.name for layer in layers], most=MOST[narrow], narrow=narrow)
    kept = [sum(layer.kept for layer in layers[row.at]) for row in rows]
    channels = [sum(layer.channels for layer in layers[row.at]) for row in rows]
    panels = [
        _shares("Channels kept", kept, channels),
        _Bars(
            "FLOPs",
            "% of the original model",
            [100 * sum(layer.flops_kept for layer in layers[row.at]) / flops for row in rows],
            [100 * sum(layer.flops for layer in layers[row.at]) / flops for row in rows],
        ),
    ]
    share = report.cost.kept.get("flops", 1.0)
    title = f"{report.architecture}: what is kept of each layer, {share:.1%} of all FLOPs"
    figure = _figure(rows, panels, [FREE] * len(rows), title, narrow=narrow)
    _legend_(figure, {"kept": FREE, "original": WHOLE}, narrow=narrow)
    return Picture(figure, title, _cut_text(layers))


def weights_picture(
    sparsity: SparsityReport, architecture: str, *, narrow: bool = False
) -> Picture:
    """Draw the weights of every layer that are not zero, and all of them behind."""
    layers = sparsity.layers
    rows = rows_of(
        [layer.name.removesuffix(".weight") for layer in layers], most=MOST[narrow], narrow=narrow
    )
    kept = [sum(layer.kept for layer in layers[row.at]) for row in rows]
    weights = [sum(layer.weights for layer in layers[row.at]) for row in rows]
    unit, size = ("millions", 1e6) if max(weights, default=0) >= 1e6 else ("thousands", 1e3)
    panels = [
        _shares("Weights kept", kept, weights),
        _Bars("Weights", unit, [n / size for n in kept], [n / size for n in weights]),
    ]
    title = f"{architecture}: weights kept in each layer, {1 - sparsity.sparsity:.1%} of all"
    figure = _figure(rows, panels, [FREE] * len(rows), title, narrow=narrow)
    _legend_(figure, {"kept": FREE, "zero": WHOLE}, narrow=narrow)
    text = "; ".join(f"{layer.name}: {layer.kept} of {layer.weights}" for layer in layers)
    return Picture(figure, title, f"Weights that are not zero. {text}.")


def _shares(title: str, kept: Sequence[int], whole: Sequence[int]) -> _Bars:
    shares = [100 * some / every for some, every in zip(kept, whole, strict=True)]
    return _Bars(title, "% of the layer", shares, [100.0] * len(shares))


def _figure(
    rows: Sequence[Row],
    panels: Sequence[_Bars],
    colours: Sequence[str],
    title: str,
    *,
    narrow: bool,
) -> Figure:
    """Return a figure of panels side by side; for a phone one below another, in larger type."""
    around, each_row, type_size = (0.6, 0.185, 8.0) if narrow else (1.5, 0.165, 7.5)
    height = around + each_row * max(len(rows), 4)
    figure, axes = new_figure(9.0, height, columns=len(panels), narrow=narrow)
    for each, panel in zip(axes, panels, strict=True):
        _draw_(each, panel, colours)
        named = narrow or each is axes[0]
        labels = [row.label if named else "" for row in rows]
        each.set_yticks(range(len(rows)), labels, fontsize=type_size)
        each.set_ylim(len(rows) - 0.4, -0.6)
        each.grid(visible=False, axis="y")
        each.set_title(panel.title, loc="left")
        each.set_xlabel(panel.unit)
    entitle_(figure, title, narrow=narrow)
    return figure


def _draw_(axes: Axes, panel: _Bars, colours: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    places = range(len(panel.values))
    if panel.behind is not None:
        axes.barh(places, panel.behind, height=0.72, color=WHOLE)
    positive = [value for value in panel.values if value > 0]
    if panel.may_span and positive and max(positive) > WIDE * min(positive):
        axes.set_xscale("log")
        axes.set_xlim(left=0.5 * min(positive))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))
    axes.barh(places, panel.values, height=0.72, color=list(colours))


def _legend_(figure: Figure, looks: dict[str, str], *, narrow: bool) -> None:
    from matplotlib.patches import Patch

    patches: list[Artist] = [Patch(color=colour, label=name) for name, colour in looks.items()]
    explain_(figure, (patches, list(looks)), narrow=narrow)


def _saliency(layers: Sequence[LayerAnalysis]) -> float:
    """Return the mean over the prunable channels; 0 where no layer has a figure."""
    known = [(layer.free, layer.saliency) for layer in layers if layer.saliency is not None]
    free = sum(count for count, _ in known)
    return sum(count * value for count, value in known) / free if free else 0.0


def _analysis_text(model: ModelAnalysis) -> str:
    flops = model.cost.flops or 1.0
    largest = sorted(model.layers, key=lambda layer: -layer.flops)[:NAMED]
    costly = ", ".join(f"{layer.name} {layer.flops / flops:.1%}" for layer in largest)
    frozen = [layer for layer in model.layers if not layer.free]
    names = ", ".join(layer.name for layer in frozen[:NAMED])
    kept = f" Frozen layers, {len(frozen)} in all: {names}." if frozen else ""
    return f"{len(model.layers)} layers. Most FLOPs: {costly}.{kept}"


def _cut_text(layers: Sequence[LayerCut]) -> str:
    return (
        "Channels kept. "
        + "; ".join(f"{layer.name}: {layer.kept} of {layer.channels}" for layer in layers)
        + "."
    )
