"""Two classifiers on the same images: who is right where, and how far their accuracies differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunecli.data import plan_batches
from prunecli.data.pixels import normalise
from prunecli.evaluation.images import check_outputs
from prunecli.evaluation.intervals import paired_change
from prunecli.evaluation.memory import memory_format_for
from prunecli.evaluation.outputs import class_logits
from prunecli.graph.tracing.running import evaluating
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet


def hits(
    model: nn.Module,
    images: ImageSet,
    positions: Tensor,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    batch_size: int = 256,
    progress: Progress = silent,
) -> Tensor:
    """Return whether a classifier is right on the images at `positions` [n]: bool [n].

    An image that cannot be read counts as wrong for every model.
    """
    found = torch.zeros(len(images), dtype=torch.bool)
    home = next((value.device for value in model.parameters()), torch.device("cpu"))
    place = torch.device("cuda") if home.type == "cpu" and torch.cuda.is_available() else home
    done = 0
    model.to(place)
    try:
        with evaluating(model), torch.no_grad():
            layout = memory_format_for(model, input)
            for part in plan_batches(len(positions), batch_size):
                at = positions[part]
                for pixels, labels in images.gather([at]):  # none where no image could be read
                    seen = normalise(pixels.to(place), input, memory_format=layout)
                    logits, _ = class_logits(model(seen))
                    check_outputs(logits, len(images.classes))
                    found[images.readable(at)] = logits.argmax(1).cpu() == labels
                done += len(at)
                progress(Step(f"evaluate {images.split}", done, len(positions)))
    finally:
        model.to(home)
    return found[positions]


def drop_between(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Return how much less often `second` [n] is right than `first` [n], with a 95 % interval.

    The images are the same (`intervals.paired_change`).

    >>> drop_between(torch.tensor([True, True]), torch.tensor([True, False]))[0]
    0.5
    """
    lost, gained = int((first & ~second).sum()), int((~first & second).sum())
    low, high = paired_change(lost, gained, len(first))
    return (lost - gained) / len(first), -high, -low
