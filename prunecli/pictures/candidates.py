"""What every signal that was tried at one budget gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, QUIET, new_figure, short

if TYPE_CHECKING:
    from prunecli.report import SearchReport, Trial


def candidates_picture(search: SearchReport) -> Picture:
    """Draw calibrated loss and accuracy of every trial, best on top; the dense one is a line."""
    trials = ranked(search)
    figure, (left, right) = new_figure(9.0, 1.5 + 0.3 * len(trials), columns=2)
    dense = search.dense.final
    for axes, title, values, whole in (
        (
            left,
            "Calibrated loss (least is best)",
            [trial.final.calibrated if trial.final else 0.0 for trial in trials],
            None if dense is None else dense.calibrated,
        ),
        (
            right,
            "Accuracy (%)",
            [100 * trial.final.accuracy if trial.final else 0.0 for trial in trials],
            None if dense is None else 100 * dense.accuracy,
        ),
    ):
        colours = [COLOURS[0] if trial.signal == search.chosen else QUIET for trial in trials]
        axes.barh(range(len(trials)), values, height=0.7, color=colours)
        if whole is not None:
            axes.axvline(whole, color=COLOURS[1], linestyle="--", label="dense network")
        names = [short(trial.signal) if axes is left else "" for trial in trials]
        axes.set_yticks(range(len(trials)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(title, loc="left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False)
    title = f"What each signal gives at this budget, on {search.images} images"
    text = "; ".join(_text(trial) for trial in trials)
    return Picture(figure, title, f"Taken: {search.chosen}. {text}.")


def ranked(search: SearchReport) -> list[Trial]:
    """Return the trials, the least calibrated loss first, those without a cut last."""
    return sorted(
        search.trials,
        key=lambda trial: (trial.final is None, trial.final.calibrated if trial.final else 0.0),
    )


def _text(trial: Trial) -> str:
    if trial.final is None:
        return f"{trial.signal}: not cut"
    return (
        f"{trial.signal}: calibrated loss {trial.final.calibrated:.3f}, accuracy "
        f"{trial.final.accuracy:.1%}"
    )
