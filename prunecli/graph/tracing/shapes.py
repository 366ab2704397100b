"""What operators give on tensors without values: found once, and remembered.

Torch finds type, shape and strides of a result by steps that take longer than the arithmetic of a
small image. A network asks the same question in every block, and a proof does so in every run.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Kind = tuple[Any, ...]
"""A tensor without values: type, shape, strides, and device."""


@dataclass(frozen=True)
class _Made:
    """The new tensors that an operator makes, None for one that it leaves out."""

    kinds: tuple[_Kind | None, ...]
    several: bool


class Shapes:
    """Calls operators on the fake tensors of one mode, once for arguments of the same kinds.

    Remembered are operators that make new tensors, of kinds that follow from those of what they
    read and from nothing else. All other calls go to torch, which raises what it raises.
    """

    _known: ClassVar[dict[tuple[Any, ...], _Made | None]] = {}

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operator gives."""
        known = _makes_tensors(func) and (_reads_tensors(func) or kwargs.get("device") is not None)
        key = self._key(func, args, kwargs) if known else None
        if key is None:
            return func(*args, **kwargs)
        made = self._known.get(key)
        if made is not None:
            with in_kernel_invocation_manager(self._mode):
                found = [kind and _fake(self._mode, *kind) for kind in made.kinds]
            return tuple(found) if made.several else found[0]
        result = func(*args, **kwargs)
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = _made(result, (*args, *kwargs.values()))
        return result

    def _key(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, ...] | None:
        """Return what the kinds of a result follow from; None where that is not certain."""
        found = [func, torch.get_default_dtype()]
        known = self._write(found, args) and self._write(found, kwargs.values())
        return (*found, *kwargs) if known else None

    def _write(self, found: list[Any], values: Iterable[Any]) -> bool:
        """Append the kinds of arguments; False for an argument that has more to it."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                if value.fake_mode is not self._mode or not _is_plain(value):
                    return False
                found.append((*_kind(value), value.storage_offset()))
            elif kind in _SIMPLE:
                found.append((kind, value))  # 1 and 1.0 give other types
            elif kind in (list, tuple):
                found.append((kind, len(value)))
                if not self._write(found, value):
                    return False
            else:
                return False
        return True


_MOST = 50_000
"""Calls that are remembered: the largest networks make some thousand different ones."""

_SIMPLE = frozenset(
    {type(None), bool, int, float, str, torch.dtype, torch.device, torch.layout,
     torch.memory_format}
)  # fmt: skip
"""Types of arguments that are their value."""


@functools.cache
def _makes_tensors(func: Any) -> bool:
    """Tell whether an operator makes new tensors, whatever the values of those that it reads."""
    schema = func._schema  # noqa: SLF001
    follows_values = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return (
        schema.name.startswith("aten::")
        and {str(one.type) for one in schema.returns} == {"Tensor"}
        and not any(one.alias_info for one in (*schema.arguments, *schema.returns))
        and not follows_values.intersection(func.tags)
    )


@functools.cache
def _reads_tensors(func: Any) -> bool:
    return "Tensor" in {str(one.type) for one in func._schema.arguments}  # noqa: SLF001


def _is_plain(value: Any) -> bool:
    return value.constant is None and value.layout is torch.strided and not value.is_complex()


def _kind(value: Any) -> _Kind:
    return value.dtype, value.shape, value.stride(), value.fake_device


def fake_like(mode: FakeTensorMode, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor without values, like `value` but in memory of its own.

    It is of another type where one is given. Must not be called while a mode is active.
    """
    if value.layout is not torch.strided:
        return mode.from_tensor(value)
    return _fake(mode, dtype or value.dtype, value.shape, value.stride(), value.device)


def _fake(
    mode: FakeTensorMode,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    empty = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    return FakeTensor(mode, empty, device)


def _made(result: Any, given: Iterable[Any]) -> _Made | None:
    """Return what an operator made; None where it is not new, or has more to it."""
    several = isinstance(result, tuple | list)
    tensors = tuple(result) if several else (result,)
    read = {
        value.untyped_storage()._cdata  # noqa: SLF001
        for value in torch.utils._pytree.tree_leaves(tuple(given))  # noqa: SLF001
        if isinstance(value, Tensor)
    }
    for one in tensors:
        if one is None:
            continue
        if type(one) is not FakeTensor or not _is_plain(one) or one.storage_offset():
            return None
        if one.untyped_storage()._cdata in read:  # noqa: SLF001
            return None
    return _Made(tuple(one if one is None else _kind(one) for one in tensors), several)


# --- batch norm ----------------------------------------------------------------------------------


@contextlib.contextmanager
def norms_keep_shapes() -> Iterator[None]:
    """Say of a batch norm that it gives what it is given, while this lasts.

    Torch spells it out in twenty operators, and reasons about free sizes at each: half of the time
    of an export.
    """
    known = FakeTensorMode.dispatch

    def dispatch(
        self: FakeTensorMode, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = _normalised(self, args, *_NORMS[func]) if func in _NORMS and not kwargs else None
        return known(self, func, types, args, kwargs or {}) if found is None else found

    FakeTensorMode.dispatch = dispatch  # type: ignore[method-assign]
    try:
        yield
    finally:
        FakeTensorMode.dispatch = known  # type: ignore[method-assign]


_NORMS = {
    torch.ops.aten.native_batch_norm.default: (8, 5),
    torch.ops.aten._native_batch_norm_legit.default: (8, 5),  # noqa: SLF001
    torch.ops.aten._native_batch_norm_legit_no_training.default: (7, None),  # noqa: SLF001
}
"""Batch norms that give statistics as well: how many arguments, and which is `training`."""


def _normalised(
    mode: FakeTensorMode, args: Any, count: int, training: int | None
) -> list[Tensor] | None:
    """Return what a batch norm gives: values, means and deviations. None where torch has to say."""
    value, tensors = args[0], args[:5]
    if len(args) != count or any(type(one) is not FakeTensor for one in tensors):
        return None
    channels = value.shape[1:2]
    ours = all(
        one.fake_mode is mode and one.fake_device.type == "cpu" and _is_plain(one)
        for one in tensors
    )
    if not ours or any(one.shape != channels for one in tensors[1:]) or not _is_contiguous(value):
        return None
    statistics = channels if training and args[training] else (0,)
    dtype, shape, strides, device = _kind(value)
    with in_kernel_invocation_manager(mode):
        return [
            _fake(mode, dtype, shape, strides, device),
            _fake(mode, dtype, statistics, (1,), device),
            _fake(mode, dtype, statistics, (1,), device),
        ]


def _is_contiguous(value: Tensor) -> bool:
    """Tell whether memory is laid out as usual, without a question about free sizes.

    A stride is that of the next dimension times its size, which torch takes for one at least. What
    is written in another way is left to torch.
    """
    from torch.utils._sympy.functions import Max

    steps: tuple[Any, ...] = (1,)
    for size, stride in zip(reversed(value.shape), reversed(value.stride()), strict=True):
        step, times = _expression(stride), _expression(size)
        if step not in steps:
            return False
        steps = (step * times, step * Max(1, times))
    return True


def _expression(size: Any) -> Any:
    return size if isinstance(size, int) else size.node.expr


@contextlib.contextmanager
def without_summaries() -> Iterator[None]:
    """Let the exporter write no summary of a tensor (`tensor_meta`) beside the tensor itself.

    Whether memory is contiguous in one format or another is long to tell of free sizes.
    """
    from torch.fx.experimental import proxy_tensor

    name = "_extract_tensor_metadata"
    known = getattr(proxy_tensor, name)
    setattr(proxy_tensor, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(proxy_tensor, name, known)
