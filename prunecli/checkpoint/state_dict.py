"""Find the state dict in what a training script saved, and undo what wrappers did to its names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.checkpoint.headers import TensorHeader, is_tensor
from prunecli.checkpoint.inert import Stub
from prunecli.checkpoint.sniff import not_a_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from prunecli.errors import PruneError

# Where training scripts put the weights; of several, the first is taken and the rest reported.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
)
_PREFIXES = ("module.", "model.")
_COMPILED = "_orig_mod."  # torch.compile puts it wherever a compiled sub-module begins
_AVERAGED = "n_averaged"  # the step counter of torch.optim.swa_utils.AveragedModel
_ACCURACY = re.compile(r"(^|_)(acc|accuracy|prec|precision|top)_?@?\d*($|_)", re.IGNORECASE)
_DECLARED = ("arch", "architecture", "model_name")
_DEPTH = 4
_SHOWN = 5

# Names that an architecture had in an earlier version of torchvision.
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass(frozen=True)
class Unwrapped:
    """The state dict of a file, where it stood, and what else the file says.

    `others` are further sets of weights that were passed over, `declared` is the architecture's
    name by the file's own account, and `accuracy` what it claims to reach.
    """

    tensors: Mapping[str, Tensor]
    place: str
    others: tuple[str, ...]
    declared: str | None
    accuracy: Mapping[str, float]


def unwrap(value: Any) -> Unwrapped | None:
    """Return the state dict inside `value`, at most four levels deep; None when there is none."""
    place: list[str] = []
    others: list[str] = []
    notes: dict[str, Any] = {}
    for _ in range(_DEPTH):
        if not isinstance(value, Mapping):
            return None
        names = _inner_dicts(value)
        if not names:
            break
        notes |= {str(key): item for key, item in value.items() if key not in names}
        place.append(names[0])
        others += names[1:]
        value = value[names[0]]
    tensors = {
        key: tensor
        for key, tensor in value.items()
        if isinstance(key, str) and is_tensor(tensor) and key != _AVERAGED
    }
    if not tensors or len(tensors) < len(value) / 2:
        return None
    return Unwrapped(tensors, ".".join(place), tuple(others), _declared(notes), _accuracy(notes))


def no_state_dict(path: Path, value: Any) -> PruneError:
    """Return the error for a file that holds something else than weights."""
    return not_a_checkpoint(
        path,
        f"there is no state dict in this file, but {_describe(value)}",
        hint="save the weights alone: torch.save(model.state_dict(), 'weights.pt')",
    )


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(repr(key) for key in list(value)[:_SHOWN])
        return f"a dict with {keys}" if keys else "an empty dict"
    return f"a {value.name if isinstance(value, Stub) else type(value).__name__}"


def name_variants(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors under their own names, then with one more prefix undone each time."""
    current: dict[str, Tensor] | None = dict(tensors)
    while current is not None:
        yield current
        current = _undo_one(current)


def _inner_dicts(value: Mapping[Any, Any]) -> list[str]:
    """Return the keys of the inner dicts with weights, the best known names first."""
    known = [name for name in _WRAPPERS if _holds_weights(value.get(name), depth=_DEPTH)]
    if known or any(is_tensor(item) for item in value.values()):
        return known
    # No known name and no tensor at this level: a single dict of tensors is meant, if there is one.
    return [key for key in value if isinstance(key, str) and _is_flat(value[key])]


def _holds_weights(value: Any, *, depth: int) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return _is_flat(value) or any(
        _holds_weights(value.get(name), depth=depth - 1) for name in _WRAPPERS
    )


def _is_flat(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and is_tensor(item) for key, item in value.items()
    )


def _undo_one(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    if any(_COMPILED in key for key in tensors):
        return {key.replace(_COMPILED, ""): tensor for key, tensor in tensors.items()}
    renamed = {_modern(key): tensor for key, tensor in tensors.items()}
    if renamed.keys() != tensors.keys():
        return renamed
    first = next(iter(tensors), "").partition(".")[0] + "."
    for prefix in (*_PREFIXES, first):
        if len(prefix) > 1 and all(key.startswith(prefix) for key in tensors):
            return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return None


def _modern(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _declared(notes: Mapping[str, Any]) -> str | None:
    names = [notes[key] for key in _DECLARED if isinstance(notes.get(key), str)]
    return names[0] if names else None


def _accuracy(notes: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: number
        for key, item in notes.items()
        if _ACCURACY.search(key) and (number := _number(item)) is not None
    }


def _number(item: Any) -> float | None:
    if isinstance(item, TensorHeader):
        return None
    if is_tensor(item):
        return float(item) if item.numel() == 1 and str(item.dtype) != "torch.bool" else None
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    return float(item) if is_number else None
