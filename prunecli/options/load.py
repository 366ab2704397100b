"""How a checkpoint is read that does not say enough about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from prunecli.options import shared
from prunecli.options.declare import is_given, needs, option

MEMORY = 4 * 10**9
"""Bytes that reading a file may take by default."""

# The names are repeated here because the layers import torch; a test compares the two.
HEAD_ACTIVATIONS = ("relu", "gelu", "silu", "hardswish", "leaky-relu", "elu", "tanh")

_reading = partial(option, panel=shared.READING)


@dataclass(frozen=True)
class LoadOptions:
    """How to read a checkpoint that does not say enough about itself."""

    architecture: str | None = _reading(
        None,
        "Architecture, if the file does not name it: 'resnet50', 'timm/NAME', or "
        "'package.module:function'.",
        metavar="NAME",
        flags="--arch",
        trusts=lambda name: ":" in str(name),
    )
    architecture_args: Mapping[str, Any] = _reading(
        {},
        "Argument for the architecture (num_classes=10). Repeatable.",
        metavar="K=V",
        flags="--arch-arg",
        form="pairs",
        needs=(needs("arch", hint="add --arch NAME"),),
    )
    input_size: tuple[int, int] | None = _reading(
        None,
        "Input height and width. Usually known from the architecture.",
        metavar="N|HxW",
        form="size",
    )
    mean: tuple[float, ...] | None = _reading(
        None, "Mean for input normalisation.", metavar="R,G,B", form="numbers"
    )
    std: tuple[float, ...] | None = _reading(
        None, "Standard deviation for input normalisation.", metavar="R,G,B", form="numbers"
    )
    allow_pickle: bool = _reading(
        False,
        "Run code stored in a pickled model. Only for files that you made yourself.",
        trusts=is_given,
    )
    allow_outside: bool = option(
        False,
        "Follow links and paths of images that lead out of the folder of the data.",
        panel=shared.DATA,
    )
    max_file_memory: int = _reading(
        MEMORY,
        "Memory that reading a file may take, if that is more than the file itself.",
        metavar="BYTES",
        form="bytes",
    )
    weights: str | None = _reading(
        None,
        "Which set of weights in the file, if it has several: ema, model, ...",
        metavar="NAME",
    )
    prefix: str | None = _reading(
        None,
        "Which part of the weights, by what the names of its tensors begin with: student, "
        "model.backbone, ...",
        metavar="NAME",
    )
    ignore: tuple[str, ...] = _reading(
        (), "Tensors to leave out ('criterion.*'). Repeatable.", metavar="PATTERN"
    )
    renamed: Mapping[str, str] = _reading(
        {},
        "Rename what begins with A to begin with B (my_head=fc). Repeatable.",
        metavar="A=B",
        flags="--map",
        form="renames",
    )
    head_activation: str | None = _reading(
        None,
        "Activation between the linear layers of a head, which the weights do not show: "
        f"{', '.join(HEAD_ACTIVATIONS)}. Default: relu.",
        metavar="NAME",
        choices=HEAD_ACTIVATIONS,
        tells_default=True,
    )
    input_shapes: tuple[tuple[str, tuple[int, ...], str], ...] = _reading(
        (),
        "Shape of an input without the batch, if it is not images: 1x32x32x32, ids=77:int64. "
        "Repeatable, by the names of the forward.",
        metavar="[NAME=]CxHxW",
        flags="--input-shape",
        form="shapes",
    )
