"""Which training images a network has right after an epoch, gathered over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.memory import memory_format_for
from prunecli.evaluation.outputs import class_logits
from prunecli.graph.tracing.running import evaluating
from prunecli.learnability import SCORED, Record
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet

EVALUATION_BATCH = 256


def check_mode(mode: str) -> None:
    """Raise `InputError` (`BAD_OPTION`) for a way to record that there is not."""
    if mode not in SCORED:
        raise InputError(
            f"there is no way to record learnability called {mode!r}",
            code="BAD_OPTION",
            hint=f"known: {', '.join(SCORED)}",
        )


def left_over(seen: Tensor) -> list[Tensor]:
    """Return the batches of images that an epoch did not train on: `seen` [n] is 0 there.

    These are what the last batch is short of and, after a resume with several processes, what the
    others had done.
    """
    rest = torch.nonzero(seen == 0).flatten()
    return list(torch.split(rest, EVALUATION_BATCH)) if len(rest) else []


def image_hits(
    model: nn.Module,
    images: ImageSet,
    batches: Sequence[Tensor],
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    device: torch.device,
    progress: Progress = silent,
) -> Tensor:
    """Return whether each image [n] is right, in eval mode; those outside `batches` are not."""
    hits = torch.zeros(len(images), dtype=torch.bool)
    done = 0
    with evaluating(model), torch.no_grad():
        layout = memory_format_for(model, input)
        for positions in batches:
            # One batch at a time: an image that cannot be read would shift those behind it.
            for pixels, labels in images.gather([positions]):
                seen = normalise(pixels.to(device), input, memory_format=layout)
                logits, _ = class_logits(model(seen))
                right = logits.argmax(1).cpu() == labels
                hits[images.readable(positions)] = right
            done += len(positions)
            progress(Step("record what is learned", done, len(images)))
    return hits


def packed(hits: Sequence[Tensor]) -> Tensor | None:
    """Return the hits of all epochs as bits, uint8 [epochs, ceil(images / 8)]; None for none."""
    if not hits:
        return None
    return torch.from_numpy(np.packbits(torch.stack(list(hits)).numpy(), axis=1))


def unpacked(bits: Tensor | None, images: int) -> list[Tensor]:
    """Return what `packed` packed."""
    if bits is None:
        return []
    rows = np.unpackbits(bits.numpy(), axis=1, count=images).astype(np.bool_)
    return list(torch.from_numpy(rows))


def record_of(
    images: ImageSet, hits: Sequence[Tensor], facts: Mapping[str, Any], *, scored: str
) -> Record:
    """Return the record of a run over the images that it was trained on."""
    return Record(
        paths=images.paths,
        labels=images.labels.numpy(),
        classes=images.classes,
        hits=torch.stack(list(hits), dim=1).numpy(),
        scored=scored,
        facts=facts,
    )
