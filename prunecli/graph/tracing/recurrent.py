"""Recurrent layers in a trace: one operator each, for sequences of any length."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._decomp import decomposition_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


@contextmanager
def steps_not_unrolled() -> Iterator[None]:
    """Let torch find the shapes of recurrent layers without tracing them step by step.

    The steps would take seconds, and would make their number one that cannot change.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd  # noqa: SLF001
    tables: list[tuple[Any, Any, Any]] = [
        # A trace asks the operator itself, what works on a trace this table.
        *((operator.py_kernels, key, shapes) for operator, shapes in _SHAPES.items()),
        *((decomposition_table, operator, shapes) for operator, shapes in _SHAPES.items()),
    ]
    known = [(table, name, table.get(name)) for table, name, _ in tables]
    _put(tables)
    try:
        yield
    finally:
        _put(known)


def _put(entries: Sequence[tuple[Any, Any, Any]]) -> None:
    for table, name, entry in entries:
        if entry is None:
            table.pop(name, None)
        else:
            table[name] = entry
    for operator in _SHAPES:
        operator._dispatch_cache.clear()  # noqa: SLF001


def _lstm(given: Tensor, hidden: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    state, cell = hidden
    return _output(given, state, rest), torch.empty_like(state), torch.empty_like(cell)


def _others(given: Tensor, hidden: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _output(given, hidden, rest), torch.empty_like(hidden)


def _output(given: Tensor, state: Tensor, rest: Sequence[Any]) -> Tensor:
    """Return a tensor of the shape of the output, whichever of its dimensions are the steps.

    The operators end in whether they are bidirectional, and whether the batch comes first.
    """
    bidirectional = rest[-2]
    width = state.shape[2] * (2 if bidirectional else 1)
    return given.new_empty((given.shape[0], given.shape[1], width))


_SHAPES: dict[Any, Any] = {
    torch.ops.aten.lstm.input: _lstm,
    torch.ops.aten.gru.input: _others,
    torch.ops.aten.rnn_tanh.input: _others,
    torch.ops.aten.rnn_relu.input: _others,
}
