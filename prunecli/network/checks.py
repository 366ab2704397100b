"""What a network and its example inputs must be, said before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.errors import InputError
from prunecli.graph.tracing.fake_quantizers import has_ranges, rounding


def check_network(model: Any) -> None:
    """Raise `InputError` for what is no network in memory with finite weights."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a model is needed, not a {type(model).__name__}",
            code="NOT_A_NETWORK",
            hint="give the nn.Module itself; a state dict or a class has no forward to trace",
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(
            "this model is spread over several devices",
            code="NOT_A_NETWORK",
            where=type(model).__name__,
            hint="give the model inside it: model.module",
        )
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                "a scripted module holds no Python to trace",
                code="NOT_A_NETWORK",
                where=path or type(model).__name__,
                hint="give the Python module, before it is scripted, traced or quantised",
            )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        _check_values(name, value)
    _check_observers(model)


def _check_observers(model: nn.Module) -> None:
    """Raise `InputError` for fake quantisers that have no ranges to round by."""
    found = rounding(model)
    # One that the forward never calls has no ranges either, and needs none.
    if found and not any(has_ranges(model.get_submodule(path)) for path in found):
        raise InputError(
            f"the {len(found)} fake quantisers of this model have seen no input: no ranges",
            code="NO_RANGES",
            where=found[0],
            hint="run the model once on a batch in training mode, then prune it",
        )


def _check_values(name: str, value: Tensor) -> None:
    if nn.parameter.is_lazy(value):
        raise InputError(
            "this layer has no weights yet: its size follows from a first input",
            code="NO_WEIGHTS",
            where=name,
            hint="run the model once on an input, then prune it",
        )
    if value.is_meta:
        raise InputError(
            "this model has no weights: they are on the meta device",
            code="NO_WEIGHTS",
            where=name,
            hint="load the weights first (model.to_empty, then load_state_dict)",
        )
    # An attention mask may hold -inf; weights and statistics may not.
    is_free = not isinstance(value, nn.Parameter) and "running_" not in name
    wrong = value.isnan() if is_free else ~value.isfinite()
    if value.is_floating_point() and bool(wrong.any()):
        raise InputError(
            f"{int(wrong.sum())} of {value.numel()} weights are not finite",
            code="NAN_WEIGHTS",
            where=name,
            hint="the training run diverged; use an earlier checkpoint",
        )


def check_example(example: Any) -> None:
    """Raise `InputError` for example inputs without a tensor, or with an empty one."""
    if isinstance(example, str) or not isinstance(example, Tensor | Sequence | Mapping):
        raise _bad_example(f"example inputs must be tensors, not a {type(example).__name__}")
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    if not tensors:
        raise _bad_example("the example inputs hold no tensor")
    empty = next((tensor for tensor in tensors if not tensor.numel()), None)
    if empty is not None:
        raise _bad_example(f"an example input of shape {tuple(empty.shape)} is empty")


def _bad_example(message: str) -> InputError:
    return InputError(
        message,
        code="BAD_EXAMPLE",
        hint="give one input, or a tuple of them: torch.zeros(1, 3, 224, 224), say",
    )
