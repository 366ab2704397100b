"""What earlier calls left in a network: caches that hold the answer for one size of the input.

A detection head keeps its anchors until the image size changes. A trace of such a call would find
the anchors instead of their making, and hold for that size alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.graph.tracing.record import attributes_kept
from prunecli.graph.tracing.running import buffers_kept, draws_kept, evaluating
from prunecli.graph.tracing.torch_export import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STEPS = {4: 64, 5: 16}
"""How much larger images and volumes are in the other call: no size that a proof looks at."""

_Attributes = dict[tuple[str, str], Any]
"""Values by path of the module and name."""


def without_caches(model: nn.Module, example: Sequence[Any]) -> nn.Module:
    """Return a network whose caches are those of a call with inputs of another size.

    A cache is an attribute that a call of another size changes, and one of this size changes back.
    Where there is none, which is the rule, that is `model` itself; else a copy over the same
    parameters and buffers. The model and its buffers are left as they are.
    """
    if not any(isinstance(value, Tensor) for value in _attributes(model).values()):
        return model  # what is worth to be kept is a tensor
    for other in (_larger, _more):
        try:
            changed = _following_sizes(model, example, other)
        except Exception:  # noqa: BLE001, S112 - not every forward takes another size
            continue
        return _set_apart(model, changed) if changed else model
    return model


def _larger(value: Tensor) -> Tensor:
    """Return images of another size and number."""
    for dim in range(2, value.dim() if value.dim() in STEPS else 2):
        value = _extended(value, dim, value.shape[dim] + STEPS[value.dim()])
    return _more(value)


def _more(value: Tensor) -> Tensor:
    return _extended(value, 0, 4 if len(value) == 3 else 3) if value.dim() else value


def _extended(value: Tensor, dim: int, size: int) -> Tensor:
    times = -(-size // max(value.shape[dim], 1))
    return torch.cat([value] * times, dim).narrow(dim, 0, size)


def _following_sizes(
    model: nn.Module, example: Sequence[Any], other: Callable[[Tensor], Tensor]
) -> _Attributes:
    """Return what a call of another size leaves in the attributes that follow the size of a call.

    Raises what the forward raises.
    """
    elsewhere = pytree.tree_map_only(Tensor, other, list(example))
    with quiet(), draws_kept(model), evaluating(model), buffers_kept(model), torch.no_grad():
        with attributes_kept(model):
            before = _attributes(model)
            model(*elsewhere)
            there = _attributes(model)
            if all(_same(value, before.get(at)) for at, value in there.items()):
                return {}
            model(*example)
            back = _attributes(model)
        with attributes_kept(model):
            model(*example)
            here = _attributes(model)
    return {
        at: value
        for at, value in there.items()
        if not _same(value, here.get(at)) and _same(back.get(at), here.get(at))
    }


def _attributes(model: nn.Module) -> _Attributes:
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    }


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and first.equal(second)
    try:
        return type(first) is type(second) and bool(first == second)
    except Exception:  # noqa: BLE001 - anybody's attribute may compare in any way
        return False


def call_once(model: nn.Module, example: Sequence[Any]) -> None:
    """Let a network fill its caches anew, with what a call of this size leaves."""
    with quiet(), draws_kept(model), evaluating(model), buffers_kept(model), torch.no_grad():
        model(*example)


def _set_apart(model: nn.Module, attributes: Mapping[tuple[str, str], Any]) -> nn.Module:
    """Return a copy over the same tensors with other attributes; the model where it has no copy."""
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    try:
        found: nn.Module = copy.deepcopy(model, shared)
    except Exception:  # noqa: BLE001 - a cut of it will say why it cannot be copied
        return model
    for (path, name), value in attributes.items():
        setattr(found.get_submodule(path), name, value)
    return found
