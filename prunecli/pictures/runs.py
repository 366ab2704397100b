"""The history of a model from the original to the export: FLOPs and accuracy at every stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import RunStep

STAGES = {"prune": "pruned", "finetune": "fine-tuned", "export": "exported"}
"""What a model is called after each verb."""


@dataclass(frozen=True)
class Stage:
    """What is known of a model at one point of its history; `kept` is the share of its FLOPs."""

    name: str
    kept: float | None = None
    params: float | None = None
    accuracy: float | None = None
    split: str = ""


def stages_of(steps: Sequence[RunStep]) -> tuple[Stage, ...]:
    """Return the original model and what every step made of it.

    A figure that a step does not change stays; the accuracy does unless the step prunes or trains.
    That of the original is the teacher's, that of a pruned model what a training started from.
    """
    stages = [Stage("original", 1.0, 1.0)]
    for step in steps:
        before, change = stages[-1], step.accuracy
        if change is not None:
            stages[-1] = _known(before, change.before, change.split)
        if step.teacher is not None and change is not None:
            stages[0] = _known(stages[0], step.teacher, change.split)
        kept, params = before.kept, before.params
        if step.cost is not None:
            kept = None if kept is None else kept * step.cost.kept.get("flops", 1.0)
            params = None if params is None else params * step.cost.kept.get("params", 1.0)
        elif step.verb not in {"finetune", "export"}:
            kept, params = None, None
        accuracy, split = (None, "") if change is None else (change.after, change.split)
        if step.verb == "export":
            accuracy, split = stages[-1].accuracy, stages[-1].split
        stages.append(Stage(STAGES.get(step.verb, "changed"), kept, params, accuracy, split))
    return tuple(stages)


def _known(stage: Stage, accuracy: float, split: str) -> Stage:
    """Return a stage with an accuracy; one on test images is not replaced by one on others."""
    if stage.accuracy is not None and (stage.split == "test" or split != "test"):
        return stage
    return Stage(stage.name, stage.kept, stage.params, accuracy, split)


def run_picture(steps: Sequence[RunStep], *, narrow: bool = False) -> Picture:
    """Draw FLOPs kept and accuracy of every stage as two bars, as far as they are known."""
    stages = stages_of(steps)
    figure, (axes,) = new_figure(max(5.6, 1.5 * len(stages)), 2.9, narrow=narrow)
    series = (
        (0, "FLOPs kept (%)", [stage.kept for stage in stages]),
        (1, "accuracy (%)", [stage.accuracy for stage in stages]),
    )
    both = all(any(value is not None for value in values) for *_, values in series)
    for look, label, values in series:
        known = [(at, 100 * value) for at, value in enumerate(values) if value is not None]
        if not known:
            continue
        beside = (-0.2, 0.2)[look] if both else 0.0
        places = [at + beside for at, _ in known]
        heights = [height for _, height in known]
        bars = axes.bar(places, heights, width=0.37, color=COLOURS[look], label=label)
        axes.bar_label(
            bars, [f"{height:.1f}" for height in heights], padding=2, fontsize=7 if narrow else 8.5
        )
    axes.set_xticks(range(len(stages)), [stage.name for stage in stages])
    axes.set_xlim(-0.6, len(stages) - 0.4)
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    parts = [
        f"{stage.name}: "
        + ", ".join(
            f"{value:.1%} {what}"
            for value, what in ((stage.kept, "of the FLOPs"), (stage.accuracy, "accuracy"))
            if value is not None
        )
        for stage in stages
    ]
    return Picture(figure, "Pipeline history", "; ".join(parts) + ".")
