"""The program of a network for another engine: flat outputs with names, batch and sides free."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx, nn

from prunecli.architectures.examples import called, example_tensors, positional
from prunecli.errors import GraphError
from prunecli.exporting.onnx.failures import export_failed
from prunecli.exporting.onnx.parity import device_of, dtype_of
from prunecli.exporting.onnx.sizes import other_sizes, side_name, sides_of
from prunecli.graph.outputs import named_leaves, returning_tensors, with_flat_outputs
from prunecli.graph.tracing.any_size import Asked, Side, free_sides
from prunecli.graph.tracing.record import attributes_kept
from prunecli.graph.tracing.recurrent import steps_not_unrolled
from prunecli.graph.tracing.running import buffers_kept, evaluating
from prunecli.graph.tracing.stale import without_caches
from prunecli.graph.tracing.torch_export import (
    ASKS_FOR_VALUES,
    counts_one_input,
    first_line,
    quiet,
    short_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.architectures.argument import Argument
    from prunecli.architectures.inputs import InputSpec


@dataclass(frozen=True)
class Captured:
    """A program whose outputs are a flat tuple of tensors, and what its ends are called.

    `sizes` names the symbols of its free sizes. `notes` says what is less than a reader expects.
    """

    program: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: Mapping[str, str]
    notes: tuple[str, ...]


def capture(model: nn.Module, spec: InputSpec, *, dynamic_size: bool = False) -> Captured:
    """Return the program of a network with a free batch, or with a fixed one where it must be.

    What earlier calls cached has no say in it. With `dynamic_size` the sides of images are free as
    well. Raises `GraphError`: `EXPORT_FAILED`,
    and `SIZE_FIXED` for sides that the forward does not leave free.
    """
    model = without_caches(model, positional(model, spec, _example(model, spec, batch=1)))
    first, reason = None, ""
    for batch, free in ((2, True), (1, False), (2, False)):
        try:
            found = _Attempt(model, spec, batch, free, dynamic_size).program()
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            first, reason = first or error, reason or first_line(error)
            if type(error).__name__ in ASKS_FOR_VALUES:
                break
            continue
        if not found.batch_free and free:
            reason = "its forward has the number of inputs as a number in it"
            continue
        if dynamic_size:
            found.check_sides()
        return found.captured(() if free else (_fixed_note(batch, reason),))
    assert first is not None
    raise export_failed(first) from first


def _fixed_note(batch: int, reason: str) -> str:
    return (
        f"the batch is fixed at {batch}: {reason.rstrip('.')}. For a batch of any size use "
        "x.shape[0] or flatten(1) in the forward, not a number"
    )


def _example(model: nn.Module, spec: InputSpec, *, batch: int) -> tuple[Tensor, ...]:
    return tuple(
        value.to(device_of(model))
        for value in example_tensors(spec, batch=batch, dtype=dtype_of(model))
    )


@dataclass(frozen=True)
class _Attempt:
    """What an export is tried with."""

    model: nn.Module
    spec: InputSpec
    batch: int
    free: bool
    sides: bool

    def program(self) -> _Found:
        example = _example(self.model, self.spec, batch=self.batch)
        with evaluating(self.model), quiet(), torch.no_grad(), attributes_kept(self.model):
            with buffers_kept(self.model), attributes_kept(self.model):
                leaves = named_leaves(called(self.model, self.spec, example))
            network = self.model
            if isinstance(network, fx.GraphModule):
                network = with_flat_outputs(network, tensors_of(leaves))
            with (
                attributes_kept(self.model),
                returning_tensors(network),
                steps_not_unrolled(),
                short_sizes() if self.sides else contextlib.nullcontext(),
            ):
                program = torch.export.export(
                    network,
                    positional(self.model, self.spec, example),
                    dynamic_shapes=self._shapes(example),
                    strict=False,
                )
        symbols, asked = free_sides(program)
        return _Found(self, program, leaves, symbols, asked)

    def _shapes(self, example: Sequence[Tensor]) -> Any:
        free = iter([self._free(one) for one in self.spec.tensors])
        given = positional(self.model, self.spec, example)
        return tuple(next(free) if isinstance(value, Tensor) else None for value in given)

    def _free(self, argument: Argument) -> dict[int, Any] | None:
        dims = [0] if self.free and argument.batched else []
        dims += sides_of(argument) if self.sides else []
        return dict.fromkeys(dims, torch.export.Dim.AUTO) or None


def tensors_of(leaves: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs that are tensors."""
    return tuple(name for name, value in leaves.items() if isinstance(value, Tensor))


@dataclass(frozen=True)
class _Found:
    """What an attempt came to."""

    attempt: _Attempt
    program_: Any
    leaves: Mapping[str, Any]
    symbols: Mapping[Any, Side]
    asked: tuple[Asked, ...]

    @property
    def places(self) -> dict[tuple[int, int], Side]:
        """The free sizes by tensor and dimension."""
        return {place: side for side in self.symbols.values() for place in side.places}

    @property
    def batch_free(self) -> bool:
        """Whether a batch of any size can be given."""
        tensors = enumerate(self.attempt.spec.tensors)
        batches = [(at, 0) for at, one in tensors if one.batched]
        free = all(place in self.places for place in batches)
        about = {
            place for asked in self.asked for _, side in asked.symbols for place in side.places
        }
        alone = not any(place in about and self.places[place].low > 2 for place in batches if free)
        shapes = [one.shape or () for one in self.attempt.spec.tensors]
        sides = {
            symbol: shapes[at][dim - 1]
            for symbol, side in self.symbols.items()
            for at, dim in side.places[:1]
            if dim
        }
        return free and alone and counts_one_input(self.program_.graph_module.graph, sides)

    def check_sides(self) -> None:
        """Raise `GraphError` (`SIZE_FIXED`) for sides of images that are not free."""
        spec = self.attempt.spec
        wanted = [(at, dim) for at, one in enumerate(spec.tensors) for dim in sides_of(one)]
        # Of sequences [n, length, features] nobody knows which dimension is a side.
        needed = [(at, dim) for at, dim in wanted if len(spec.tensors[at].shape or ()) > 2]
        fixed = [place for place in needed if place not in self.places]
        free = {place: self._size_name(place) for place in wanted if place in self.places}
        if not wanted:
            raise self._size_fixed([], "it has no sides of images")
        if fixed or not free:
            names = {place: self._size_name(place) for place in wanted}
            failure = self._failure(next(other_sizes(spec, names)))
            told = "a number that follows from it is written into the forward"
            raise self._size_fixed(fixed or wanted, failure or told)
        failures = [self._failure(other) for other in other_sizes(spec, free)]
        if all(failures):
            raise self._size_fixed(list(free), failures[0])

    def _size_name(self, place: tuple[int, int]) -> str:
        """Return a name for each size of its own."""
        side = self.places.get(place)
        at, dim = place if side is None else side.places[0]
        argument = self.attempt.spec.tensors[at]
        name = side_name(argument, dim)
        several = len(self.attempt.spec.tensors) > 1
        return f"{argument.name}_{name}" if several and dim else name

    def _size_fixed(self, fixed: Sequence[tuple[int, int]], reason: str) -> GraphError:
        spec, model = self.attempt.spec, self.attempt.model
        sides = [f"{side_name(spec.tensors[at], dim)} of {spec.tensors[at].name}"
                 for at, dim in fixed]  # fmt: skip
        hint = "compute sizes from x.shape in the forward, or leave --dynamic-size out"
        if isinstance(model, fx.GraphModule):
            hint = (
                "the model is a graph that was written for one size: prune it so that it keeps "
                "its own class, export at the size that you need, or leave --dynamic-size out"
            )
        return GraphError(
            f"the {' and '.join(sides) or spec.described} cannot be left free: {reason}",
            code="SIZE_FIXED",
            where=type(model).__name__,
            hint=hint,
        )

    def _failure(self, spec: InputSpec) -> str:
        """Say what goes wrong at another size; empty where nothing does."""
        model = self.attempt.model
        tensors = example_tensors(spec, batch=self.attempt.batch, dtype=dtype_of(model))
        text = ", ".join(
            "x".join(map(str, value.shape[2:]))
            for value, one in zip(tensors, spec.tensors, strict=True)
            if sides_of(one)
        )
        try:
            with evaluating(model), torch.no_grad(), attributes_kept(model), buffers_kept(model):
                called(model, spec, tuple(value.to(device_of(model)) for value in tensors))
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            return f"at {text} the forward fails: {first_line(error)}"
        return ""

    def captured(self, notes: tuple[str, ...]) -> Captured:
        sizes = {
            str(symbol): self._size_name(side.places[0]) for symbol, side in self.symbols.items()
        }
        lost = [
            f"the output {name} is {value!r}, no tensor: it is left out"
            for name, value in self.leaves.items()
            if not isinstance(value, Tensor)
        ]
        return Captured(
            self.program_,
            tuple(one.name for one in self.attempt.spec.tensors),
            tensors_of(self.leaves),
            sizes,
            (*notes, *self._conditions(), *lost),
        )

    def _conditions(self) -> list[str]:
        """Say which sizes the forward takes."""
        if not self.attempt.sides:
            return []
        asked = [
            one.text
            for one in self.asked
            # That a product of sizes is no multiple of one of them is a question of torch's own.
            if not isinstance(one.relation, sympy.Ne)
            and any(not side.is_batch for _, side in one.symbols)
        ]
        least = [
            f"{side.name} is at least {side.low}"
            for side in self.symbols.values()
            if not side.is_batch and side.low > 2
        ]
        told = "; ".join(dict.fromkeys((*asked, *least)))
        return [f"not every size can be given: {told}"] if told else []
