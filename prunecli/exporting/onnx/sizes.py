"""Sides of images, volumes and signals among the inputs of a network, and other sizes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.architectures.examples import at_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prunecli.architectures.argument import Argument
    from prunecli.architectures.inputs import InputSpec

BATCH = "batch"

_SIDES = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
"""What the sides of a tensor are called, by its rank."""

_CHANGES: tuple[Callable[[int, int], int], ...] = (
    lambda size, at: size + 32 * (at + 1),
    lambda size, _: size + 32,
    lambda size, _: size * 2,
    lambda size, at: size + at + 1,
)
"""Other sizes: of the side that is the n-th one with a size of its own."""


def sides_of(argument: Argument) -> list[int]:
    """Return the dimensions of an input, counted from the batch, that are sides."""
    rank = len(argument.shape or ()) + 1
    images = argument.batched and "float" in argument.dtype
    return list(range(2, rank)) if images and rank in _SIDES else []


def side_name(argument: Argument, dim: int) -> str:
    """Return what people call a dimension of an input that is its batch or a side."""
    return _SIDES[len(argument.shape or ()) + 1][dim - 2] if dim else BATCH


def other_sizes(spec: InputSpec, sides: Mapping[tuple[int, int], str]) -> Iterator[InputSpec]:
    """Yield the spec at other sizes of its sides: names by (tensor, dim), equal ones stay equal."""
    order = list(dict.fromkeys(sides.values()))
    shapes = [argument.shape or () for argument in spec.tensors]
    for change in _CHANGES:
        yield at_size(
            spec,
            {
                (at, dim): change(shapes[at][dim - 1], order.index(name))
                for (at, dim), name in sides.items()
            },
        )
