"""How accuracy falls when one channel group alone is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import QUIET, entitle_, look_of, new_figure, short

if TYPE_CHECKING:
    from prunecli.report import GroupAnalysis, ModelAnalysis

NAMED = 6
"""Groups that get a colour and a name: those that lose most; the rest are grey lines."""


def sensitivity_picture(model: ModelAnalysis, *, narrow: bool = False) -> Picture:
    """Draw accuracy against the share pruned of each group alone; the most sensitive are named."""
    figure, (axes,) = new_figure(8.2, 4.8 if narrow else 4.4, narrow=narrow)
    groups = sorted((group for group in model.groups if group.sensitivity), key=_lowest)
    named = groups[:NAMED]
    whole = 100 * (model.accuracy or 0.0)
    for group in (*groups[NAMED:], *named):
        is_named = group in named
        colour, marker = (
            look_of([each.name for each in named], group.name) if is_named else (QUIET, "")
        )
        rows = [(0.0, whole), *((100 * c["cut"], 100 * c["accuracy"]) for c in group.sensitivity)]
        shares, values = zip(*rows, strict=True)
        axes.plot(
            shares,
            values,
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.6 if is_named else 0.8,
            alpha=1.0 if is_named else 0.45,
            zorder=3 if is_named else 2,
            label=short(group.name) if is_named else "_other groups",
        )
    axes.set_xlabel("channels pruned in one group alone (%)")
    axes.set_ylabel("accuracy (%)")
    axes.set_xlim(left=0)
    rest = len(groups) - len(named)
    title = f"{model.architecture}: how sensitive each channel group is"
    entitle_(figure, title, narrow=narrow)
    note = f"most sensitive first; grey: the other {rest}" if rest > 0 else "most sensitive first"
    place, at = ("upper center", (0.5, -0.2)) if narrow else ("upper left", (1.0, 1.0))
    axes.legend(loc=place, bbox_to_anchor=at, frameon=False, title=note, title_fontsize=8)
    return Picture(figure, title, _description(groups))


def _lowest(group: GroupAnalysis) -> float:
    return min(cut["accuracy"] for cut in group.sensitivity)


def _description(groups: list[GroupAnalysis]) -> str:
    parts = [
        f"{group.name}: "
        + ", ".join(f"{c['accuracy']:.1%} without {c['cut']:.0%}" for c in group.sensitivity)
        for group in groups
    ]
    return "Accuracy after pruning a share of one group alone. " + "; ".join(parts) + "."
