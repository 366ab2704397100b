"""How channels were chosen while a model trained: the budget's course, and the widths over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.cost.kinds import cost_label
from prunecli.pictures.layers import MOST
from prunecli.pictures.rows import rows_of
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import (
    COLOURS,
    INK,
    PAPER,
    QUIET,
    entitle_,
    explain_,
    new_figure,
    quiet_map,
)
from prunecli.pictures.training import line_, whole_numbers_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from prunecli.report import CoursePoint, LearningReport, PruneReport

COLUMNS = 240
"""Moments of the search that widths are drawn at."""

AFTER = 1.15
"""How far widths are drawn, in lengths of the search: they stay as they are from its end on."""

LEGEND = (0.25, 0.5, 0.75, 1.0)
"""Kept shares that the legend has colours of."""

QUARTERS = (0.25, 0.5, 0.75)
"""Parts of the search at which the text of a picture tells the widths."""

LONG_LABEL = 15
"""Characters of a label beside which there is no other, below a picture for a phone."""

STROKES = {"budget": "--", "expected cost": ":", "hard cost": "-"}
"""How the lines of the budget's course are stroked: the three lie on each other for some rules."""


def course_picture(report: PruneReport, *, narrow: bool = False) -> Picture:
    """Draw the budget's course where there was a search, and the scores of every epoch.

    The end of the search is marked; up to there the model was scored with the gates that were open.
    """
    learning = report.learning
    assert learning is not None
    searched = bool(learning.searched)
    columns = 3 if searched else 2
    figure, axes = new_figure(9.0, 2.6 if narrow else 3.5, columns=columns, narrow=narrow)
    *shares, accuracy, loss = axes
    if searched:
        _draw_shares_(shares[0], learning)
        shares[0].set_title(f"Share of the {cost_named(report)} (%)", loc="left")
    _draw_accuracy_(accuracy, learning)
    scored = learning.scored
    at = [point.epoch for point in scored]
    line_(loss, at, [point.train_loss or 0.0 for point in scored], 1, "training")
    line_(loss, at, [point.loss or 0.0 for point in scored], 0, "held out")
    accuracy.set_title("Accuracy (%)", loc="left")
    loss.set_title("Loss", loc="left")
    for each in axes:
        each.set_xlabel("epoch")
        each.set_xlim(left=0)
        whole_numbers_(each)
        if searched:
            label = "end of the search" if each is axes[0] else None
            each.axvline(
                learning.search_epochs, color=QUIET, linewidth=1.0, linestyle="-.", label=label
            )
        labels = each.get_legend_handles_labels()[1]
        beside = 1 if narrow and max(map(len, labels)) > LONG_LABEL else 2
        each.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=beside)
    title = f"{report.architecture}: {learning.method}, {learning.epochs} epochs"
    if searched:
        title += f", {learning.search_epochs:.3g} of them choosing channels"
    entitle_(figure, title, narrow=narrow)
    return Picture(figure, title, _course_text(report, learning))


def cost_named(report: PruneReport) -> str:
    """Return what people call the cost that the budget of a report names first."""
    return cost_label(next(iter(report.plan.get("budget") or ()), "flops"))


def _draw_shares_(axes: Axes, learning: LearningReport) -> None:
    """Draw budget, expected and hard cost; the model begins whole."""
    epochs = [0.0, *(point.epoch for point in learning.course)]
    for at, (label, values) in enumerate(
        {
            "budget": [point.budget for point in learning.course],
            "expected cost": [point.expected for point in learning.course],
            "hard cost": [point.cost for point in learning.course],
        }.items()
    ):
        axes.plot(
            epochs,
            [100.0, *(100 * value for value in values)],
            color=COLOURS[at],
            linestyle=STROKES[label],
            linewidth=1.6,
            zorder=4 - at,  # where they lie on each other, the strokes of all of them are seen
            label=label,
        )
    axes.set_ylim(bottom=0)


def _draw_accuracy_(axes: Axes, learning: LearningReport) -> None:
    """Draw the accuracy of every epoch, that before, and that of the epoch that is the result."""
    scored = learning.scored
    epochs = [point.epoch for point in scored]
    values = [100 * (point.accuracy or 0.0) for point in scored]
    if learning.accuracy is not None:
        before = 100 * learning.accuracy.before
        axes.axhline(before, color=QUIET, linestyle="--", label=learning.before)
        epochs, values = [0.0, *epochs], [before, *values]
    line_(axes, epochs, values, 0, "held out")
    if learning.best_epoch is not None and learning.accuracy is not None:
        axes.plot(
            [learning.best_epoch], [100 * learning.accuracy.after], marker="*", markersize=12,
            color=INK, linestyle="none", label="result", zorder=5,
        )  # fmt: skip


def _course_text(report: PruneReport, learning: LearningReport) -> str:
    epochs = "; ".join(
        f"epoch {point.epoch:.3g}: budget {point.budget:.1%}, kept {point.cost:.1%}, "
        f"accuracy {point.accuracy or 0.0:.1%}"
        for point in learning.scored
    )
    words = f"Shares of the {cost_named(report)}, and accuracy on held-out images. {epochs}."
    change = learning.accuracy
    if change is not None:
        words = f"{change.before:.1%} accuracy before, {change.after:.1%} in the end. {words}"
    return words


# --- widths ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Strip:
    """A row of the map of widths: `kept` [moments] channels of `width`."""

    label: str
    width: int
    kept: NDArray[np.float64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """The shares kept [moments]."""
        return self.kept / max(self.width, 1)


def widths_picture(report: PruneReport, *, narrow: bool = False) -> Picture:
    """Draw the share that every channel group kept, from the start of the search to its end.

    A group is a strip, darker where more of it is left; neighbours of very many share a strip.
    Between two points of the course a width is taken to be that of the earlier one.
    """
    learning = report.learning
    assert learning is not None
    end = learning.search_epochs
    moments = (np.arange(COLUMNS) + 0.5) * AFTER * end / COLUMNS
    strips = _strips(report, learning, moments, narrow=narrow)
    around, each, type_size = (0.6, 0.185, 8.0) if narrow else (1.5, 0.165, 7.5)
    height = around + each * max(len(strips), 4)
    figure, (axes,) = new_figure(8.2, height + (0.9 if narrow else 0.0), narrow=narrow)
    axes.imshow(
        np.stack([100 * strip.shares for strip in strips]),
        extent=(0.0, AFTER * end, len(strips) - 0.5, -0.5),
        cmap=quiet_map(),
        vmin=0.0,
        vmax=100.0,
        aspect="auto",
        interpolation="none",
    )
    axes.hlines(np.arange(1, len(strips)) - 0.5, 0.0, AFTER * end, color=PAPER, linewidth=0.8)
    axes.axvline(end, color=INK, linewidth=1.0, linestyle="-.")
    axes.set_yticks(range(len(strips)), [strip.label for strip in strips], fontsize=type_size)
    axes.grid(visible=False)
    axes.set_xlabel("epoch")
    if not narrow:
        beside = axes.secondary_yaxis("right")
        left = [f"{strip.kept[-1]:.0f} of {strip.width}" for strip in strips]
        beside.set_yticks(range(len(strips)), left, fontsize=type_size)
        beside.tick_params(length=0)
        beside.spines["right"].set_visible(False)
    _widths_legend_(axes, narrow=narrow)
    title = f"{report.architecture}: channels kept of every group during the search"
    entitle_(figure, title, narrow=narrow)
    return Picture(figure, title, _widths_text(report, learning))


def _widths_legend_(axes: Axes, *, narrow: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = quiet_map()
    end: Line2D = Line2D(
        [], [], color=INK, linewidth=1.0, linestyle="-.", label="end of the search"
    )
    handles: list[Artist] = [
        *(Patch(facecolor=colours(share), label=f"{share:.0%} kept") for share in LEGEND),
        end,
    ]
    figure = axes.get_figure(root=True)
    assert figure is not None
    explain_(figure, (handles, [str(handle.get_label()) for handle in handles]), narrow=narrow)


def _strips(
    report: PruneReport, learning: LearningReport, moments: NDArray[np.float64], *, narrow: bool
) -> list[_Strip]:
    """Return the rows of the map at some moments, in epochs."""
    whole = _whole(report, learning)
    names = list(whole)
    at = widths_at(learning, whole, moments)
    rows = rows_of(names, most=MOST[narrow], narrow=narrow, noun="groups")
    return [
        _Strip(
            row.label,
            sum(whole[name] for name in names[row.at]),
            np.sum([at[name] for name in names[row.at]], axis=0, dtype=np.float64),
        )
        for row in rows
    ]


def _whole(report: PruneReport, learning: LearningReport) -> dict[str, int]:
    """Return the width that every group of the course began with."""
    known = {group.name: group.before for group in report.groups}
    course = learning.course
    return {
        name: known.get(name, max(point.widths.get(name, 0) for point in course))
        for name in course[0].widths
    }


def widths_at(
    learning: LearningReport, whole: Mapping[str, int], moments: NDArray[np.float64]
) -> dict[str, NDArray[np.int64]]:
    """Return the widths [moments] of every group at some moments, in epochs.

    They are whole until the first point. The channels that a search ends with are those of the
    first point after it, whose epoch ended later.
    """
    end = learning.search_epochs
    points: Sequence[CoursePoint] = learning.course
    times = [min(p.epoch, end) if p.phase != "search" else p.epoch for p in points]
    last = np.searchsorted(np.asarray(times), moments, side="right")
    return {
        name: np.asarray([width, *(point.widths[name] for point in points)], np.int64)[last]
        for name, width in whole.items()
    }


def _widths_text(report: PruneReport, learning: LearningReport) -> str:
    whole = _whole(report, learning)
    end = learning.search_epochs
    at = widths_at(learning, whole, np.asarray([part * end for part in QUARTERS] + [AFTER * end]))
    groups = "; ".join(
        f"{name}: {width}, {', '.join(map(str, at[name][:-1]))}, {at[name][-1]}"
        for name, width in whole.items()
    )
    return (
        f"Channels at the start, after each quarter of the search, and when it was over. {groups}."
    )
