"""What a network has in other places than its architecture: another head, another stem.

People put their own layers where a known architecture ends or begins. A reference says so in plain
data, `{path: layer}` or `{path: [layer, ...]}` for a sequence; a layer is `{"layer": kind, ...}`
with a kind and arguments of this table, in bounds. So a file can neither name code nor fill the
memory, and the network can be built wherever the architecture can
(`prunecli.architectures.changing`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.architectures.arguments import FLAG, Argument, several, whole
from prunecli.errors import InputError

if TYPE_CHECKING:
    from prunecli.architectures.reference import ArchitectureRef

LAYER = "layer"
_MOST_PLACES, _MOST_LAYERS = 8, 64
_MOST_WEIGHTS = 2**28
_MOST_CHANNELS = 2**11  # outputs of a convolution that is changed, which its change does not say
_PATH = re.compile(r"\w{1,64}(\.\w{1,64}){0,15}", re.ASCII)
_WIDTH = whole(1, 2**20)
_EXTENT = several(whole(1, 64), 2)
_PADDING = several(whole(0, 64), 2)


@dataclass(frozen=True)
class Kind:
    """The arguments of a layer, those that must be given and those that may be."""

    needs: Mapping[str, Argument] = field(default_factory=dict)
    takes: Mapping[str, Argument] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "linear": Kind({"inputs": _WIDTH, "outputs": _WIDTH}, {"bias": FLAG}),
    "batch-norm": Kind({"features": _WIDTH}),
    "layer-norm": Kind({"features": _WIDTH}),
    "convolution": Kind(
        takes={
            "inputs": whole(1, 4096),
            "kernel": _EXTENT,
            "stride": _EXTENT,
            "padding": _PADDING,
            "bias": FLAG,
        }
    ),
    **dict.fromkeys(("elu", "gelu", "hardswish", "leaky-relu", "relu", "silu", "tanh"), Kind()),
    **dict.fromkeys(("average", "dropout", "identity"), Kind()),
}
"""What may stand in place of a module. A dropout does nothing but while training."""

OWN = "own"
"""In a sequence: the child of the sequence that stood there, by its place."""


def check_changes(architecture: ArchitectureRef) -> None:
    """Raise `InputError` (`CHANGE_REFUSED`) for changes that are not of this table."""
    changes = architecture.changes
    if changes and architecture.is_factory:
        raise refused_change(architecture, "your own code makes its own head")
    if len(changes) > _MOST_PLACES:
        raise refused_change(
            architecture, f"{len(changes)} places, and at most {_MOST_PLACES} may be"
        )
    for path, described in changes.items():
        layers = described if isinstance(described, list) else [described]
        if not isinstance(path, str) or _PATH.fullmatch(path) is None:
            raise refused_change(architecture, f"{str(path)[:80]!r} is no path of a module")
        if not 0 < len(layers) <= _MOST_LAYERS:
            raise refused_change(
                architecture, f"{path}: {len(layers)} layers, expected 1..{_MOST_LAYERS}"
            )
        for layer in layers:
            reason = _misfit(layer, in_sequence=layers is described)
            if reason is not None:
                raise refused_change(architecture, f"{path}: {reason}")


def _misfit(layer: Any, *, in_sequence: bool) -> str | None:
    """Return why a description is refused; None where it is not."""
    given = dict(layer) if isinstance(layer, Mapping) else {}
    name = given.pop(LAYER, None)
    if name == OWN and in_sequence:
        fits = given.keys() == {"index"} and whole(0, _MOST_LAYERS).fits(given["index"])
        return None if fits else "a place in a sequence is a whole number"
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return f"{str(name)[:80]!r} is no layer of {', '.join(KINDS)}"
    accepted = {**kind.needs, **kind.takes}
    for argument, value in given.items():
        if argument not in accepted or not accepted[argument].fits(value):
            return f"{argument[:80]}={str(value)[:80]} of {name} is refused"
    missing = kind.needs.keys() - given.keys()
    if missing:
        return f"{name} needs {', '.join(sorted(missing))}"
    kernel = given.get("kernel", 1)
    extents = kernel if isinstance(kernel, list | tuple) else (kernel,)
    outputs = given.get("outputs", _MOST_CHANNELS)
    if given.get("inputs", 1) * outputs * max(extents, default=1) ** 2 > _MOST_WEIGHTS:
        return f"{name} would have more than {_MOST_WEIGHTS:,} weights"
    return None


def refused_change(architecture: ArchitectureRef, reason: str) -> InputError:
    """Return the error of a change that is not made."""
    return InputError(
        f"what the file changes of {architecture.name} is refused: {reason}",
        code="CHANGE_REFUSED",
        where=architecture.name,
        hint="the file is damaged or not to be trusted; take it from another source",
    )
