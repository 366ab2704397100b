"""Read the layers of a head off the names and shapes of its tensors.

A head that somebody put in place of the classifier shows its linear layers and its norms, and by
the gaps in a sequence's numbers that there is something without weights. What that is, is assumed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.architectures.changes import LAYER, OWN
from prunecli.architectures.fingerprint import Shape, Shapes, shapes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

_ACTIVATION = "activation"
_GUESSED = "the activation between its layers is taken as ReLU (--head-activation says otherwise)"
_NUMBERED = re.compile(r"((?:.*\.)?)(\d{1,2})")


@dataclass(frozen=True)
class Head:
    """A head as `prunecli.architectures.changes` has it, and what was assumed about it.

    `renamed` maps the names of its tensors to those that they have in it.
    """

    layers: Any
    renamed: Mapping[str, str]
    outputs: int
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """A layer with weights: its description, and the widths that it takes and gives."""

    path: str
    described: Mapping[str, Any]
    inputs: int
    outputs: int

    @property
    def is_linear(self) -> bool:
        return bool(self.described[LAYER] == "linear")


def read_head(
    shapes: Shapes, inputs: int, *, own: Sequence[nn.Module] = (), activation: str | None = None
) -> Head | None:
    """Return the head of these tensors that takes `inputs` features; None where they are no head.

    `own` are the layers of the sequence that stood in its place; those at its beginning that are
    the same stay. `activation` is what stands between linear layers; None takes ReLU for it, and
    says so.
    """
    parts = _parts(shapes)
    if parts is None or not any(part.is_linear for part in parts):
        return None
    kept = _kept(own, shapes, parts[-1].path)
    same = [part for part in parts if part.path.isdigit() and int(part.path) < kept]
    rest = [part for part in parts if part not in same]
    width = _width(own[:kept], inputs)
    for part in rest:
        if part.inputs != width:
            return None
        width = part.outputs
    if rest[0].path == "":
        bare = len(rest) == 1
        return Head(rest[0].described, {name: name for name in shapes}, width) if bare else None
    slots = _slots(rest, nested=kept == 0)
    filled = _named(rest, own[:kept]) if slots is None else _numbered(rest, slots, own[:kept])
    layers = [
        {LAYER: activation or "relu"} if layer[LAYER] == _ACTIVATION else layer
        for layer in filled.layers
    ]
    guessed = not activation and layers != filled.layers
    assumed = (_GUESSED, *filled.assumed) if guessed else filled.assumed
    places = {part.path: int(part.path) for part in same} | filled.places
    renamed = {
        name: f"{places[path]}.{leaf}"
        for name in shapes
        for path, _, leaf in (name.rpartition("."),)
    }
    return Head(layers, renamed, width, assumed)


def _parts(shapes: Shapes) -> list[_Part] | None:
    """Return the layers of some tensors in their order; None where one is of no known kind."""
    tensors: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        tensors.setdefault(path, {})[leaf] = shape
    parts = [_part(path, leaves) for path, leaves in tensors.items()]
    return None if None in parts or not parts else [part for part in parts if part is not None]


def _part(path: str, leaves: Mapping[str, Shape]) -> _Part | None:
    weight, names = leaves.get("weight", ()), set(leaves)
    width = weight[0] if weight else 0
    if len(weight) == 2 and names <= {"weight", "bias"}:
        if leaves.get("bias", (width,)) != (width,):
            return None
        linear = {LAYER: "linear", "inputs": weight[1], "outputs": width}
        described = linear if "bias" in names else {**linear, "bias": False}
        return _Part(path, described, weight[1], width)
    if len(weight) != 1 or any(shape != weight for shape in leaves.values()):
        return None
    kinds = {
        frozenset({"weight", "bias", "running_mean", "running_var"}): "batch-norm",
        frozenset({"weight", "bias"}): "layer-norm",
    }
    kind = kinds.get(frozenset(names))
    return None if kind is None else _Part(path, {LAYER: kind, "features": width}, width, width)


def _slots(parts: Sequence[_Part], *, nested: bool) -> list[int] | None:
    """Return the numbers of the layers of one sequence, `nested` or not; None where it is none."""
    matches = [_NUMBERED.fullmatch(part.path) for part in parts]
    found = [(match[1], int(match[2])) for match in matches if match is not None]
    stems = {stem for stem, _ in found}
    if len(found) < len(parts) or len(stems) > 1 or (stems != {""} and not nested):
        return None
    numbers = [number for _, number in found]
    return numbers if numbers == sorted(set(numbers)) else None


def _kept(own: Sequence[nn.Module], shapes: Shapes, last: str) -> int:
    """Return how many layers at the beginning of a sequence are the same; never the `last` one."""
    number = last.partition(".")[0]
    most = min(len(own), int(number)) if number.isdigit() else 0
    for at, layer in enumerate(own[:most]):
        found = {
            name.partition(".")[2]: shape
            for name, shape in shapes.items()
            if name.partition(".")[0] == str(at)
        }
        if found != shapes_of(layer.state_dict()):
            return at
    return most


def _width(layers: Sequence[nn.Module], inputs: int) -> int:
    from torch import nn

    widths = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
    return widths[-1] if widths else inputs


@dataclass(frozen=True)
class _Filled:
    """The layers of a sequence, where those with weights stand by path, and what was assumed."""

    layers: list[Any]
    places: dict[str, int]
    assumed: tuple[str, ...]


def _numbered(parts: Sequence[_Part], slots: Sequence[int], own: Sequence[nn.Module]) -> _Filled:
    """Fill the gaps of a sequence: after a linear layer an activation, else a dropout."""
    layers, waits = _beginning(own)
    dropouts = bare = 0
    by_slot = dict(zip(slots, parts, strict=True))
    for slot in range(len(own), slots[-1] + 1):
        part = by_slot.get(slot)
        if part is not None:
            bare += part.is_linear and waits
            waits = part.is_linear or waits
            layers.append(dict(part.described))
        elif waits:
            waits = False
            layers.append({LAYER: _ACTIVATION})
        else:
            dropouts += 1
            layers.append({LAYER: "dropout"})
    places = {part.path: slot for slot, part in by_slot.items()}
    return _Filled(layers, places, _assumed(dropouts, bare))


def _named(parts: Sequence[_Part], own: Sequence[nn.Module]) -> _Filled:
    """Put an activation before every linear layer that follows another."""
    layers, waits = _beginning(own)
    places = {}
    for part in parts:
        if part.is_linear and waits:
            layers.append({LAYER: _ACTIVATION})
        places[part.path] = len(layers)
        layers.append(dict(part.described))
        waits = part.is_linear or waits
    return _Filled(layers, places, ())


def _beginning(own: Sequence[nn.Module]) -> tuple[list[Any], bool]:
    """Return the layers that stay, and whether an activation is still to come after them."""
    from torch import nn

    layers = [{LAYER: OWN, "index": at} for at in range(len(own))]
    linear = any(isinstance(layer, nn.Linear) for layer in own)
    return layers, linear and isinstance(own[-1], nn.Linear | nn.Dropout)


def _assumed(dropouts: int, bare: int) -> tuple[str, ...]:
    told = (
        (dropouts, "what else has no weights is taken as a dropout"),
        (bare, "two linear layers follow one another with nothing between"),
    )
    return tuple(text for count, text in told if count)
