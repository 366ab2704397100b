"""The part of a page that is about a model: what it costs, and what it can lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_quantity
from prunecli.html.parts import Bar, Cell, Drawing, Facts, Grid, Numbers, Part, Section
from prunecli.html.words import (
    dead_sections,
    folded,
    frozen_sections,
    number,
    share_bar,
    sparsity_sections,
)
from prunecli.pictures import layers_picture, oracle_picture, sensitivity_picture
from prunecli.wording import percent

if TYPE_CHECKING:
    from prunecli.report import GroupAnalysis, ImportanceReport, ModelAnalysis, OracleReport


def model_title(model: ModelAnalysis) -> str:
    """Return what a page about a model is called."""
    return f"{model.architecture}: {format_quantity(model.cost.flops)} FLOPs"


def model_sections(model: ModelAnalysis) -> list[Section]:
    """Return what is known of a model."""
    return [
        _glance(model),
        *_layers(model),
        _groups(model),
        *_sensitivity(model),
        *_oracle(model),
        *_importance(model.importance),
        *dead_sections(model.dead),
        *sparsity_sections(model.sparsity, model.architecture),
        *frozen_sections(model.frozen),
    ]


def _glance(model: ModelAnalysis) -> Section:
    cost = model.cost
    figures = [
        (format_quantity(cost.flops), "FLOPs", "multiply-adds of one image"),
        (format_quantity(cost.params), "parameters", ""),
        (percent(model.lowest_flops), "lowest reachable FLOPs", "one channel left of each group"),
    ]
    if model.accuracy is not None:
        figures.append((percent(model.accuracy), "accuracy", "on held-out images"))
    facts = {
        "architecture": model.architecture,
        "layers": f"{len(model.layers):,} with weights, in {len(model.groups):,} channel groups",
        "activations": f"{format_quantity(cost.activations)} outputs of convolutions and matrix "
        "products",
        "parameters and buffers": f"{format_quantity(cost.bytes)}B",
    }
    if model.elsewhere:
        named = (f"{name} {format_quantity(value)}" for name, value in model.elsewhere.items())
        share = sum(model.elsewhere.values()) / (cost.flops or 1.0)
        facts["FLOPs outside of layers"] = f"{percent(share, digits=2)}: {', '.join(named)}"
    if model.not_counted:
        counted = (f"{count} {name}" for name, count in model.not_counted.items())
        facts["operators not counted"] = ", ".join(counted)
    return Section("The model", "", (Numbers(tuple(figures)), Facts(facts)))


def _layers(model: ModelAnalysis) -> list[Section]:
    if not model.layers:
        return []
    flops = max(layer.flops for layer in model.layers)
    whole = model.cost.flops or 1.0
    rows: list[tuple[Cell, ...]] = [
        (
            layer.name,
            layer.operator,
            f"{layer.channels:,}",
            f"{layer.free:,}",
            share_bar(layer.flops / whole, flops / whole),
            f"{layer.params:,.0f}",
            number(layer.saliency),
            layer.reason or ", ".join(layer.groups),
        )
        for layer in model.layers
    ]
    header = (
        "layer", "operator", ">channels", ">may go", "FLOPs", ">parameters", ">mean saliency",
        "groups, or why all stay",
    )  # fmt: skip
    held = sum(not layer.free for layer in model.layers)
    stay = f" In {held} of them all channels stay." if held else ""
    text = f"{len(model.layers):,} layers in the order of execution.{stay}"
    parts = (
        Drawing(layers_picture(model)),
        folded("All layers", Grid(header, tuple(rows))),
    )
    return [Section("Layers", text, parts)]


def _groups(model: ModelAnalysis) -> Section:
    shares = sorted({cut["cut"] for group in model.groups for cut in group.sensitivity})
    largest = max((group.flops_share for group in model.groups), default=0.0)
    exact = all(group.exact for group in model.groups)
    rows = tuple(_group(group, shares, largest, exact=exact) for group in model.groups)
    header = (
        "channel group", ">channels", ">least", "FLOPs", ">parameters", ">mean saliency",
        *([] if exact else ["a cut"]),
        *(f">without {share:.0%}" for share in shares),
    )  # fmt: skip
    caption = "FLOPs and parameters: the share that goes with the group"
    if not exact:
        caption += "; a cut of channels under a norm is another one than a mask, and proven so"
    if shares:
        caption += "; without 25%: accuracy after that share of this group alone is cut"
    text = (
        "Channels that can only be cut together, since layers add, concatenate or multiply them "
        f"with each other. At least {percent(model.lowest_flops)} of the FLOPs stay."
    )
    return Section(
        "Channel groups", text, (folded("All channel groups", Grid(header, rows, caption)),)
    )


def _group(
    group: GroupAnalysis, shares: list[float], largest: float, *, exact: bool
) -> tuple[Cell, ...]:
    accuracy = {cut["cut"]: cut["accuracy"] for cut in group.sensitivity}
    return (
        group.name,
        f"{group.width:,}",
        f"{group.minimum:,}",
        share_bar(group.flops_share, largest),
        percent(group.params_share, digits=2),
        number(group.saliency.get("mean", group.saliency.get("median"))),
        *([] if exact else ["equals a mask" if group.exact else "changes a norm"]),
        *(percent(accuracy.get(share)) for share in shares),
    )


def _sensitivity(model: ModelAnalysis) -> list[Section]:
    if not any(group.sensitivity for group in model.groups):
        return []
    text = (
        "One channel group at a time is cut, the least salient channels first, and the network is "
        "scored on held-out images right after it, without training."
    )
    return [Section("How sensitive each group is", text, (Drawing(sensitivity_picture(model)),))]


def _oracle(model: ModelAnalysis) -> list[Section]:
    oracle = model.oracle
    if oracle is None:
        return []
    text = (
        f"Each of {oracle.channels:,} channels alone is removed, and the change of the loss is "
        f"measured on {oracle.images:,} images: that is what a signal should foresee."
    )
    parts: tuple[Part, ...] = (
        Drawing(oracle_picture(model)),
        folded("All signals", _agreements(oracle)),
    )
    return [Section("How signals rank channels", text, parts)]


def _agreements(oracle: OracleReport) -> Grid:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            row.signal,
            "its size" if row.against == "size" else "signed",
            *(
                "not defined" if value is None else f"{value:.2f}"
                for value in (row.per_layer, row.pooled, row.pooled_l2)
            ),
        )
        for row in oracle.signals
    )
    header = ("signal", "loss change", ">per layer", ">pooled", ">pooled after layerwise L2")
    return Grid(header, rows, "Spearman's rank correlation with the change of the loss")


def _importance(importance: ImportanceReport | None) -> list[Section]:
    if importance is None:
        return []
    names = list(importance.groups)
    most = {
        name: max((value for value in own.values() if value), default=1.0)
        for name, own in importance.groups.items()
    }
    groups = list(next(iter(importance.groups.values()), {}))
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        cells: list[Cell] = [group]
        for name in names:
            value = importance.groups[name][group]
            share = None if value is None else value / most[name]
            cells.append("not known" if share is None else Bar(share, f"{share:.3f}"))
        rows.append(tuple(cells))
    agreement = "; ".join(
        f"{pair} {'not defined' if value is None else f'{value:.2f}'}"
        for pair, value in importance.agreement.items()
    )
    caption = f"shares of the largest; Spearman's correlation of the ranks: {agreement}"
    text = f"By {len(names)} measures, on {importance.images:,} images."
    grid = folded("All channel groups", Grid(("channel group", *names), tuple(rows), caption))
    return [Section("How important each group is", text, (grid,))]
