"""Arguments of a forward as an `InputSpec` says them, and the other way round."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunecli.architectures.inputs import FLOATS, INTEGERS, Argument, InputSpec
from prunecli.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def spec_of(example: Any, model: nn.Module | None = None) -> InputSpec:
    """Return what `example` is one of; see `InputSpec.of`."""
    named = _named(example, model)
    only = next(iter(named.values())) if len(named) == 1 else None
    first = not isinstance(example, Mapping) or next(iter(named)) == _first_name(model)
    if isinstance(only, Tensor) and _are_images(only) and first:
        return InputSpec(*only.shape[1:])
    tensors = [value for value in named.values() if isinstance(value, Tensor) and value.dim()]
    batch = tensors[0].shape[0] if tensors else 1
    arguments = tuple(_argument(name, value, batch) for name, value in named.items())
    if not any(argument.is_tensor for argument in arguments):
        raise _bad("none of them is a tensor")
    return InputSpec(arguments=arguments)


def _are_images(value: Tensor) -> bool:
    return value.dim() == 4 and value.is_floating_point()


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
    signature = _signature(model)
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
    signature = _signature(model)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = () if signature is None else signature.parameters.values()
    names = [value.name for value in parameters if value.kind in positional][:count]
    return (*names, *(f"input_{at}" for at in range(len(names), count)))


def _first_name(model: nn.Module | None) -> str:
    return parameter_names(model, 1)[0]


def _signature(model: nn.Module | None) -> inspect.Signature | None:
    if model is None:
        return None
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None


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
    signature = _signature(model)
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
