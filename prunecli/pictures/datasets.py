"""How hard a data set is, class by class: bars, its spectrum, and what a smaller set would lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, QUIET, new_figure, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from prunecli.report import ClassDifficulty, DatasetAnalysis

WIDTH = 4.5
"""Inches: beside another one on a desk, and readable on a phone."""

MOST = 40
"""Classes that are named in one picture; of more, those are that matter most."""

NAME = 18
"""Characters of the name of a class."""

TOLD = 12
"""Classes whose figures are part of the description of a picture."""


def hardest(dataset: DatasetAnalysis) -> list[ClassDifficulty]:
    """Return the classes with most neighbours from other classes, the hardest first."""
    return sorted(dataset.difficulty, key=lambda entry: -entry.others)


def difficulty_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the share of neighbours from other classes, the hardest class on top."""
    ranked = hardest(dataset)
    shown = ranked[:MOST]
    names = [entry.name for entry in shown]
    title = f"How hard each class is{_only(len(shown), len(ranked), 'hardest')}"
    figure = _bars(names, [100 * entry.others for entry in shown], "{:.0f}", narrow=narrow)
    figure.axes[0].set_xlabel("neighbours from other classes (%)")
    figure.axes[0].set_title(title, loc="left")
    told = ", ".join(f"{entry.name} {entry.others:.0%}" for entry in shown[:TOLD])
    return Picture(figure, title, f"Neighbours from other classes, the hardest first: {told}.")


def balance_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the images of every class: bars, or one falling line where there are many classes."""
    ranked = sorted(dataset.classes, key=lambda entry: -entry.count)
    counts = [entry.count for entry in ranked]
    title = "Images of each class"
    if len(ranked) <= MOST:
        figure = _bars([entry.name for entry in ranked], counts, "{:,.0f}", narrow=narrow)
        figure.axes[0].set_xlabel("images")
    else:
        title = f"Images of each of {len(ranked):,} classes"
        figure, (axes,) = new_figure(WIDTH, 2.9, narrow=narrow)
        places = range(1, len(counts) + 1)
        axes.fill_between(places, counts, step="mid", color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.step(places, counts, where="mid", color=COLOURS[0], linewidth=1.6)
        axes.set_ylim(bottom=0)
        axes.set_xlim(1, len(counts))
        axes.set_xlabel("classes, the largest first")
        axes.set_ylabel("images")
    figure.axes[0].set_title(title, loc="left")
    largest, smallest = ranked[0], ranked[-1]
    words = (
        f"The largest class is {largest.name} with {largest.count} images, the smallest "
        f"{smallest.name} with {smallest.count}."
    )
    return Picture(figure, title, words)


def spectrum_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the eigenvalues of the Laplacian of class similarities, ascending."""
    from matplotlib.ticker import MaxNLocator

    values = dataset.eigenvalues
    figure, (axes,) = new_figure(WIDTH, 2.9, narrow=narrow)
    places = range(1, len(values) + 1)
    axes.fill_between(places, values, color=COLOURS[0], alpha=0.15, linewidth=0)
    marker = "o" if len(values) <= MOST else ""
    axes.plot(places, values, color=COLOURS[0], marker=marker, markersize=4.5, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("size")
    title = "Spectrum of the class similarities"
    axes.set_title(title, loc="left")
    told = ", ".join(f"{value:.3f}" for value in values[:TOLD])
    rest = "" if len(values) <= TOLD else f" and so on to {values[-1]:.3f}"
    return Picture(figure, title, f"{len(values)} eigenvalues from the smallest: {told}{rest}.")


def reduction_picture(dataset: DatasetAnalysis, *, narrow: bool = False) -> Picture:
    """Draw the score of random smaller sets against their images per class."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    reduction = dataset.reduction
    assert reduction is not None
    figure, (axes,) = new_figure(WIDTH, 2.9, narrow=narrow)
    sizes = [step.images_per_class for step in reduction.steps]
    scores = [step.score for step in reduction.steps]
    low, high = (reduction.whole * (1 + sign * reduction.tolerance) for sign in (-1, 1))
    axes.axhspan(
        low, high, color=COLOURS[2], alpha=0.18, linewidth=0,
        label=f"within {reduction.tolerance:.0%} of all images",
    )  # fmt: skip
    axes.axhline(reduction.whole, color=COLOURS[2], linewidth=1.2, linestyle="--")
    axes.errorbar(
        sizes,
        scores,
        yerr=[step.deviation for step in reduction.steps],
        color=COLOURS[0],
        marker="o",
        markersize=4.5,
        linewidth=1.6,
        elinewidth=1.0,
        capsize=2.5,
        label="random sets of this size",
    )
    if reduction.smallest is not None:
        at = sizes.index(reduction.smallest)
        axes.plot(
            sizes[at], scores[at], marker="*", markersize=13, color=COLOURS[1], linestyle="none",
            label=f"the smallest that keeps it: {reduction.smallest}", zorder=5,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images per class")
    axes.set_ylabel("CSG without density weights")
    title = "How small the data set could be"
    axes.set_title(title, loc="left")
    axes.legend(loc="best", frameon=False)
    told = ", ".join(f"{step.score:.3f} with {step.images_per_class}" for step in reduction.steps)
    kept = (
        "no smaller set keeps the score"
        if reduction.smallest is None
        else f"{reduction.smallest} images per class keep the score"
    )
    words = f"Score by images per class: {told}; all images: {reduction.whole:.3f}; {kept}."
    return Picture(figure, title, words)


def _bars(names: Sequence[str], values: Sequence[float], form: str, *, narrow: bool) -> Figure:
    """Return one bar per class from the top, its value beside it."""
    figure, (axes,) = new_figure(WIDTH, 0.75 + 0.21 * max(len(names), 3), narrow=narrow)
    places = range(len(names))
    axes.barh(places, values, height=0.72, color=COLOURS[0])
    axes.set_yticks(places, [short(name, NAME) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    for place, value in enumerate(values):
        axes.annotate(
            form.format(value), (value, place), (3, 0), textcoords="offset points",
            va="center", fontsize=7.5, color=QUIET,
        )  # fmt: skip
    return figure


def _only(shown: int, of: int, which: str) -> str:
    return "" if shown == of else f": the {shown} {which} of {of:,}"
