"""The part of a page that is about a model: what it costs, and how far it can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_quantity
from prunecli.html.blocks import listed_blocks
from prunecli.html.drawing import drawing
from prunecli.html.parts import Bar, Cell, Facts, Grid, Numbers, Part, Section
from prunecli.html.words import (
    dead_sections,
    folded,
    frozen_sections,
    number,
    share_bar,
    sparsity_sections,
)
from prunecli.pictures import layers_picture, oracle_picture, sensitivity_picture
from prunecli.wording import counted, percent, verb

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
        *listed_blocks(model.blocks),
        *sparsity_sections(model.sparsity, model.architecture),
        *frozen_sections(model.frozen),
    ]


def _glance(model: ModelAnalysis) -> Section:
    cost = model.cost
    scored = model.accuracy is not None
    figures = [(percent(model.accuracy), "accuracy", "on held-out images")] * scored
    figures += [
        (format_quantity(cost.flops), "FLOPs", "multiply-adds per image"),
        (format_quantity(cost.params), "parameters", ""),
        (percent(model.lowest_flops), "smallest possible FLOPs", "one channel kept in each group"),
    ]
    facts = {
        "architecture": model.architecture,
        "layers": f"{len(model.layers):,} with weights, in {len(model.groups):,} channel groups",
        "activations": f"{format_quantity(cost.activations)} values, put out by convolutions and "
        "matrix products",
        "size in memory": f"{format_quantity(cost.bytes)}B of parameters and buffers",
    }
    if model.elsewhere:
        named = (f"{name} {format_quantity(value)}" for name, value in model.elsewhere.items())
        share = sum(model.elsewhere.values()) / (cost.flops or 1.0)
        facts["FLOPs outside these layers"] = f"{percent(share, digits=2)}: {', '.join(named)}"
    if model.not_counted:
        uncounted = (f"{count} {name}" for name, count in model.not_counted.items())
        facts["not counted as FLOPs"] = ", ".join(uncounted)
    numbers = Numbers(tuple(figures), leading=int(scored))
    return Section("The model", "", (numbers, Facts(facts)), rank=1)


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
        "layer", "operator", ">channels", ">prunable", "FLOPs", ">parameters", ">mean saliency",
        "channel groups, or why frozen",
    )  # fmt: skip
    frozen = sum(not layer.free for layer in model.layers)
    kept = f" {frozen:,} of them {verb(frozen, 'is', 'are')} frozen: all channels are kept."
    text = (
        f"{counted(len(model.layers), 'layer')} in order of execution.{kept if frozen else ''} "
        "The saliency of a channel is its importance by the chosen criterion."
    )
    parts = (
        drawing(layers_picture, model),
        folded("All layers", Grid(header, tuple(rows))),
    )
    return [Section("Layers", text, parts, rank=1)]


def _groups(model: ModelAnalysis) -> Section:
    shares = sorted({cut["cut"] for group in model.groups for cut in group.sensitivity})
    largest = max((group.flops_share for group in model.groups), default=0.0)
    exact = all(group.exact for group in model.groups)
    rows = tuple(_group(group, shares, largest, exact=exact) for group in model.groups)
    header = (
        "channel group", ">channels", ">least", "FLOPs", ">parameters", ">mean saliency",
        *([] if exact else ["pruning it"]),
        *(f">without {share:.0%}" for share in shares),
    )  # fmt: skip
    caption = (
        "FLOPs and parameters: the share of the model removed if the whole group is removed. "
        "Least: the channels that are always kept."
    )
    if not exact:
        caption += (
            " Changes a norm: the layer norm or group norm over these channels is then computed "
            "over the kept ones, and the result is verified against that."
        )
    if shares:
        caption += " Without 25%: accuracy after that share of this group alone is pruned."
    text = (
        "The channels of one group can only be pruned together, because layers add, concatenate or "
        f"multiply them. At least {percent(model.lowest_flops)} of the FLOPs are kept."
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
        *([] if exact else ["equals masking it" if group.exact else "changes a norm"]),
        *(percent(accuracy.get(share)) for share in shares),
    )


def _sensitivity(model: ModelAnalysis) -> list[Section]:
    if not any(group.sensitivity for group in model.groups):
        return []
    text = (
        "One channel group at a time is pruned, the least salient channels first. The model is "
        "then scored on held-out images, without fine-tuning."
    )
    return [Section("Sensitivity of each group", text, (drawing(sensitivity_picture, model),))]


def _oracle(model: ModelAnalysis) -> list[Section]:
    oracle = model.oracle
    if oracle is None:
        return []
    text = (
        f"The oracle removes each of {oracle.channels:,} channels alone and measures the change of "
        f"the loss on {oracle.images:,} images. A good importance criterion ranks the channels in "
        "the same order."
    )
    parts: tuple[Part, ...] = (
        drawing(oracle_picture, model),
        folded("All criteria", _agreements(oracle)),
    )
    return [Section("How well criteria rank channels", text, parts)]


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
    header = ("criterion", "loss change", ">per layer", ">pooled", ">pooled after layerwise L2")
    return Grid(
        header,
        rows,
        "Spearman's rank correlation with the change of the loss; 1: same order",
    )


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
    caption = f"Shares of the largest value. Spearman's rank correlation: {agreement}."
    text = f"Each column is one measure of importance, from {importance.images:,} images."
    grid = folded("All channel groups", Grid(("channel group", *names), tuple(rows), caption))
    return [Section("Importance of each group", text, (grid,))]
