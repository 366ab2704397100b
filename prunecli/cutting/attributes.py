"""Integers that a module keeps beside its weights: heads, head width, split sizes after a cut."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import nn

from prunecli.errors import GraphError, InputError
from prunecli.graph.emitting.rewrites import REWRITES, rewritten
from prunecli.graph.emitting.sizes import Sizes
from prunecli.graph.operators import CHANNEL_NORMS, operator_name, schema_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

Size = int | tuple[int, ...]
Attributes = dict[str, dict[str, Size]]
"""`{module: {attribute: value}}`."""


def mirrored_attributes(
    model: nn.Module, trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]
) -> Attributes:
    """Return the attributes of the user's own modules that have to follow a cut.

    The trace says which sizes in the views and splits of a module change, and to what; an attribute
    of that module with exactly the old size (or tuple of sizes) follows. It is an inference from
    values: the proof of the cut tells whether it was right.
    """
    sizes = Sizes(trace, coupling, keep)
    changes: dict[str, dict[Size, set[Size]]] = {}
    features: Attributes = {}
    for node in trace.graph.nodes:
        name = operator_name(node.target) if node.op == "call_function" else ""
        if name in CHANNEL_NORMS and len(node.meta["val"].shape) > 1 and sizes.is_cut(node, 1):
            features.update(_features(model, owner(node), sizes.left(node, 1)))
        arguments = schema_arguments(node) if name in REWRITES else {}
        if not arguments or "weight" in arguments:
            continue
        changed: dict[str, Any] = {}
        with suppress(GraphError):  # a call that is not understood has no say, as the proof tells
            changed = rewritten(node, sizes)
        for key, value in changed.items():
            for before, after in _pairs(arguments.get(key), value):
                of_module = changes.setdefault(owner(node), {})
                of_module.setdefault(before, set()).add(after)
    return features | {
        path: found for path, wanted in changes.items() if (found := _matching(model, path, wanted))
    }


def _features(model: nn.Module, path: str, left: int) -> Attributes:
    """Return the width of a norm that has no weight to tell it."""
    module = dict(model.named_modules()).get(path)
    if isinstance(module, nn.modules.batchnorm._NormBase) and not module.affine:  # noqa: SLF001
        return {path: {"num_features": left}}
    return {}


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Size]]) -> None:
    """Set attributes of the modules of a model, in place.

    Raises `InputError` unless each is there already and holds integers of the same kind.
    """
    for path, values in attributes.items():
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise _misfit(path) from error
        for name, value in values.items():
            old = module.__dict__.get(name)
            if not _is_size(old) or isinstance(old, int) != isinstance(value, int):
                raise _misfit(f"{path}.{name}")
            setattr(module, name, list(value) if isinstance(old, list) else value)  # type: ignore[arg-type]


def _misfit(where: str) -> InputError:
    return InputError(
        "the plan does not fit this model: it has no such attribute",
        code="PLAN_MISMATCH",
        where=where,
        hint="use the plan with the checkpoint that it was made for",
    )


def _pairs(before: Any, after: Any) -> Iterator[tuple[Size, Size]]:
    """Yield the sizes that change between two values of an argument, one by one and together."""
    if isinstance(before, int) and isinstance(after, int):
        if before != after:
            yield before, after
        return
    if not isinstance(before, list | tuple) or not isinstance(after, list | tuple):
        return
    if len(before) != len(after) or list(before) == list(after):
        return
    if _is_size(list(before)) and _is_size(list(after)):
        yield tuple(before), tuple(after)
    for old, new in zip(before, after, strict=True):
        yield from _pairs(old, new)


def owner(node: Any) -> str:
    """Return the path of the innermost module whose forward made a call."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _matching(model: nn.Module, path: str, changes: Mapping[Size, set[Size]]) -> dict[str, Size]:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return {}
    found = {}
    for name, value in _kept_sizes(module):
        after = changes.get(value if isinstance(value, int) else tuple(value), set())
        if len(after) == 1:
            found[name] = next(iter(after))
    return found


def integers_of(module: nn.Module) -> set[int]:
    """Return the integers that a module keeps, by themselves or several together."""
    kept = (value for _, value in _kept_sizes(module))
    return {one for value in kept for one in ([value] if isinstance(value, int) else value)}


def _kept_sizes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module of the user that hold integers."""
    if type(module).__module__.startswith(("torch.nn.", "torch.ao.")):
        return  # torch's own layers have fields that mean more than one size
    for name, value in vars(module).items():
        if _is_size(value) and name != "training":
            yield name, value


def _is_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int
