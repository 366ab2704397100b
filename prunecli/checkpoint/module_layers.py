"""Compare a pickled module with the network that its weights were taken for, layer by layer.

Weights have the same names and shapes whether a convolution has stride 1 or 2, or whether ReLU or
SiLU comes behind it. A pickled module tells, so its weights are not put into another network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.architectures.registry import build_dense
from prunecli.checkpoint.modules import submodules
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import ArchitectureRef
    from prunecli.checkpoint.inert import Stub

_OF_TRAINING = frozenset({"inplace", "momentum", "p", "training", "track_running_stats"})
"""Settings of layers that change nothing in evaluation, or that the weights show."""

_SHOWN = 3


def check_layers(module: Stub, architecture: ArchitectureRef, path: Path) -> None:
    """Raise `InputError` (`ARCHITECTURE_MISMATCH`) where a layer of the module is another one.

    Compared are the layers of torch itself, by class and plain settings. Where the modules have
    other names than in the architecture, there is nothing to compare.
    """
    theirs = submodules(module)
    ours = dict(build_dense(architecture).named_modules())
    inside = _inside(theirs, ours)
    if inside is None:
        return
    wrong = [
        f"{name}: {text}"
        for name, layer in ours.items()
        if (record := theirs.get(f"{inside}{name}")) is not None
        for text in _differences(record, layer)
    ]
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(
            f"the pickled module has the weights of {architecture.name} and is another network: "
            f"{', '.join(wrong[:_SHOWN])}{more}",
            code="ARCHITECTURE_MISMATCH",
            where=str(path),
            hint="name the code that makes it: --arch mypackage.nets:make_net, or --arch "
            f"{architecture.name} if its own layers are meant",
        )


def _inside(theirs: Mapping[str, Stub], ours: Mapping[str, nn.Module]) -> str | None:
    """Return what the names of the architecture's layers begin with in the pickled module."""
    holders = [
        name for name, layer in ours.items() if next(layer.parameters(False), None) is not None
    ]
    last = max(holders, key=len, default="")
    for name in theirs:
        start = name.removesuffix(last)
        if name.endswith(last) and all(f"{start}{each}" in theirs for each in holders):
            return start
    return None


def _differences(record: Stub, layer: nn.Module) -> Iterator[str]:
    """Yield what is different in a layer of torch."""
    kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if not kind.startswith("torch.nn.") or not record.name.startswith("torch.nn."):
        return
    if record.name != kind:
        yield f"{record.name.rpartition('.')[2]}, not {type(layer).__name__}"
        return
    for key, value in vars(layer).items():
        found = record.fields.get(key, value)
        if key.startswith("_") or key in _OF_TRAINING or not (_plain(value) and _plain(found)):
            continue
        if found != value:
            yield f"{key} {found}, not {value}"


def _plain(value: Any) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    return len(items) < 8 and all(
        item is None or isinstance(item, bool | int | float) or _is_word(item) for item in items
    )


def _is_word(item: Any) -> bool:
    return isinstance(item, str) and len(item) < 64
