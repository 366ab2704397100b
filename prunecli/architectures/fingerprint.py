"""Recognise an architecture by the names and shapes in a state dict, whatever its class count.

A fingerprint is a digest over all `name:shape` lines, in which the dimensions that depend on an
argument (the classifier's outputs; the position table of a vision transformer) read `*`. A lookup
therefore builds no network. For near misses, a bottom-k sketch of the lines (Broder 1997) estimates
how much two state dicts share.

Scripts of other people have other names for the same network. The digest of the shapes alone, in
the order of the state dict, tells that (`order`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
FreeDims = Mapping[str, tuple[tuple[str, int], ...]]

SKETCH = 64
"""Values of a sketch."""

SHORT_SKETCH = 16
"""Values of the sketches of timm's models, which are many."""

_COUNTER = "num_batches_tracked"  # absent from files written before torch 0.4.1


@dataclass(frozen=True)
class Fingerprint:
    """The digest of an architecture, and which dimensions follow which argument.

    `free` maps an argument (`num_classes`) to the `(tensor, dim)` pairs whose size it sets. `order`
    is the digest of the shapes in their order, empty where the classes are not the last ones;
    `size` is the number of tensors. `children` are the names of the network's direct children, in
    their order; empty for the models of timm.
    """

    digest: str
    free: FreeDims
    sketch: tuple[int, ...]
    order: str
    size: int
    children: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "digest": self.digest,
            "free": {name: [list(pair) for pair in pairs] for name, pairs in self.free.items()},
            "sketch": "".join(f"{value:08x}" for value in self.sketch),
            "order": self.order,
            "size": self.size,
            "children": list(self.children),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fingerprint:
        """Read what `to_json` wrote."""
        text = data["sketch"]
        return cls(
            digest=data["digest"],
            free={
                name: tuple((tensor, dim) for tensor, dim in pairs)
                for name, pairs in data["free"].items()
            },
            sketch=tuple(int(text[at : at + 8], 16) for at in range(0, len(text), 8)),
            order=data["order"],
            size=data["size"],
            children=tuple(data["children"]),
        )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shape of every tensor that tells architectures apart."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if name.rpartition(".")[2] != _COUNTER
    }


def fingerprint(reference: Shapes, variants: Mapping[str, Shapes]) -> Fingerprint:
    """Return the fingerprint of the architecture that was built with `reference` shapes.

    `variants` holds, by argument, the shapes of a build in which that argument alone is different;
    the dimensions that differ are the free ones.
    """
    free = {
        argument: tuple(
            (name, dim)
            for name, shape in reference.items()
            for dim, (here, there) in enumerate(zip(shape, other[name], strict=True))
            if here != there
        )
        for argument, other in variants.items()
    }
    return fingerprint_with(reference, free)


def fingerprint_with(shapes: Shapes, free: FreeDims) -> Fingerprint:
    """Return the fingerprint of shapes whose free dimensions are known."""
    lines = signature(shapes, free)
    last = tuple((name, 0) for name in list(shapes)[-2:])
    ends = free.get("num_classes") == last
    order = order_digest(list(shapes.values())) if ends else ""
    return Fingerprint(digest(lines), free, sketch(lines), order, len(shapes))


def order_digest(shapes: Iterable[Shape]) -> str:
    """Return 32 hexadecimal digits for shapes in their order, with any number of classes.

    The classes are the first dimension of the last two, the weight and the bias of a classifier.
    """
    *body, weight, bias = ["x".join(map(str, shape)) for shape in ((), (), *shapes)]
    return digest([*body, *(re.sub(r"^\d+", "*", text) for text in (weight, bias))])


def signature(shapes: Shapes, free: FreeDims) -> list[str]:
    """Return the sorted `name:shape` lines, with `*` for every free dimension.

    >>> signature({"fc.weight": (10, 64)}, {"num_classes": (("fc.weight", 0),)})
    ['fc.weight:*x64']
    """
    masked = {pair for pairs in free.values() for pair in pairs}
    return sorted(
        f"{name}:{'x'.join('*' if (name, dim) in masked else str(n) for dim, n in enumerate(s))}"
        for name, s in shapes.items()
    )


def digest(lines: Iterable[str]) -> str:
    """Return 32 hexadecimal digits for a signature."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def sketch(lines: Iterable[str]) -> tuple[int, ...]:
    """Return the smallest hashes over the names and over the whole lines, a bottom-k sketch."""
    return tuple(sorted(word_hashes(lines))[:SKETCH])


def word_hashes(lines: Iterable[str]) -> frozenset[int]:
    """Return the hashes of the names and of the whole lines of a signature."""
    words = {word for line in lines for word in (line, line.rpartition(":")[0])}
    return frozenset(int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) for word in words)


def contained(small: tuple[int, ...], words: frozenset[int]) -> float:
    """Estimate from its sketch which share of a signature stands among `words` (`word_hashes`).

    >>> contained((1, 2, 3, 4), frozenset({2, 4, 9}))
    0.5
    """
    return sum(value in words for value in small) / max(len(small), 1)


def similarity(first: tuple[int, ...], second: tuple[int, ...], *, limit: int = SKETCH) -> float:
    """Estimate the Jaccard index of two signatures from `limit` values of their sketches.

    >>> similarity((1, 2, 3), (1, 2, 4))
    0.5
    """
    union = sorted({*first[:limit], *second[:limit]})[:limit]
    both = {*first} & {*second}
    return sum(value in both for value in union) / max(len(union), 1)


def read_arguments(shapes: Shapes, free: FreeDims) -> dict[str, int] | None:
    """Read the free arguments off the shapes; None when they contradict each other."""
    arguments = {}
    for argument, pairs in free.items():
        sizes = {shapes[name][dim] for name, dim in pairs}
        if len(sizes) != 1:
            return None
        value = _MEASURES.get(argument, _size)(shapes, sizes.pop())
        if value is None:
            return None
        arguments[argument] = value
    return arguments


def has_free_dims(shapes: Shapes, free: FreeDims) -> bool:
    """Tell whether every free dimension exists in `shapes`."""
    return all(dim < len(shapes.get(name, ())) for pairs in free.values() for name, dim in pairs)


def _size(_: Shapes, size: int) -> int | None:
    return size


def _image_size(shapes: Shapes, positions: int) -> int | None:
    """Return the image size of a vision transformer: a class token and a square of patches."""
    side = math.isqrt(max(positions - 1, 0))
    square = side > 0 and side * side == positions - 1
    return side * shapes["conv_proj.weight"][2] if square else None


# How an argument follows from the size of its dimension; the others are the size itself.
_MEASURES: Mapping[str, Callable[[Shapes, int], int | None]] = {"image_size": _image_size}


def describe_difference(found: Shapes, expected: Shapes, *, name: str, shown: int = 3) -> str:
    """Say in one line what keeps `found` from being `name`, with at most `shown` examples each."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    reshaped = [
        f"{key} is {list(found[key])} and not {list(expected[key])}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    parts = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", reshaped),
    )
    told = [f"{len(items)} {what} ({_some(items, shown)})" for what, items in parts if items]
    return f"{name}: {'; '.join(told)}" if told else f"{name}: the same names and shapes"


def _some(items: list[str], shown: int) -> str:
    rest = len(items) - shown
    return ", ".join(items[:shown]) + (f", and {rest} more" if rest > 0 else "")
