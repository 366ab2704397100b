"""What `analyze` says about a model."""

from typing import Any

from rich.table import Table

from prunecli.report import ImportanceReport, ModelAnalysis, OracleReport
from prunecli.wording import percent

from .block_tables import block_table
from .table_parts import (
    BAR,
    Parts,
    add_rest,
    cost_line,
    dead_parts,
    fact_rows,
    frozen_parts,
    grid,
    preparation_facts,
    shorten,
    sparsity_facts,
    sparsity_parts,
)


def model_parts(model: ModelAnalysis, rows: int | None) -> Parts:
    """Return how far a model can be pruned, layer by layer."""
    facts = {
        "model": model.architecture,
        "cost": cost_line(model.cost),
        "prunable": f"{percent(model.prunable_flops)} of the FLOPs; "
        f"the lowest reachable is {percent(model.lowest_flops)}",
    }
    if model.accuracy is not None:
        facts["accuracy"] = percent(model.accuracy)
    facts |= preparation_facts(model.preparation)
    if model.blocks:
        facts["blocks"] = (
            f"{len(model.blocks)} can be deleted as a whole (prune --delete-blocks; --verbose "
            "lists them)"
        )
    if model.not_counted:
        counted = (f"{name} x{count}" for name, count in model.not_counted.items())
        facts["not counted"] = ", ".join(counted)
    if model.sparsity is not None:
        facts.update(sparsity_facts(model.sparsity))
    oracle = [] if model.oracle is None else [_oracle_table(model.oracle)]
    importance = [] if model.importance is None else [_importance_table(model.importance, rows)]
    return [
        _analysis_table(model, rows),
        *sparsity_parts(model.sparsity, rows),
        *oracle,
        *importance,
        *([] if model.dead is None else dead_parts(model.dead, rows)),
        *([block_table(model.blocks, rows)] if model.blocks and rows is None else []),
        *frozen_parts(model.frozen, rows),
        fact_rows(facts),
    ]


def _oracle_table(oracle: OracleReport) -> Table:
    """Return one row per signal, the best first, with a bar for its pooled correlation."""
    table = grid("signal", ">per layer", ">pooled", ">pooled, L2", "")
    found = [row for row in oracle.signals if row.against == "size"]
    for row in sorted(found, key=lambda row: -(row.pooled_l2 or 0.0)):
        values = (row.per_layer, row.pooled, row.pooled_l2)
        texts = ("" if value is None else f"{value:.2f}" for value in values)
        bar = BAR * round(10 * max(row.pooled_l2 or 0.0, 0.0))
        table.add_row(shorten(row.signal, 32), *texts, bar)
    table.caption = (
        "Spearman's correlation with the size of the loss change when each of "
        f"{oracle.channels} channels alone is removed, on {oracle.images} images"
    )
    return table


def _importance_table(importance: ImportanceReport, rows: int | None) -> Table:
    """Return one row per group and one column per importance, each as a share of its largest."""
    table = grid("importance of", *(f">{name}" for name in importance.groups))
    found = list(importance.groups.values())
    most = [max((value for value in own.values() if value), default=1.0) for own in found]
    groups = list(found[0])
    for group in groups[:rows]:
        values = zip((own[group] for own in found), most, strict=True)
        shares = ("" if value is None else f"{value / largest:.3f}" for value, largest in values)
        table.add_row(shorten(group), *shares)
    add_rest(table, len(groups), rows, "groups")
    agreement = "; ".join(
        f"{pair}: {'undefined' if value is None else f'{value:.2f}'}"
        for pair, value in importance.agreement.items()
    )
    table.caption = (
        f"shares of the largest, on {importance.images} images; Spearman's correlation of the "
        f"groups' ranks: {agreement}"
    )
    return table


def _analysis_table(model: ModelAnalysis, rows: int | None) -> Table:
    """Return one row per group; bare percentages, so that all columns fit beside the names."""
    shares = sorted({cut["cut"] for group in model.groups for cut in group.sensitivity})
    columns = (">width", ">min", ">FLOPs", ">params", ">saliency")
    table = grid("channel group", *columns, *(f">-{share:.0%}" for share in shares))
    for group in model.groups[:rows]:
        accuracy = {cut["cut"]: f"{100 * cut['accuracy']:.1f}" for cut in group.sensitivity}
        table.add_row(
            shorten(group.name, 22 if shares else 34),
            str(group.width),
            str(group.minimum),
            f"{100 * group.flops_share:.1f}",
            f"{100 * group.params_share:.1f}",
            _saliency(group.saliency),
            *(accuracy.get(share, "") for share in shares),
        )
    add_rest(table, len(model.groups), rows, "groups")
    table.caption = "FLOPs, params: % of the model removed if the whole group is removed"
    if shares:
        table.caption += "; -25%: accuracy (%) after pruning that share of it alone"
    return table


def _saliency(saliency: Any) -> str:
    middle = saliency.get("median", saliency.get("mean"))
    return "" if middle is None else f"{middle:.3g}"
