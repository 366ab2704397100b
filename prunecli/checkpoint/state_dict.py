"""Find the state dict in what a training script saved, and undo what wrappers did to its names."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.checkpoint.headers import TensorHeader, is_tensor
from prunecli.checkpoint.inert import Stub
from prunecli.checkpoint.sniff import not_a_checkpoint
from prunecli.errors import InputError
from prunecli.wording import some

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
_COMPILED = "_orig_mod."  # torch.compile puts it wherever a compiled sub-module begins
_AVERAGED = "n_averaged"  # the step counter of torch.optim.swa_utils.AveragedModel
_ACCURACY = re.compile(r"(^|_)(acc|accuracy|prec|precision|top)_?@?\d*($|_)", re.IGNORECASE)
_DECLARED = ("arch", "architecture", "model_name")
_ARGUMENTS = ("hyper_parameters", "hparams", "args", "config", "cfg")
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


def unwrap(value: Any, *, weights: str | None = None, where: str = "") -> Unwrapped | None:
    """Return the state dict inside `value`, at most four levels deep; None when there is none.

    Of several sets of weights it is that called `weights`, or the one under the best known name;
    sets of which no name is known stand beside one another, each under its own prefix. Raises
    `InputError` (`NO_SUCH_WEIGHTS`) where there are none of that name.
    """
    place: list[str] = []
    notes: dict[str, Any] = {}
    if weights is not None:
        value, place, notes = _named(value, weights, where)
    others: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(value, Mapping):
            return None
        names = _inner_dicts(value)
        if not names:
            break
        notes |= {str(key): item for key, item in value.items() if key not in names}
        strays = {key: item for key, item in value.items() if _is_array(item)}
        if names[0] not in _WRAPPERS and (len(names) > 1 or strays):
            value = {**_side_by_side({name: value[name] for name in names}), **strays}
            break
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


def spellings(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors under their own names, then with what changed these names undone."""
    yield dict(tensors)
    plain = {key.replace(_COMPILED, ""): tensor for key, tensor in tensors.items()}
    if plain.keys() != tensors.keys():
        yield plain
    modern = {_modern(key): tensor for key, tensor in plain.items()}
    if modern.keys() != plain.keys():
        yield modern


def _named(value: Any, weights: str, where: str) -> tuple[Any, list[str], dict[str, Any]]:
    """Return what stands under the name of a set of weights, its place, and all around it."""
    sets = list(_sets(value, (), {}))
    for place, inner, notes in sets:
        path = ".".join(place)
        if path == weights or path.endswith(f".{weights}"):
            return inner, list(place), notes
    known = [".".join(place) for place, _, _ in sets]
    raise InputError(
        f"the file has no weights under {weights!r}",
        code="NO_SUCH_WEIGHTS",
        where=where,
        hint=f"it has {some(known, 8)}: --weights {known[0]}"
        if known
        else "it has one set of weights, without a name: leave --weights out",
    )


def _sets(
    value: Any, place: tuple[str, ...], notes: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Yield every dict with weights below `value`, the outer ones first, with what is around it."""
    if not isinstance(value, Mapping) or len(place) == _DEPTH:
        return
    inner = {
        key: item
        for key, item in value.items()
        if isinstance(key, str) and _holds_any(item, depth=_DEPTH)
    }
    around = {**notes, **{str(key): item for key, item in value.items() if key not in inner}}
    for key, item in inner.items():
        yield (*place, key), item, around
    for key, item in inner.items():
        yield from _sets(item, (*place, key), around)


def _holds_any(value: Any, *, depth: int) -> bool:
    """Tell whether there are weights under names, known ones or not."""
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return _is_flat(value) or any(_holds_any(item, depth=depth - 1) for item in value.values())


def _side_by_side(sets: Mapping[str, Mapping[Any, Any]]) -> dict[str, Any]:
    return {
        f"{name}.{key}": item
        for name, inner in sets.items()
        for key, item in inner.items()
        if isinstance(key, str)
    }


def _inner_dicts(value: Mapping[Any, Any]) -> list[str]:
    """Return the keys of the inner dicts with weights, the best known names first."""
    known = [name for name in _WRAPPERS if _holds_weights(value.get(name), depth=_DEPTH)]
    if known:
        return known
    # No known name: dicts of tensors are meant, unless most tensors stand beside them.
    flat = [key for key in value if isinstance(key, str) and _is_flat(value[key])]
    inside = sum(is_tensor(item) for key in flat for item in value[key].values())
    return flat if inside > sum(map(is_tensor, value.values())) else []


def _holds_weights(value: Any, *, depth: int) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return _is_flat(value) or any(
        _holds_weights(value.get(name), depth=depth - 1) for name in _WRAPPERS
    )


def _is_array(item: Any) -> bool:
    """Tell whether something is a tensor of more than one number: those are steps and scales."""
    return is_tensor(item) and math.prod(item.shape) > 1


def _is_flat(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and is_tensor(item) for key, item in value.items()
    )


def _modern(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _declared(notes: Mapping[str, Any]) -> str | None:
    """Return the name of the architecture, said beside the weights or among their arguments."""
    inner = [notes.get(key) for key in _ARGUMENTS]
    places = [notes, *(vars(one) if isinstance(one, Namespace) else one for one in inner)]
    names = [
        place[key] for place in places if isinstance(place, Mapping) for key in _DECLARED
        if isinstance(place.get(key), str)
    ]  # fmt: skip
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
