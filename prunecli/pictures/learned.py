"""What models learned of a data set: how many images early or never, and how far runs agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.pictures.datasets import NAME, WIDTH
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, MARKERS, QUIET, new_figure, quiet_map, short

if TYPE_CHECKING:
    from prunecli.report import LearnabilityPair, LearnabilityReport


def learned_picture(report: LearnabilityReport, *, narrow: bool = False) -> Picture:
    """Draw the share of the images by the share of epochs after which they were correct.

    As many runs are drawn as there are colours.
    """
    figure, (axes,) = new_figure(WIDTH, 3.2, narrow=narrow)
    for run, colour, marker in zip(report.runs, COLOURS, MARKERS, strict=False):
        shares = np.linspace(0, 1, run.epochs + 1)
        axes.plot(
            100 * shares, 100 * np.array(run.levels) / run.images, color=colour, marker=marker,
            markersize=4.5, linewidth=1.6, label=short(run.name, NAME),
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epochs with a correct prediction (%)")
    axes.set_ylabel("images (%)")
    title = "How early images are learned"
    if len(report.runs) > len(COLOURS):
        title = f"{title}: {len(COLOURS)} of {len(report.runs)} runs"
    axes.set_title(title, loc="left")
    axes.legend(loc="best", frameon=False)
    words = "; ".join(
        f"{run.name}: {run.always / run.images:.1%} of the images always correct, "
        f"{run.never / run.images:.1%} never"
        for run in report.runs
    )
    return Picture(figure, title, f"Images by how often they were classified correctly. {words}.")


def agreement_picture(pair: LearnabilityPair, *, narrow: bool = False) -> Picture:
    """Draw how many images have which learnability in two runs, on a logarithmic scale."""
    counts = np.array(pair.counts, np.float64)
    figure, (axes,) = new_figure(WIDTH, 3.2 if narrow else 4.0, narrow=narrow)
    # Half a step beyond 0 and 1, so that every cell lies on the learnability that it stands for.
    edges = [(-50 / (size - 1), 100 + 50 / (size - 1)) for size in counts.shape]
    axes.imshow(
        np.log1p(counts).T,
        origin="lower",
        extent=(*edges[0], *edges[1]),
        cmap=quiet_map(),
        vmin=0.0,
        aspect="auto",
        interpolation="none",
    )
    axes.plot([0, 100], [0, 100], color=QUIET, linewidth=1.0, linestyle="--")
    axes.grid(visible=False)
    axes.set_xlabel(f"correct epochs in {short(pair.first, NAME)} (%)")
    axes.set_ylabel(f"correct epochs in {short(pair.second, NAME)} (%)")
    title = "How far two runs agree"
    if pair.pearson is not None:
        title = f"{title}: Pearson {pair.pearson:.2f}"
    axes.set_title(title, loc="left")
    words = (
        f"Images by their learnability in {pair.first} and in {pair.second}, darker for more: "
        f"{pair.images} images, {pair.always_right} of them always correct in both; of the "
        f"hardest tenths {pair.overlap:.0%} are the same."
    )
    return Picture(figure, title, words)
