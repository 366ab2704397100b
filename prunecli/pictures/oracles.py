"""How well importance criteria agree with the oracle: bars of Spearman's correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, beside, entitle_, explain_, new_figure

if TYPE_CHECKING:
    from prunecli.report import ModelAnalysis, OracleReport, SignalAgreement

SCOPES = (
    ("per_layer", "per layer (mean)"),
    ("pooled", "all layers pooled"),
    ("pooled_l2", "pooled after layerwise L2"),
)
AGAINST = {"size": "size of the loss change", "change": "signed loss change"}


def oracle_picture(model: ModelAnalysis, *, narrow: bool = False) -> Picture:
    """Draw three bars per criterion, the best on top, against the size and the signed loss change.

    The three are those of the tables of Molchanov et al. 2017: correlations within layers, over
    all channels, and over all after every layer's saliencies are divided by their L2 norm.
    """
    oracle = model.oracle
    assert oracle is not None
    names = _ranked(oracle)
    height = (1.1 if narrow else 1.5) + 0.42 * len(names)
    figure, panels = new_figure(9.0, height, columns=len(AGAINST), narrow=narrow)
    for axes, (against, label) in zip(panels, AGAINST.items(), strict=True):
        rows = {row.signal: row for row in oracle.signals if row.against == against}
        for at, (scope, meaning) in enumerate(SCOPES):
            places = [place + 0.27 * (at - 1) for place in range(len(names))]
            values = [_value(rows.get(name), scope) for name in names]
            axes.barh(places, values, height=0.25, color=COLOURS[at], label=meaning)
        named = narrow or axes is panels[0]
        labels = [beside(name, narrow=narrow) if named else "" for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.0)
        axes.set_xlabel("Spearman's rank correlation")
        axes.set_title(f"By {label}", loc="left")
    title = f"{model.architecture}: how well criteria rank channels"
    heading = f"{title}, {oracle.channels} channels on {oracle.images} images"
    entitle_(figure, heading, narrow=narrow)
    explain_(figure, panels[0].get_legend_handles_labels(), most=3, narrow=narrow)
    return Picture(figure, title, _description(oracle, names))


def _ranked(oracle: OracleReport) -> list[str]:
    found = [row for row in oracle.signals if row.against == "size"]
    return [row.signal for row in sorted(found, key=lambda row: -(row.pooled_l2 or 0.0))]


def _value(row: SignalAgreement | None, scope: str) -> float:
    """Return the length of a bar; a correlation that is not defined has none."""
    found = None if row is None else getattr(row, scope)
    return 0.0 if found is None else float(found)


def _description(oracle: OracleReport, names: list[str]) -> str:
    rows = {row.signal: row for row in oracle.signals if row.against == "size"}
    parts = [
        f"{name}: " + ", ".join(f"{_value(rows[name], scope):.2f} {word}" for scope, word in SCOPES)
        for name in names
    ]
    return "Spearman's correlation with the size of the loss change. " + "; ".join(parts) + "."
