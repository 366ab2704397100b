"""What a network takes: one batch of images, or any arguments by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.architectures.argument import (
    FLOATS,
    INTEGERS,
    Argument,
    check_shape,
    shape_text,
)
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

IMAGE = "input"
"""What the one batch of images is called in files."""


@dataclass(frozen=True)
class InputSpec:
    """What a network takes: one batch of images, or `arguments` of any shapes.

    Of images it says the shape, and per channel `(x / 255 - mean) / std`; `mean` and `std` are
    empty where nobody said them. With `arguments`, in the order of the forward, nothing else
    counts.
    """

    channels: int = 0
    height: int = 0
    width: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    arguments: tuple[Argument, ...] = ()

    @property
    def is_images(self) -> bool:
        """Whether it is one batch of images."""
        return not self.arguments

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(channels, height, width)`, or the shape of the first tensor, without a batch."""
        return self.tensors[0].shape or ()

    @property
    def tensors(self) -> tuple[Argument, ...]:
        """The tensors that the forward takes; one batch of images is called `input`."""
        if self.is_images:
            return (Argument(IMAGE, (self.channels, self.height, self.width)),)
        return tuple(argument for argument in self.arguments if argument.is_tensor)

    @property
    def described(self) -> str:
        """What people read of it.

        >>> InputSpec(3, 32, 48).described
        '3x32x48'
        """
        if self.is_images:
            return shape_text(self.shape)
        return ", ".join(argument.described for argument in self.arguments)

    @classmethod
    def of(cls, example: Any, model: nn.Module | None = None) -> InputSpec:
        """Return what `example` is one of: a tensor, a sequence of arguments, or a mapping by name.

        One tensor `[n, channels, height, width]` of floats is a batch of images. The names of other
        arguments are those of the forward of `model`. Raises `InputError` (`BAD_EXAMPLE`) for
        arguments that cannot be described, such as tensors inside of lists.
        """
        from prunecli.architectures.from_example import arguments_of, is_images

        arguments = arguments_of(example, model)
        if is_images(arguments, example, model):
            channels, height, width = arguments[0].shape or ()
            return cls(channels, height, width)
        return cls(arguments=arguments)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data.

        >>> InputSpec.from_json(InputSpec(1, 8, 8, (0.5,), (0.25,)).to_json()).shape
        (1, 8, 8)
        """
        if not self.is_images:
            return {"arguments": [argument.to_json() for argument in self.arguments]}
        return {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read what `to_json` wrote; raise `ValueError` for an input of no possible size."""
        if "arguments" in data:
            found = cls(arguments=tuple(map(Argument.from_json, data["arguments"])))
            if not any(argument.is_tensor for argument in found.arguments):
                raise ValueError("no argument is a tensor")
            return found
        spec = cls(
            channels=int(data["channels"]),
            height=int(data["height"]),
            width=int(data["width"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
        )
        check_shape(spec.shape)
        if not all(map(math.isfinite, (*spec.mean, *spec.std))):
            raise ValueError("the mean or deviation of its pixels is no number")
        return spec


def of_shapes(
    shapes: Sequence[tuple[str, tuple[int, ...], str]], known: InputSpec | None = None
) -> InputSpec:
    """Return the input of these names, shapes without a batch and types, one for each argument.

    One without a name, of floats with three sizes, is a batch of images; it keeps mean and
    deviation of the `known` one with as many channels. Raises `InputError` (`BAD_INPUT_SPEC`).
    """
    if len(shapes) == 1 and not shapes[0][0] and len(shapes[0][1]) == 3:
        (_, (channels, height, width), dtype) = shapes[0]
        if dtype == "float32":
            kept = known if known is not None and known.channels == channels else InputSpec()
            return InputSpec(channels, height, width, kept.mean, kept.std)
    names = [name for name, _, _ in shapes if name]
    types = [dtype for _, _, dtype in shapes if dtype not in (*FLOATS, *INTEGERS)]
    wrong = f"{types[0]} is no type of an input" if types else ""
    if len(names) > len(set(names)):
        wrong = "two inputs have the same name"
    if wrong:
        raise InputError(
            wrong,
            code="BAD_INPUT_SPEC",
            where="--input-shape",
            hint=f"give each input once, as NAME=SHAPE:TYPE; types are {', '.join(INTEGERS)} and "
            f"{', '.join(FLOATS)}",
        )
    return InputSpec(arguments=tuple(Argument(*one) for one in shapes))


def check_takes_images(spec: InputSpec) -> None:
    """Raise `InputError` unless images of files can be made the input of a network.

    `NO_IMAGE_INPUT`: it takes something else. `NO_INPUT_SPEC`: nobody said how pixels are
    normalised.
    """
    if not spec.is_images:
        raise InputError(
            "images of a data set cannot be given to this model: it takes something else, "
            f"{spec.described}",
            code="NO_IMAGE_INPUT",
            hint="leave the data out (prune by weights: --signal l1), or work from Python: "
            "prunecli.prune(model, example_inputs)",
        )
    if not spec.mean or not spec.std:
        raise InputError(
            "nobody said how pixels become the input of this model",
            code="NO_INPUT_SPEC",
            hint="add --mean and --std; in Python: input=InputSpec(channels, height, width, mean, "
            "std)",
        )
