"""Arguments of a forward as an `InputSpec` says them, and the other way round."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from prunecli.architectures.argument import FLOATS
from prunecli.architectures.from_example import parameter_names, signature_of
from prunecli.errors import InputError

if TYPE_CHECKING:
    import inspect
    from collections.abc import Mapping, Sequence

    from prunecli.architectures.inputs import InputSpec


def named_for(spec: InputSpec, model: nn.Module) -> InputSpec:
    """Return the spec with a name for every argument: those of the forward's parameters."""
    names = parameter_names(model, len(spec.arguments))
    arguments = tuple(
        dataclasses.replace(argument, name=argument.name or name)
        for argument, name in zip(spec.arguments, names, strict=True)
    )
    return dataclasses.replace(spec, arguments=arguments)


def example_tensors(
    spec: InputSpec, *, batch: int = 2, seed: int = 0, dtype: torch.dtype | None = None
) -> tuple[Tensor, ...]:
    """Return random tensors, one per tensor of `spec`: standard normal, or integers of its range.

    `dtype` takes the place of float32. Tensors that are not batched come without a batch.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for argument in spec.tensors:
        shape = (batch, *(argument.shape or ())) if argument.batched else (argument.shape or ())
        own = getattr(torch, argument.dtype)
        if argument.dtype in FLOATS:
            wanted = dtype if dtype is not None and own == torch.float32 else own
            found.append(torch.randn(shape, generator=generator).to(wanted))
        else:
            low, high = argument.values
            found.append(torch.randint(low, high + 1, shape, generator=generator).to(own))
    return tuple(found)


def arguments_with(spec: InputSpec, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return all arguments of a forward, in its order: tensors, and plain values between them."""
    given = iter(tensors)
    if spec.is_images:
        return (next(given),)
    return tuple(next(given) if one.is_tensor else one.value for one in spec.arguments)


def example_arguments(
    spec: InputSpec,
    model: nn.Module | None = None,
    *,
    batch: int = 2,
    dtype: torch.dtype | None = None,
) -> tuple[Any, ...]:
    """Return the arguments of one random call, in the order of the forward of `model`.

    Without a model, in the order of the spec. Raises what `positional` raises.
    """
    tensors = example_tensors(spec, batch=batch, dtype=dtype)
    return arguments_with(spec, tensors) if model is None else positional(model, spec, tensors)


def called(model: nn.Module, spec: InputSpec, tensors: Sequence[Tensor]) -> Any:
    """Return what a network makes of tensors; raises what its forward raises."""
    return model(*positional(model, spec, tensors))


def positional(model: nn.Module, spec: InputSpec, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return the arguments in the order in which the forward of a network takes them.

    Raises `InputError` (`BAD_INPUT_SPEC`) where it does not take arguments of these names.
    """
    values = arguments_with(spec, tensors)
    names = [argument.name for argument in spec.arguments]
    signature = signature_of(model)
    if isinstance(model, fx.GraphModule) or signature is None or not all(names):
        return values  # a graph has an input for each, in this order
    if spec.is_images or names == list(parameter_names(model, len(names))):
        return values
    made_up = {f"input_{at}" for at in range(len(names))}
    if not set(names) & set(signature.parameters) and set(names) <= made_up:
        return values
    try:
        bound = signature.bind(**dict(zip(names, values, strict=True)))
    except TypeError as error:
        raise _misfit(spec, model, signature, str(error)) from error
    if unplaced := set(names) & set(bound.kwargs):
        reason = f"{', '.join(sorted(unplaced))} can only be given by name"
        raise _misfit(spec, model, signature, reason)
    bound.apply_defaults()
    return bound.args[: 1 + max(list(bound.arguments).index(name) for name in names)]


def _misfit(
    spec: InputSpec, model: nn.Module, signature: inspect.Signature, reason: str
) -> InputError:
    return InputError(
        f"the inputs do not fit the model's forward: {reason}",
        code="BAD_INPUT_SPEC",
        where=type(model).__name__,
        hint=f"they are {spec.described}; its forward takes {', '.join(signature.parameters)}",
    )


def at_size(spec: InputSpec, sizes: Mapping[tuple[int, int], int]) -> InputSpec:
    """Return the spec with other sizes at some (tensor, dim); dim 0 is the batch."""
    if spec.is_images:
        changed = [sizes.get((0, dim), size) for dim, size in enumerate(spec.shape, 1)]
        return dataclasses.replace(spec, height=changed[1], width=changed[2])
    arguments, at = [], 0
    for argument in spec.arguments:
        if argument.shape is None:
            arguments.append(argument)
            continue
        first = 1 if argument.batched else 0
        shape = tuple(sizes.get((at, dim), size) for dim, size in enumerate(argument.shape, first))
        arguments.append(dataclasses.replace(argument, shape=shape))
        at += 1
    return dataclasses.replace(spec, arguments=tuple(arguments))
