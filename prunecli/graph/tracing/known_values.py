"""The values of a forward's own constants, where it runs on tensors without values.

A forward may read a number from a tensor that it keeps as a plain attribute (`self.stride[0]` as a
size or a filling). On fake tensors such a constant loses its value, although no input and no weight
has a say in it. So what follows from constants alone is computed for real as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from prunecli.graph.tracing.shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch._subclasses.fake_tensor import FakeTensorMode

LARGEST = 4096
"""Elements of a constant that is followed: sizes, strides and rates are few."""


class KnownValues:
    """Calls operators on fake tensors, and remembers what those hold that have a known value."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._following = True

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operator gives; a number that is asked for, where it is known."""
        real = [self._real(value) for value in _tensors((*args, *kwargs.values()))]
        if not real or any(value is None for value in real) or not self._following:
            return self._shapes.call(func, args, kwargs)
        if func._schema.is_mutable:  # noqa: SLF001
            self._following = False  # a constant that changes has no value that could be kept
            return func(*args, **kwargs)
        values = iter(real)
        given = pytree.tree_map_only(Tensor, lambda _: next(values), (args, kwargs))
        if func is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001
            return _computed(func, *given)
        found = func(*args, **kwargs)
        if isinstance(found, FakeTensor) and found.numel() <= LARGEST:
            self._known[id(found)] = (found, _computed(func, *given))
        return found

    def _real(self, value: Tensor) -> Tensor | None:
        if isinstance(value, FakeTensor):
            return self._known.get(id(value), (value, None))[1]
        return value if value.numel() <= LARGEST else None


class FollowingConstants(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets a forward on fake tensors read the numbers that its own constants hold."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values = KnownValues(Shapes(mode))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._values.call(func, args, kwargs or {})


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, which are values and lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    with _disable_current_modes():
        return func(*args, **kwargs)
