"""What a network asks of a data set: its number of classes, and normalised images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunecli.architectures.examples import example_tensors
from prunecli.architectures.inputs import check_takes_images
from prunecli.artefacts.instantiate import instantiate
from prunecli.data import check_classes, load_split, open_either
from prunecli.data.source import UNLABELLED
from prunecli.errors import InputError
from prunecli.evaluation.batches import NO_IMAGES, Images
from prunecli.graph.tracing.running import evaluating
from prunecli.preflight.pruning import AUTO
from prunecli.signals import needs_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.checkpoint import Checkpoint
    from prunecli.data import ImageSet
    from prunecli.evaluation.batches import BatchSource
    from prunecli.options import PruneOptions
    from prunecli.progress import Progress

SCORING_BATCH = 64
"""Images that a signal looks at in one step."""


def class_count(model: nn.Module, spec: InputSpec) -> int:
    """Return how many classes a network of images tells apart, by running it once.

    Raises what `check_takes_images` raises.
    """
    from prunecli.evaluation.outputs import class_logits

    check_takes_images(spec)
    place = next((value.device for value in model.parameters()), torch.device("cpu"))
    with evaluating(model), torch.no_grad():
        logits, _ = class_logits(model(example_tensors(spec)[0].to(place)))
    return int(logits.shape[-1])


def check_teacher(teacher: nn.Module, spec: InputSpec, *, classes: int) -> None:
    """Raise `InputError` (`TEACHER_MISMATCH`) unless a teacher has as many outputs, by one run."""
    own = class_count(teacher, spec)
    if own != classes:
        raise InputError(
            f"the teacher has {own} outputs, the model {classes}",
            code="TEACHER_MISMATCH",
            hint="a teacher has the classes of its student",
        )


def check_labels(model: nn.Module, checkpoint: Checkpoint, data: str) -> None:
    """Raise `InputError` where labels name classes that a network has no output for.

    Fewer classes than outputs are fine: images without labels may lie in a single folder.
    """
    source = open_either(data)
    if source.classes == UNLABELLED or source.has_masks:
        class_count(model, checkpoint.input)
        return
    if len(source.classes) > (count := class_count(model, checkpoint.input)):
        check_classes(count, source, names=checkpoint.classes)


def features_of(model: nn.Module, spec: InputSpec) -> Callable[[Tensor], NDArray[np.float32]]:
    """Return a function from uint8 images [n, C, H, W] to what the last layer reads, [n, d].

    The last layer is the last product with a weight in a forward, whatever module it stands in.
    """
    from prunecli.data.pixels import normalise

    def features(images: Tensor) -> NDArray[np.float32]:
        found = []
        with torch.no_grad(), evaluating(model):
            for pixels in torch.split(images, SCORING_BATCH):
                with _LastRead() as last:
                    model(normalise(pixels, spec))
                if last.value is None:
                    raise InputError(
                        "the model has no layer with weights to take features from",
                        code="NO_FEATURES",
                        hint="take another embedding: --embedding pca-10",
                    )
                found.append(last.value.reshape(len(pixels), -1).float().cpu())
        return np.asarray(torch.cat(found).numpy(), np.float32)

    return features


class _LastRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what the last layer with a weight has read."""

    reads: ClassVar[Mapping[Any, int]] = {
        torch.ops.aten.addmm.default: 1,
        torch.ops.aten.mm.default: 0,
        torch.ops.aten.convolution.default: 0,
    }

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.reads:
            self.value = args[self.reads[func]]
        return func(*args, **(kwargs or {}))


def images_for(
    checkpoint: Checkpoint,
    data: str | None,
    options: PruneOptions,
    progress: Progress,
    *,
    scored: bool = False,
    measured: bool = False,
) -> Images:
    """Return the images that are needed: training images to look at, held-out ones to measure on.

    Where they have no labels, the classes that the model itself tells stand for them: losses and
    accuracies are those of agreement with it. Repairs, dead channels, deleted blocks and `auto`
    need both, many signals the first. `scored` and `measured` ask for them whatever the options.
    """
    if data is None:
        return NO_IMAGES
    whole_cuts = options.repair or options.dead or options.delete_blocks
    both = bool(whole_cuts) or options.signal == AUTO

    found = open_either(data)
    unlabelled = found.classes == UNLABELLED or found.has_masks

    def source(split: str) -> BatchSource:
        images = load_split(
            found,
            split,
            input=checkpoint.input,
            seed=options.seed,
            limit=options.limit,
            progress=progress,
        )
        if unlabelled:
            return lambda: self_labelled(instantiate(checkpoint), images, checkpoint.input)
        return lambda: normalised(images, checkpoint.input)

    return Images(
        source("train") if scored or both or needs_data(options.signal) else None,
        source("held_out") if measured or both else None,
    )


def normalised(images: ImageSet, spec: InputSpec) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised images with labels, in order."""
    from prunecli.data.pixels import normalise

    for pixels, labels in images.iterate(SCORING_BATCH):
        yield normalise(pixels, spec), labels


def self_labelled(
    model: nn.Module, images: ImageSet, spec: InputSpec
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised images, in order, with the classes that a model tells of them."""
    from prunecli.evaluation.outputs import class_logits

    with evaluating(model), torch.no_grad():
        for pixels, _ in normalised(images, spec):
            yield pixels, class_logits(model(pixels))[0].argmax(1)
