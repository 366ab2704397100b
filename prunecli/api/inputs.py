"""What people give for a module: example inputs, and images of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

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


def known_input(example: Example, model: Any) -> InputSpec | None:
    """Return what a network takes, by an example; None where that cannot be described."""
    if not isinstance(model, nn.Module):  # said in full where it is traced
        return None
    try:
        return InputSpec.of(example, model)
    except InputError:
        return None


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
