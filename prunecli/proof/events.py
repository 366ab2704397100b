"""What a forward does, call by call, on tensors without values: the same events, the same function.

A network runs on fake tensors (shapes, types and strides, no numbers), and every operator that
reaches the dispatcher is written down with what it reads: inputs by position, stored tensors by
name, what the forward makes itself by its content, everything else by the call that gave it.
Views are no events: a tensor is its memory and where in it. Two networks with equal events compute
the same on every input that takes them there, whatever its values.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunecli.graph.emitting.emit import constant_name
from prunecli.graph.operators import operator_name
from prunecli.graph.tracing.known_values import KnownValues
from prunecli.graph.tracing.record import tensors_in
from prunecli.graph.tracing.running import arguments_of, run_with
from prunecli.graph.tracing.shapes import Shapes, fake_like, norms_keep_shapes
from prunecli.graph.tracing.torch_export import nothing_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Token = tuple[Any, ...]
"""What stands for a tensor: its memory, and type, shape, strides and place in it."""


@dataclass(frozen=True)
class Event:
    """One call of an operator: its arguments, tensors as tokens, and the memory that it fills."""

    operator: str
    reads: tuple[Any, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Events:
    """The calls of a forward, what it returned, and what its stored tensors hold afterwards."""

    calls: tuple[Event, ...]
    outputs: tuple[Token, ...]
    moved: tuple[Token, ...]

    def difference(self, other: Events) -> str:
        """Say where two forwards part; empty where they are one function."""
        for at, (first, second) in enumerate(itertools.zip_longest(self.calls, other.calls)):
            if first != second:
                names = [one.operator if one else "nothing" for one in (first, second)]
                if names[0] == names[1]:
                    return f"call {at + 1}, {names[0]}, has other arguments"
                return f"call {at + 1} is {names[0]} in the one and {names[1]} in the other"
        if self.outputs != other.outputs:
            return "other values are returned"
        return "" if self.moved == other.moved else "other stored tensors are changed"


class Fakes:
    """Makes fake tensors of networks' own, once for each, and runs them on these."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._shapes = Shapes(self._mode)
        self._states: WeakKeyDictionary[nn.Module, dict[Any, dict[str, _Stored]]] = (
            WeakKeyDictionary()
        )

    def events(
        self,
        model: nn.Module,
        inputs: Sequence[Any],
        *,
        dtype: torch.dtype | None = None,
        grad: bool = False,
    ) -> Events:
        """Return what a forward on `inputs` does, in another type or with gradients.

        The network and its tensors stay as they are; Python attributes that a forward changes do
        not (`attributes_kept`). Casts of floating-point tensors count for nothing where a type is
        given. Raises what the forward raises, and what fake tensors cannot do (tell their values).
        """
        state = self._state(model, dtype)
        given = pytree.tree_map_only(Tensor, partial(self._fake, dtype), list(inputs))
        recorder = _Recorder(KnownValues(self._shapes), casts_count=dtype is None)
        for stored in state.values():
            recorder.know(stored.fake, stored.name)
            stored.fake.requires_grad_(grad and stored.trained)
        for at, value in enumerate(tensors_in(given)):
            recorder.know(value, f"input {at}")
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(nothing_hidden())
            stack.enter_context(_without_fast_paths())
            stack.enter_context(_quiet_fakes())
            stack.enter_context(norms_keep_shapes())
            stack.enter_context(self._mode)
            stack.enter_context(recorder)
            fakes = {name: one.fake for name, one in state.items()}
            found = run_with(model, fakes, arguments_of(model, given))
        outputs = tuple(recorder.token(value) for value in tensors_in(found))
        return _without_unread(recorder.calls, outputs, recorder.moved(state))

    def _state(self, model: nn.Module, dtype: torch.dtype | None) -> dict[str, _Stored]:
        known = self._states.setdefault(model, {})
        # A forward with gradients that writes to a buffer leaves it with a history.
        if not all(stored.fake.is_leaf for stored in known.get(dtype, {}).values()):
            del known[dtype]
        if dtype not in known:
            known[dtype] = {
                name: _Stored(
                    _stored_name(name, value), self._fake(dtype, value), value.requires_grad
                )
                for name, value in (*model.named_parameters(), *model.named_buffers())
            }
        return known[dtype]

    def _fake(self, dtype: torch.dtype | None, value: Tensor) -> Tensor:
        """Return a fake of a tensor in memory of its own, of another type where one is given."""
        return fake_like(self._mode, value, dtype if value.is_floating_point() else None)


@dataclass(frozen=True)
class _Stored:
    """A parameter or buffer without values: what it is called in events, and whether it learns."""

    name: str
    fake: Tensor
    trained: bool


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the calls that reach the dispatcher."""

    def __init__(self, values: KnownValues, *, casts_count: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Event] = []
        self._memory: dict[int, str] = {}
        self._starts: dict[int, int] = {}
        self._known: list[Tensor] = []
        self._values = values
        self._casts_count = casts_count

    def know(self, value: Tensor, name: str, at: int = 0) -> None:
        """Name the memory of a tensor, and keep it alive: its address is its identity.

        It starts `at` so many elements behind the start of what has the name.
        """
        self._memory[_address(value)] = name
        self._starts[_address(value)] = at
        self._known.append(value)

    def moved(self, state: Mapping[str, _Stored]) -> tuple[Token, ...]:
        """Return which stored tensors hold something else now, and what."""
        now = {name: self._memory[_address(one.fake)] for name, one in state.items()}
        return tuple((name, held) for name, held in sorted(now.items()) if held != state[name].name)

    def token(self, value: Tensor) -> Token:
        """Return what stands for a tensor."""
        known = isinstance(value, FakeTensor)
        memory = self._memory.get(_address(value), "?") if known else f"content {_digest(value)}"
        kind = value.dtype if self._casts_count or not value.is_floating_point() else "float"
        at = value.storage_offset() + (self._starts.get(_address(value), 0) if known else 0)
        return (memory, str(kind), tuple(value.shape), value.stride(), at)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = self._values.call(func, args, kwargs)
        call = _signature(func)
        if call is None:
            return result
        given = [
            args[at] if at < len(args) else kwargs.get(name, default)
            for at, (name, default) in enumerate(call.arguments)
        ]
        found = [value for value in _flat(result) if isinstance(value, FakeTensor)]
        if not call.written:
            read = {_address(value) for value in _flat(given) if isinstance(value, FakeTensor)}
            if found and all(_address(value) in read for value in found):
                return result  # a view: the same memory
            if call.operator in _LIFTS or (
                call.operator == "_to_copy" and not self._casts_count and _is_cast(given, found)
            ):
                memory, *_, at = self.token(given[0])
                self.know(found[0], memory, at - found[0].storage_offset())
                return result
        operator, reads = call.operator, tuple(self._plain(value) for value in given)
        if operator in _TAKES:
            operator, reads = _TAKES[operator](reads)
        written = [given[at] for at in call.written if isinstance(given[at], FakeTensor)]
        made = [value for value in found if not any(value is one for one in written)]
        gives = tuple(f"{len(self.calls)}.{at}" for at in range(len(written) + len(made)))
        for name, value in zip(gives, (*written, *made), strict=True):
            self.know(value, name)
        self.calls.append(Event(operator, reads, gives))
        return result

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.token(value)
        if isinstance(value, list | tuple):
            return tuple(self._plain(item) for item in value)
        if isinstance(value, torch.dtype) and value.is_floating_point and not self._casts_count:
            return "float"
        return value if isinstance(value, int | float | bool | str | None) else str(value)


def _without_unread(
    calls: Sequence[Event], outputs: tuple[Token, ...], moved: tuple[Token, ...]
) -> Events:
    """Leave out calls that nothing follows from, and number the memory of the others anew."""
    wanted = set(_words((outputs, moved)))
    live = []
    for call in reversed(calls):
        if wanted.intersection(call.gives):
            live.append(call)
            wanted.update(_words(call.reads))
    names: dict[str, str] = {}
    for at, call in enumerate(reversed(live)):
        names.update({name: f"{at}.{place}" for place, name in enumerate(call.gives)})
    return Events(
        tuple(
            Event(*_renamed((call.operator, call.reads, call.gives), names)) for call in live[::-1]
        ),
        _renamed(outputs, names),
        _renamed(moved, names),
    )


def _words(value: Any) -> Iterator[str]:
    return (item for item in _flat(value) if isinstance(item, str))


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed(item, names) for item in value)
    return names.get(value, value) if isinstance(value, str) else value


def _indexed(reads: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Write down an index of one dimension by a list of positions as what it is."""
    source, indices = reads
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    if len(dims) == 1 and len(indices[dims[0]]) == 5 and len(indices[dims[0]][2]) == 1:
        return "index_select", (source, dims[0], indices[dims[0]])
    return "index", reads


_LIFTS = frozenset({"lift_fresh", "lift_fresh_copy"})
"""Operators that hand a constant to the forward."""

_TAKES = {"index": _indexed}
"""Other spellings of one operator; a re-emitted graph has its own."""


@dataclass(frozen=True)
class _Signature:
    """An operator: its bare name, its arguments with their defaults, and which it writes to."""

    operator: str
    arguments: tuple[tuple[str, Any], ...]
    written: tuple[int, ...]


@functools.cache
def _signature(func: Any) -> _Signature | None:
    """Return what is written down of an operator; None for questions about a tensor's device."""
    schema = func._schema  # noqa: SLF001
    if schema.name.startswith("prim::"):
        return None
    return _Signature(
        operator=operator_name(func),
        arguments=tuple(
            (one.name, one.default_value if one.has_default_value() else None)
            for one in schema.arguments
        ),
        written=tuple(
            at
            for at, one in enumerate(schema.arguments)
            if one.alias_info is not None and one.alias_info.is_write
        ),
    )


def _flat(value: Any) -> Iterator[Any]:
    """Yield what is in a value of an operator: such values are lists and tuples at most."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _is_cast(given: Sequence[Any], found: Sequence[Tensor]) -> bool:
    source = given[0]
    return isinstance(source, FakeTensor) and all(
        value.is_floating_point() and source.is_floating_point() for value in found
    )


def _stored_name(name: str, value: Tensor) -> str:
    """Name a stored tensor: tables of integers and constants of the forward by their content."""
    number = value.is_floating_point() or value.is_complex()
    if number and not name.startswith(constant_name("")):
        return f"tensor {name}"
    return f"content {_digest(value)}"


def _address(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)  # noqa: SLF001


def _digest(value: Tensor) -> str:
    """Return a digest of the memory of a tensor that has values."""
    with torch.utils._python_dispatch._disable_current_modes():  # noqa: SLF001
        memory = value.detach().cpu().untyped_storage()
        # A storage by itself gives its bytes one by one, which takes seconds for a table.
        content = torch.empty(0, dtype=torch.uint8).set_(memory)
        return hashlib.sha256(content.numpy().data).hexdigest()


@contextmanager
def _quiet_fakes() -> Iterator[None]:
    """Keep what fake tensors log of a failure off the screen: it is raised as well."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    known = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(known)


@contextmanager
def _without_fast_paths() -> Iterator[None]:
    """Let attention run by its steps: torch's own shortcut computes the same in one call."""
    known = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(known)
