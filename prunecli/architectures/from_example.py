"""What a network takes, read off the arguments of one call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunecli.architectures.argument import FLOATS, INTEGERS, Argument
from prunecli.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def arguments_of(example: Any, model: nn.Module | None = None) -> tuple[Argument, ...]:
    """Return what the arguments of a call are, in the order of the forward of `model`.

    Raises `InputError` (`BAD_EXAMPLE`) for arguments that cannot be described.
    """
    named = _named(example, model)
    tensors = [value for value in named.values() if isinstance(value, Tensor) and value.dim()]
    batch = tensors[0].shape[0] if tensors else 1
    arguments = tuple(_argument(name, value, batch) for name, value in named.items())
    if not any(argument.is_tensor for argument in arguments):
        raise _bad("none of them is a tensor")
    return arguments


def is_images(arguments: Sequence[Argument], example: Any, model: nn.Module | None) -> bool:
    """Tell whether the arguments of a call are one batch of images, where the forward has it first.

    They are one tensor `[n, channels, height, width]` of floats.
    """
    only = arguments[0]
    first = not isinstance(example, Mapping) or only.name == parameter_names(model, 1)[0]
    images = only.batched and only.dtype in FLOATS and len(only.shape or ()) == 3
    return len(arguments) == 1 and images and first


def _argument(name: str, value: Any, batch: int) -> Argument:
    if isinstance(value, _PLAIN):
        return Argument(name, value=value)
    if not isinstance(value, Tensor):
        raise _bad(f"{name} is a {type(value).__name__}, not a tensor or a plain value")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in (*FLOATS, *INTEGERS):
        raise _bad(f"{name} holds {dtype} values")
    batched = value.dim() > 0 and value.shape[0] == batch
    return Argument(
        name,
        tuple(value.shape[1:] if batched else value.shape),
        dtype,
        batched=batched,
        values=_range(value),
    )


def _range(value: Tensor) -> tuple[int, int]:
    if value.is_floating_point() or value.dtype == torch.bool or not value.numel():
        return (0, 1)
    return int(value.min()), int(value.max())


def _bad(reason: str) -> InputError:
    return InputError(
        f"an input cannot be described: {reason}",
        code="BAD_EXAMPLE",
        hint="give tensors and plain values, by position or by name; a forward that takes lists or "
        "dicts of tensors needs a small module around it that takes them one by one",
    )


def _named(example: Any, model: nn.Module | None) -> dict[str, Any]:
    """Return arguments by name, in the order of the forward."""
    if isinstance(example, Tensor):
        example = (example,)
    if not isinstance(example, Mapping | Sequence):
        raise _bad(f"it is a {type(example).__name__}")
    if not isinstance(example, Mapping):
        names = parameter_names(model, len(example))
        return dict(zip(names, example, strict=True))
    signature = signature_of(model)
    if signature is None:
        return dict(example)
    try:
        bound = signature.bind(**example)
    except TypeError as error:
        raise _bad(f"{error}, given {', '.join(map(str, example))}") from error
    bound.apply_defaults()
    last = max((at for at, name in enumerate(bound.arguments) if name in example), default=-1)
    return dict(list(bound.arguments.items())[: last + 1])


def parameter_names(model: nn.Module | None, count: int) -> tuple[str, ...]:
    """Return the names of a forward's first `count` parameters; made up where it has none."""
    signature = signature_of(model)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = () if signature is None else signature.parameters.values()
    names = [value.name for value in parameters if value.kind in positional][:count]
    return (*names, *(f"input_{at}" for at in range(len(names), count)))


def signature_of(model: nn.Module | None) -> inspect.Signature | None:
    """Return the signature of a forward; None where there is none to read."""
    if model is None:
        return None
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None
