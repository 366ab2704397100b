"""What people give for a module: example inputs, and images of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split
from prunecli.errors import InputError
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from prunecli.data import DataSource
    from prunecli.evaluation.batches import Batches
    from prunecli.options import (
        PruneOptions,
    )
    from prunecli.progress import Progress


Example = Tensor | Sequence[Any] | Mapping[str, Any]


def input_of_example(example: Example) -> InputSpec:
    """Return the input of a network that is to be timed as ONNX."""
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise InputError(
            "a latency can only be measured of a model with one input, a batch of images",
            code="BAD_EXAMPLE",
            hint="give a tensor [n, channels, height, width] as example_inputs, or another budget",
        )
    channels, height, width = example.shape[1:]
    return InputSpec(channels, height, width, (0.0,) * channels, (1.0,) * channels)


def needed_input(spec: InputSpec | None) -> InputSpec:
    """Return how images of a data set are prepared for a model."""
    if spec is None:
        raise InputError(
            "images were named, and not how they are prepared for the model",
            code="BAD_OPTION",
            hint="add input=InputSpec(channels, height, width, mean, std)",
        )
    return spec


def images_of_split(
    source: DataSource,
    split: str,
    input: InputSpec,  # noqa: A002
    options: PruneOptions,
    progress: Progress,
) -> Callable[[], Batches]:
    """Return a function that yields the images of a split, which are read at the first call."""
    read = cache(
        partial(
            load_split,
            source,
            split,
            input=input,
            seed=options.seed,
            limit=options.limit,
            progress=progress,
        )
    )
    return lambda: normalised(read(), input)


def as_inputs(example: Example) -> Sequence[Any] | Mapping[str, Any]:
    """Return example inputs as the arguments of one forward."""
    return [example] if isinstance(example, Tensor) else example
