"""What happened during training: epochs of fine-tuning, steps of iterative pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, INK, MARKERS, QUIET, entitle_, new_figure, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from prunecli.report import FinetuneReport, IterativeReport

FEW = 12
"""Points up to which every one has a marker."""


def training_picture(report: FinetuneReport, *, narrow: bool = False) -> Picture:
    """Draw accuracy, losses and the learning rate after every epoch; the best one is marked.

    Beside the accuracy on held-out images: that before training, and the teacher's on the test
    images, which are others.
    """
    height = 2.6 if narrow else 3.4
    figure, (accuracy, loss, rate) = new_figure(9.0, height, columns=3, narrow=narrow)
    epochs = [epoch.epoch for epoch in report.epochs]
    held_out = [100 * epoch.accuracy for epoch in report.epochs]
    line_(accuracy, [0, *epochs], [100 * report.held_out.before, *held_out], 0, "held out")
    accuracy.plot(
        [report.best_epoch], [100 * report.held_out.after], marker="*", markersize=12, color=INK,
        linestyle="none", label="best epoch", zorder=5,
    )  # fmt: skip
    if report.teacher is not None:
        name = f"teacher, on {report.accuracy.split}"
        accuracy.axhline(100 * report.teacher, color=QUIET, linestyle="--", label=short(name))
    line_(loss, epochs, [epoch.train_loss for epoch in report.epochs], 1, "training")
    line_(loss, epochs, [epoch.loss for epoch in report.epochs], 0, "held out")
    line_(rate, epochs, [epoch.learning_rate for epoch in report.epochs], 2, "")
    measure = report.accuracy.measure
    score = f"{measure[:1].upper()}{measure[1:]} (%)"
    for axes, title in ((accuracy, score), (loss, "Loss"), (rate, "Learning rate")):
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        whole_numbers_(axes)
    rate.set_ylim(bottom=0)
    for axes, columns in ((accuracy, 2), (loss, 2)):  # below: any place inside may hold a curve
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)
    title = f"{len(epochs)} epochs of training"
    return Picture(figure, title, _training_text(report))


def removals_picture(report: IterativeReport, *, narrow: bool = False) -> Picture:
    """Draw what is kept of FLOPs and parameters, and the accuracy before every pruning step."""
    figure, (left, right) = new_figure(9.0, 2.6 if narrow else 3.4, columns=2, narrow=narrow)
    at = [removal.removal for removal in report.removals]
    line_(left, at, [100 * removal.flops for removal in report.removals], 0, "FLOPs")
    line_(left, at, [100 * removal.params for removal in report.removals], 1, "parameters")
    line_(right, at, [100 * removal.accuracy for removal in report.removals], 0, "held out")
    if report.accuracy is not None:
        for value, stroke, name in (
            (report.accuracy.before, "--", "original model"),
            (report.accuracy.after, ":", "result"),
        ):
            right.axhline(100 * value, color=QUIET, linestyle=stroke, label=name)
    left.set_title("Kept after each pruning step (%)", loc="left")
    left.set_ylim(bottom=0)
    right.set_title("Accuracy before each step (%)", loc="left")
    for axes in (left, right):
        axes.set_xlabel("pruning step")
        axes.legend(frameon=False)
        whole_numbers_(axes)
    title = f"{len(at)} pruning steps, with training updates between them"
    entitle_(figure, title, narrow=narrow)
    text = "; ".join(
        f"{removal.removal}: {removal.flops:.1%} of the FLOPs, accuracy {removal.accuracy:.1%}"
        for removal in report.removals
    )
    return Picture(figure, title, f"FLOPs kept after each step, accuracy before it. {text}.")


def line_(
    axes: Axes, places: Sequence[float], values: Sequence[float], look: int, label: str
) -> None:
    """Draw a line in one of the common looks, with markers where its points are few."""
    axes.plot(
        places,
        values,
        color=COLOURS[look],
        marker=MARKERS[look] if len(places) <= FEW else "",
        markersize=4.5,
        linewidth=1.6,
        label=label or None,
    )


def whole_numbers_(axes: Axes) -> None:
    """Show whole numbers alone along an axis of epochs or steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _training_text(report: FinetuneReport) -> str:
    measure = report.accuracy.measure
    epochs = "; ".join(
        f"epoch {epoch.epoch}: {measure} {epoch.accuracy:.1%}, loss {epoch.loss:.3f}"
        for epoch in report.epochs
    )
    known = "" if report.teacher is None else f" Teacher: {report.teacher:.1%}."
    return (
        f"On held-out images, {report.held_out.before:.1%} before training. {epochs}. "
        f"Best: epoch {report.best_epoch}.{known}"
    )
