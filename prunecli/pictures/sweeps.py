"""Accuracy and loss against cost, one line per way of choosing channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.cost.kinds import cost_label
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import QUIET, entitle_, explain_, look_of, new_figure, short

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from prunecli.report import Score, SweepReport, Trial

CONTROL = "random"
LINES = ("-", (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
"""Strokes of the allocations, in turn."""

DASHES = ("--", (0, (2, 2)), (0, (6, 3)), (0, (1, 3)))
"""Strokes of random channels under each allocation."""

WIDE = 10.0
"""Losses that differ by more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class _Curve:
    """One way of choosing channels, and its trials that have a score."""

    label: str
    colour: str
    marker: str
    stroke: object
    trials: tuple[Trial, ...]


def sweep_picture(report: SweepReport, *, narrow: bool = False) -> Picture:
    """Draw accuracy and loss against the share kept of the swept cost.

    With repairs the repaired scores are the lines; pale ones are those before the repair.
    """
    figure, (left, right) = new_figure(9.0, 3.2 if narrow else 4.4, columns=2, narrow=narrow)
    curves = _curves(report)
    for axes, value in ((left, _accuracy), (right, _loss)):
        for curve in curves:
            _draw_(axes, report, curve, value)
        axes.plot(
            [100], [value(_dense(report))], marker="*", markersize=11, color="black",
            linestyle="none", label="original model", zorder=5,
        )  # fmt: skip
        axes.set_xlabel(f"{cost_label(report.kind)} kept (%)")
    left.set_ylabel("accuracy (%)")
    left.set_title("Accuracy", loc="left")
    right.set_ylabel("mean cross-entropy")
    right.set_title("Loss", loc="left")
    _scale_(right, report)
    after = f"after {', '.join(report.repair)}" if report.repair else "before fine-tuning"
    title = f"{report.architecture}: what pruning costs, {after}"
    pale = "; pale: before the repair" if report.repair else ""
    entitle_(figure, f"{title}, on {report.images} images{pale}", narrow=narrow)
    explain_(figure, left.get_legend_handles_labels(), narrow=narrow)
    return Picture(figure, title, _description(report, curves))


def _curves(report: SweepReport) -> list[_Curve]:
    several = len({trial.allocation for trial in report.trials}) > 1
    allocations = list(dict.fromkeys(trial.allocation for trial in report.trials))
    signals = [trial.signal for trial in report.trials if trial.signal != CONTROL]
    found = []
    for signal, allocation in dict.fromkeys((t.signal, t.allocation) for t in report.trials):
        trials = tuple(
            trial
            for trial in report.trials
            if (trial.signal, trial.allocation) == (signal, allocation) and trial.final is not None
        )
        is_control = signal == CONTROL
        colour, marker = (QUIET, "") if is_control else look_of(signals, signal)
        strokes = DASHES if is_control else LINES
        stroke = strokes[allocations.index(allocation) % len(strokes)]
        label = f"{short(signal)}, {allocation}" if several else short(signal)
        found.append(_Curve(label, colour, marker, stroke, trials))
    return found


def _draw_(axes: Axes, report: SweepReport, curve: _Curve, value: Callable[[Score], float]) -> None:
    """Draw one line from the original model down; a pale one for what was before a repair."""
    dense = (100.0, value(_dense(report)))
    repaired = any(trial.repaired is not None for trial in curve.trials)
    for pale in (True, False) if repaired else (False,):
        scores = [(trial, trial.score if pale else trial.final) for trial in curve.trials]
        points = [(100 * t.kept[report.kind], value(score)) for t, score in scores if score]
        shares, values = zip(dense, *points, strict=True)
        axes.plot(
            shares,
            values,
            color=curve.colour,
            linestyle=curve.stroke,
            marker="" if pale else curve.marker,
            markersize=4.5,
            markevery=range(1, len(shares)),
            linewidth=0.9 if pale else 1.6,
            alpha=0.4 if pale else 1.0,
            label="_before the repair" if pale else curve.label,
        )


def _scale_(axes: Axes, report: SweepReport) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    losses = [score.loss for score in _scores(report) if 0 < score.loss < math.inf]
    if losses and max(losses) > WIDE * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("mean cross-entropy (logarithmic)")
    else:
        axes.set_ylim(bottom=0)


def _scores(report: SweepReport) -> list[Score]:
    trials: Sequence[Trial] = (report.dense, *report.trials)
    return [score for t in trials for score in (t.score, t.repaired) if score is not None]


def _dense(report: SweepReport) -> Score:
    assert report.dense.score is not None
    return report.dense.score


def _accuracy(score: Score) -> float:
    return 100 * score.accuracy


def _loss(score: Score) -> float:
    return score.loss


def _description(report: SweepReport, curves: Sequence[_Curve]) -> str:
    lines = [
        f"Accuracy and loss of {report.architecture} against {cost_label(report.kind)} kept.",
        f"Original: {_dense(report).accuracy:.1%}.",
    ]
    for curve in curves:
        points = [
            f"{trial.final.accuracy:.1%} at {trial.kept[report.kind]:.1%}"
            for trial in curve.trials
            if trial.final is not None
        ]
        lines.append(f"{curve.label}: {', '.join(points) or 'not pruned'}.")
    return " ".join(lines)
