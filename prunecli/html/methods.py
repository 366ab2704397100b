"""The parts of a page about methods that train while they prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.html.drawing import drawing
from prunecli.html.parts import Folded, Grid, Section
from prunecli.html.words import folded, place_text
from prunecli.pictures import cost_named, course_picture, removals_picture, widths_picture
from prunecli.report import best_epoch_text
from prunecli.wording import counted, percent, processes_text, verb

if TYPE_CHECKING:
    from prunecli.html.parts import Cell, Part
    from prunecli.report import CoursePoint, IterativeReport, LearningReport, PruneReport


def iterative_sections(report: IterativeReport | None) -> list[Section]:
    """Return the pruning steps of an iterative cut, or how many there would be."""
    if report is None:
        return []
    if report.accuracy is None:
        text = (
            f"About {report.planned_removals:,} pruning steps with {report.planned_updates:,} "
            f"training updates would take {report.planned_seconds:,.0f} s on this machine. "
            f"Importance criterion: {report.criterion}."
        )
        return [Section("Iterative pruning, as planned", text)]
    worst = max((removal.max_rel_error for removal in report.removals), default=0.0)
    text = (
        f"{counted(len(report.removals), 'pruning step')}, each verified (max relative error "
        f"{worst:.1e}). Accuracy on {report.images:,} held-out images: "
        f"{percent(report.accuracy.before)} for the original, {percent(report.accuracy.after)} at "
        f"the end. Importance criterion: {report.criterion}. Trained in "
        f"{_trained_in(report)}."
    )
    rows = tuple(
        (
            str(removal.removal),
            f"{removal.updates:,}",
            f"{removal.channels:,}",
            percent(removal.flops),
            percent(removal.params),
            f"{removal.train_loss:.4f}",
            f"{removal.loss:.4f}",
            percent(removal.accuracy),
            f"{1e3 * removal.seconds_per_update:.0f}",
        )
        for removal in report.removals
    )
    header = (
        ">step", ">updates", ">channels removed", ">FLOPs kept", ">parameters kept",
        ">training loss", ">loss", ">accuracy", ">ms per update",
    )  # fmt: skip
    grid = Grid(header, rows, "loss and accuracy: on held-out images, before each step")
    parts = (drawing(removals_picture, report), folded("All steps", grid))
    return [Section("Iterative pruning", text, parts)]


def _trained_in(report: IterativeReport | LearningReport) -> str:
    shared = processes_text(report.shares)
    return f"{report.precision} by {shared}" if shared else report.precision


def learning_sections(report: PruneReport) -> list[Section]:
    """Return how channels were chosen while the model trained, or the training after a cut."""
    learning = report.learning
    if learning is None:
        return []
    if learning.accuracy is None:
        text = f"{_search_text(learning, 'would be')} Trained in {learning.precision}."
        return [Section("Learning what to prune, as planned", text, _ungated(report))]
    change, searched = learning.accuracy, bool(learning.search_epochs)
    text = (
        f"{_search_text(learning, 'were') if searched else _TRAINED} Accuracy on "
        f"{learning.images:,} held-out images: {percent(change.before)} {_FIRST[searched]}, "
        f"{percent(change.after)} in the end, best epoch "
        f"{best_epoch_text(learning.best_epoch, learning.epochs)}. "
        f"Trained in {_trained_in(learning)}."
    )
    if learning.taught_by is not None:
        text += f" Teacher: {learning.taught_by.statement}."
    if learning.log is not None:
        text += f" The course is in {place_text(learning.log)}."
    parts: list[Part] = []
    if learning.course:
        parts.append(drawing(course_picture, report))
        if searched:
            parts.append(drawing(widths_picture, report, caption=_STRIPS))
        parts.append(_points(report, learning))
    title = "Learning what to prune" if searched else "Training after the cut"
    return [Section(title, text, (*parts, *_ungated(report)), rank=1)]


_TRAINED = "The channels were chosen at once, and what was left was trained."
_FIRST = {True: "for the original", False: "for the pruned model before training"}
_STRIPS = (
    "a strip per channel group, darker where more of its channels are left; on the right, those "
    "that were kept"
)


def _search_text(learning: LearningReport, were: str) -> str:
    left = len(learning.ungated)
    out = f" {counted(left, 'channel group')} {verb(left, 'was', 'were')} left out." if left else ""
    is_ = "is" if learning.accuracy is None else "was"
    return (
        f"{counted(learning.gates, 'channel')} {were} chosen from by {learning.method} in the "
        f"first {learning.search_epochs:.3g} of {counted(learning.epochs, 'epoch')}.{out} Then the "
        f"rest of them {is_} removed, and what {is_} left {is_} trained."
    )


def _points(report: PruneReport, learning: LearningReport) -> Folded | Grid:
    """Return a row per point of the course: all of them."""
    header = (
        ">updates", ">epoch", "phase", ">budget", ">expected", ">cost", ">channels", ">flips",
        ">training loss", ">loss", ">accuracy",
    )  # fmt: skip
    caption = (
        f"budget, expected, cost: shares of the {cost_named(report)}; flips: gates that opened or "
        "closed since the point before; loss and accuracy: on held-out images"
    )
    grid = Grid(header, tuple(map(_point_row, learning.course)), caption)
    return folded("The course", grid)


def _point_row(point: CoursePoint) -> tuple[Cell, ...]:
    return (
        f"{point.updates:,}",
        f"{point.epoch:.2f}",
        point.phase,
        percent(point.budget),
        percent(point.expected),
        percent(point.cost),
        f"{point.alive:,}",
        f"{point.flips:,}",
        "" if point.train_loss is None else f"{point.train_loss:.4f}",
        "" if point.loss is None else f"{point.loss:.4f}",
        percent(point.accuracy),
    )


def _ungated(report: PruneReport) -> tuple[Part, ...]:
    """Return the channel groups that were not part of the search and why, if there are any."""
    learning = report.learning
    if learning is None or not learning.ungated:
        return ()
    widths = {group.name: f"{group.before:,}" for group in report.groups}
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, widths.get(name, ""), reason) for name, reason in learning.ungated.items()
    )
    grid = Grid(
        ("channel group", ">channels", "without gates because"),
        rows,
        "these groups keep all of their channels",
    )
    return (folded("Channel groups that were left out of the search", grid),)
