"""What kind each output of a network is, by which it is compared and imitated.

Nothing is asked: names, shapes, the layer that makes an output and its values on sample images say
it. Where a kind is in doubt it is `VALUES`, whose comparison is right for every output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunecli.graph.outputs import ONLY, named_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

SCORES, MAP, EMBEDDING, VALUES = "class scores", "class map", "embedding", "values"

HEADS = frozenset({"fc", "_fc", "head", "linear", "last_linear", "classif", "classifier", "logits"})
"""What layers are called that tell classes apart for a whole image."""

MAP_HEADS = frozenset({"classifier", "high_classifier", "aux_classifier", "logits", "conv_seg"})
"""What layers are called that tell classes apart for every pixel."""

SCORE_NAMES = ("logits", "scores", "cls", "classes")
"""What outputs of their own names are called that are scores of classes."""

SAMPLE = 128
"""Images by which kinds and variances of outputs are told, evenly spread over those at hand."""

UNIT = 1e-3
"""How far lengths may be from 1 where every row of an output is normalised."""

FLOOR, LEAST = 1e-2, 1e-10
"""The least variance of a channel, as parts of the median one and of the largest.

What hardly varies, such as the scores of a class that no sample image holds, would count without
end; boxes in pixels beside probabilities vary by 10^7 times as much, and count alike.
"""


@dataclass(frozen=True, eq=False)
class OutputKind:
    """One output: its name, kind, and shape without the batch.

    `variance` [channels] is that of the reference over sample images, in float32.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    variance: Tensor


def output_tensors(output: Any) -> dict[str, Tensor]:
    """Return the floating-point tensors that a forward returned, by name."""
    leaves = named_leaves(output).items()
    return {
        name: leaf
        for name, leaf in leaves
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim
    }


def kinds_of(
    chunks: Iterable[tuple[int, Mapping[str, Tensor]]],
    *,
    model: nn.Module | None = None,
    classes: int | None = None,
) -> tuple[OutputKind, ...]:
    """Return the kind of every output of a reference that has a row for each image.

    `chunks` are numbers of sample images with the reference's outputs for them. `model` made them,
    `classes` is how many its file says that it tells apart.
    """
    heads = {} if model is None else _heads(model)
    shapes: dict[str, tuple[int, ...]] = {}
    units: dict[str, bool] = {}
    moments: dict[str, _Moments] = {}
    for images, outputs in chunks:
        for name, value in outputs.items():
            if len(value) == images:
                shapes[name] = tuple(value.shape[1:])
                units[name] = units.get(name, True) and _is_unit(value)
                moments.setdefault(name, _Moments()).add(value)
    return tuple(
        OutputKind(
            name, _kind(name, shape, units[name], heads, classes), shape, moments[name].variance()
        )
        for name, shape in shapes.items()
    )


def by_channel(value: Tensor) -> Tensor:
    """Return an output as [images, channels, positions], in float32.

    Channels are the second dimension; of two beside the images, the shorter one.

    >>> by_channel(torch.zeros(2, 8400, 84)).shape, by_channel(torch.zeros(2, 3, 4, 5)).shape
    (torch.Size([2, 84, 8400]), torch.Size([2, 3, 20]))
    """
    value = value.float()
    if value.ndim < 3:
        return value.reshape(len(value), -1, 1)
    if value.ndim == 3 and value.shape[2] < value.shape[1]:
        value = value.transpose(1, 2)
    return value.flatten(2)


def image_errors(kind: OutputKind, own: Tensor, reference: Tensor) -> Tensor:
    """Return the squared error of every image [n], as a part of the reference's variance.

    Every channel counts alike, whatever its scale.
    """
    apart = (by_channel(own) - by_channel(reference)).square().mean(2)
    return (apart / kind.variance.to(apart.device)).mean(1)


@dataclass
class _Moments:
    """Sums over images and positions, channel by channel, in float64."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, value: Tensor) -> None:
        each = by_channel(value.detach()).double().cpu()
        self.count += len(each) * each.shape[2]
        self.total = self.total + each.sum(dim=(0, 2))
        self.squares = self.squares + each.square().sum(dim=(0, 2))

    def variance(self) -> Tensor:
        """Return the variance of every channel, bounded below; that of constants is their size."""
        mean = torch.as_tensor(self.total) / max(self.count, 1)
        square = torch.as_tensor(self.squares) / max(self.count, 1)
        each = (square - mean.square()).clamp(min=0.0)
        largest = float(each.max()) if each.numel() else 0.0
        if not 0 < largest < float("inf"):
            size = float(square.max()) if square.numel() else 1.0
            return torch.full_like(each, size if 0 < size < float("inf") else 1.0).float()
        return each.clamp(min=max(FLOOR * float(each.median()), LEAST * largest)).float()


def _kind(
    name: str,
    shape: tuple[int, ...],
    unit: bool,
    heads: Mapping[str, set[int]],
    classes: int | None,
) -> str:
    if len(shape) not in (1, 3) or shape[0] < 2:
        return VALUES
    whole = len(shape) == 1
    if whole and unit and shape[0] != classes:
        return EMBEDDING
    own = name.rsplit(".", 1)[-1].lower()
    named = own in SCORE_NAMES and name != ONLY
    places = HEADS if whole else MAP_HEADS
    if named or shape[0] == classes or _made_by(places, heads, shape[0]):
        return SCORES if whole else MAP
    return VALUES


def _is_unit(value: Tensor) -> bool:
    if value.ndim != 2:
        return False
    lengths = value.float().norm(dim=1)
    return bool(((lengths - 1).abs() < UNIT).all())


def _made_by(places: frozenset[str], heads: Mapping[str, set[int]], width: int) -> bool:
    return any(width in heads.get(place, ()) for place in places)


def _heads(model: nn.Module) -> dict[str, set[int]]:
    """Return how wide the layers of weights are, by every part of their names."""
    found: dict[str, set[int]] = {}
    for name, tensor in model.named_parameters():
        *parts, last = name.split(".")
        if last == "weight" and tensor.ndim >= 2:
            for part in parts:
                found.setdefault(part, set()).add(len(tensor))
    return found
