"""Read off a state dict how a network begins otherwise: other channels, or a smaller kernel."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.architectures.changes import LAYER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from prunecli.architectures.fingerprint import Shapes
    from prunecli.architectures.reference import InputSpec

_SMALL = 32
_POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Stem:
    """What stands in place of the first convolution, as `prunecli.architectures.changes` has it.

    `names` are the tensors of it; `small` says that it is made for small images.
    """

    changes: Mapping[str, Any]
    names: tuple[str, ...]
    channels: int
    small: bool
    assumed: tuple[str, ...]

    def input_of(self, spec: InputSpec) -> InputSpec:
        """Return the input of the network that began otherwise."""
        if self.channels != spec.channels:
            mean, std = (sum(values) / len(values) for values in (spec.mean, spec.std))
            spec = dataclasses.replace(
                spec,
                channels=self.channels,
                mean=(round(mean, 4),) * self.channels,
                std=(round(std, 4),) * self.channels,
            )
        return dataclasses.replace(spec, height=_SMALL, width=_SMALL) if self.small else spec


def read_stem(module: nn.Module, expected: Shapes, found: Shapes) -> Stem | None:
    """Return the other stem of a network; None where it is the same, or no convolution.

    A smaller kernel is taken for one without stride whose pooling is gone, as trainings on small
    images have it.
    """
    from torch import nn

    name = next((n for n, shape in expected.items() if len(shape) == 4), "")
    path = name.rpartition(".")[0]
    conv = module.get_submodule(path)
    shape, here = expected.get(name, ()), found.get(name, ())
    bias = f"{path}.bias"
    if len(here) != 4 or here[0] != shape[0]:
        return None
    if here == shape and (bias in found) == (bias in expected):
        return None
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        return None
    change: dict[str, Any] = {LAYER: "convolution"}
    assumed = []
    channels, kernel = here[1], here[2:]
    if channels != shape[1]:
        change["inputs"] = channels
        assumed.append(
            f"{path} takes {channels} channel{'s' if channels > 1 else ''}: the mean and deviation "
            "of its images are a guess, --mean and --std say otherwise"
        )
    if (bias in found) != (bias in expected):
        change["bias"] = bias in found
    changes: dict[str, Any] = {path: change}
    small = False
    if kernel != shape[2:]:
        patches = tuple(conv.stride) == tuple(conv.kernel_size)
        small = not patches and kernel < shape[2:]
        change["kernel"] = list(kernel)
        change["stride"] = list(kernel) if patches else 1 if small else list(conv.stride)
        change["padding"] = 0 if patches else [(extent - 1) // 2 for extent in kernel]
        pool = _pool_after(module, path) if small else None
        if pool is not None:
            changes[pool] = {LAYER: "identity"}
        assumed.append(_told(path, change, pool=pool, small=small))
    return Stem(changes, (name, bias), channels, small, tuple(assumed))


def image_size(module: nn.Module, expected: Shapes, found: Shapes) -> int | None:
    """Return the size of the images that a transformer of timm was trained on, if it is another.

    Its table of positions has a row for every patch of a square, after those of a few tokens.
    """
    rows, here = expected.get(_POSITIONS, ()), found.get(_POSITIONS, ())
    embedding = getattr(module, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if len(here) != 3 or len(rows) != 3 or here == rows or here[2] != rows[2]:
        return None
    count, extent = getattr(embedding, "num_patches", None), patch[0] if patch else 0
    if not isinstance(count, int) or not extent:
        return None
    patches = here[1] - (rows[1] - count)
    side = math.isqrt(max(patches, 0))
    return side * extent if side > 0 and side * side == patches else None


def _pool_after(module: nn.Module, path: str) -> str | None:
    """Return the pooling between the first convolution and the next."""
    from torch import nn

    seen = False
    for name, part in module.named_modules():
        if seen and isinstance(part, nn.Conv2d):
            return None
        if seen and isinstance(part, nn.MaxPool2d):
            return str(name)
        seen = seen or name == path
    return None


def _told(path: str, change: Mapping[str, Any], *, pool: str | None, small: bool) -> str:
    kernel = "x".join(map(str, change["kernel"]))
    guesses = [f"stride {change['stride']}"]
    guesses += [f"no {pool}"] if pool else []
    guesses += [f"images of {_SMALL}x{_SMALL} (--input-size says otherwise)"] if small else []
    verb = "are guesses" if len(guesses) > 1 else "is a guess"
    return f"{path} has a {kernel} kernel: {', '.join(guesses)} {verb}"
