"""What every importance criterion that was tried at one budget gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, QUIET, beside, explain_, new_figure

if TYPE_CHECKING:
    from prunecli.report import SearchReport, Trial


def candidates_picture(search: SearchReport, *, narrow: bool = False) -> Picture:
    """Draw calibrated loss and accuracy of every trial, best on top; the original is a line."""
    trials = ranked(search)
    height = (0.9 if narrow else 1.5) + 0.3 * len(trials)
    figure, (left, right) = new_figure(9.0, height, columns=2, narrow=narrow)
    dense = search.dense.final
    for axes, title, values, whole in (
        (
            left,
            "Calibrated loss (lowest first)",
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
            axes.axvline(whole, color=COLOURS[1], linestyle="--", label="original model")
        named = narrow or axes is left
        names = [beside(trial.signal, narrow=narrow) if named else "" for trial in trials]
        axes.set_yticks(range(len(trials)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(title, loc="left")
    explain_(figure, left.get_legend_handles_labels(), narrow=narrow)
    title = f"What each importance criterion gives at this budget, on {search.images} images"
    text = "; ".join(_text(trial) for trial in trials)
    return Picture(figure, title, f"Chosen: {search.chosen}. {text}.")


def ranked(search: SearchReport) -> list[Trial]:
    """Return the trials, the lowest calibrated loss first, those that failed last."""
    return sorted(
        search.trials,
        key=lambda trial: (trial.final is None, trial.final.calibrated if trial.final else 0.0),
    )


def _text(trial: Trial) -> str:
    if trial.final is None:
        return f"{trial.signal}: not pruned"
    return (
        f"{trial.signal}: calibrated loss {trial.final.calibrated:.3f}, accuracy "
        f"{trial.final.accuracy:.1%}"
    )
