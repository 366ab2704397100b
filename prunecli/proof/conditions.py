"""Under which conditions a network is the graph that was traced of it.

A trace follows one call. What the forward asks besides its values (how many images, how large, in
which type, with gradients or without, for the how-manieth time, on how many threads) may take it
elsewhere. So the module runs under each condition beside its graph, on tensors without values,
and their events are compared (`events`).
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.running import arguments_of, evaluating, run_with
from prunecli.proof.events import Events, Fakes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prunecli.graph.tracing.any_size import AnySize, Side

STEP = 32
"""How much larger another image size is: networks divide their sides by up to 32."""


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to call a network; `sizes` are by (tensor, dim) of the inputs.

    `name` completes "verified but for ...".
    """

    name: str = ""
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    grad: bool = False
    threads: int | None = None
    earlier: int = 0
    """How many calls come before it."""

    @property
    def plain(self) -> bool:
        """Whether it is the call that was traced."""
        return not (self.sizes or self.dtype or self.grad or self.threads or self.earlier)

    @property
    def sides(self) -> bool:
        """Whether it is another size of the images."""
        return any(dim for _, dim in self.sizes)

    @property
    def one_image(self) -> bool:
        """Whether it is a batch of one."""
        return bool(self.sizes) and set(self.sizes.values()) == {1}

    def inputs(self, example: Sequence[Any]) -> list[Any]:
        """Return the example at the sizes of this condition, the content repeated."""
        return self._sized(example, _repeated)

    def unfilled(self, example: Sequence[Any]) -> list[Any]:
        """Return tensors like the example at the sizes of this condition, of any content."""
        return self._sized(example, Tensor.new_empty)

    def _sized(
        self, example: Sequence[Any], make: Callable[[Tensor, list[int]], Tensor]
    ) -> list[Any]:
        at = itertools.count()

        def sized(value: Tensor) -> Tensor:
            tensor, shape = next(at), list(value.shape)
            for (place, dim), size in self.sizes.items():
                if place == tensor and value.dim() > dim:
                    shape[dim] = size
            return value if shape == list(value.shape) else make(value, shape)

        return pytree.tree_map_only(Tensor, sized, list(example))  # type: ignore[no-any-return]


def _repeated(value: Tensor, shape: Sequence[int]) -> Tensor:
    for dim, size in enumerate(shape):
        if size != value.shape[dim]:
            times = -(-size // value.shape[dim])
            value = torch.cat([value] * times, dim).narrow(dim, 0, size)
    return value.contiguous()


Outcome = Events | str
"""What a forward did, or the first line of what it raised."""


def events_under(
    fakes: Fakes, model: nn.Module, example: Sequence[Any], conditions: Sequence[Condition]
) -> list[Outcome]:
    """Run a network under conditions, one call after the other, and return what every call did."""
    found: list[Outcome] = []
    with evaluating(model), attributes_kept(model):
        for condition in conditions:
            for _ in range(condition.earlier):
                _outcome(fakes, model, example, Condition())
            with _threads(condition.threads):
                found.append(_outcome(fakes, model, example, condition))
    return found


def _outcome(
    fakes: Fakes, model: nn.Module, example: Sequence[Any], condition: Condition
) -> Outcome:
    inputs = condition.unfilled(example)
    try:
        return fakes.events(model, inputs, dtype=condition.dtype, grad=condition.grad)
    except Exception as error:  # noqa: BLE001 - whatever the forward raises under this condition
        return next(iter(str(error).splitlines()), "") or repr(error)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    known = torch.get_num_threads()
    torch.set_num_threads(count or known)
    try:
        yield
    finally:
        torch.set_num_threads(known)


def single_conditions(example: Sequence[Any], sizes: AnySize | None) -> list[Condition]:
    """Return every condition by itself."""
    tensors = tensors_in(example)
    free = () if sizes is None else sizes.free
    batches = [place for side in free if side.is_batch for place in side.places]
    several = min((side.high or 5 for side in free if side.is_batch), default=5)
    sides = {
        (tensor, dim): _other(side, tensors[tensor].shape[dim])
        for side in free
        if not side.is_batch
        for tensor, dim in side.places
    }
    floats = {value.dtype for value in tensors if value.is_floating_point()}
    dtype = torch.float64 if torch.float64 not in floats else torch.float32
    found = [
        Condition("calls with gradients", grad=True),
        Condition("another number of threads", threads=2 if torch.get_num_threads() == 1 else 1),
        Condition("a second or third call", earlier=2),
    ]
    if batches:
        found.append(Condition("a batch of one", dict.fromkeys(batches, 1)))
        found.append(Condition("larger batches", dict.fromkeys(batches, min(several, 5))))
    if sides:
        found.append(Condition("other image sizes", sides))
    if floats:
        found.append(Condition(f"inputs in {str(dtype).removeprefix('torch.')}", dtype=dtype))
    return found


def _other(side: Side, size: int) -> int:
    """Return another size of a side, within what the forward asks for."""
    larger = size + STEP
    return larger if side.high is None or larger <= side.high else max(side.low, size - STEP)


def calls_of(conditions: Sequence[Condition]) -> list[Condition]:
    """Return three calls of a network, one after the other, that hold all conditions.

    The plain call is first; the other two hold all that goes together.
    """
    first = [one for one in conditions if one.grad or one.one_image]
    second = [one for one in conditions if one not in first]
    return [Condition(), _joined(first), _joined(second)]


@dataclass(frozen=True)
class Compared:
    """Under which conditions a module is not its graph, and where they part.

    `all_run` says that it ran under every condition, as its graph did, and is not known otherwise.
    """

    departures: Mapping[Condition, str]
    all_run: bool = False


def differing(
    fakes: Fakes,
    model: nn.Module,
    graph: nn.Module,
    example: Sequence[Any],
    conditions: Sequence[Condition],
    *,
    own: Sequence[Outcome] | None = None,
) -> Compared:
    """Compare a module with its graph under conditions; `own` is what the module's `calls_of` did.

    Only where one of the three calls differs is every condition tried by itself. Where the plain
    call differs, it alone is returned. A module that does not run is not its graph, if that does.
    """
    calls = calls_of(conditions)
    own = events_under(fakes, model, example, calls) if own is None else own
    traced = events_under(fakes, graph, example, calls)
    found = [difference(*pair) for pair in zip(own, traced, strict=True)]
    if found[0]:
        return Compared({calls[0]: found[0]})
    # Where a joint call does not run, one of its conditions hides the others.
    if not any(found) and not any(isinstance(outcome, str) for outcome in own):
        return Compared({}, all_run=True)
    single = {
        one: difference(*(events_under(fakes, two, example, [one])[0] for two in (model, graph)))
        for one in conditions
    }
    return Compared({one: text for one, text in single.items() if text})


def _joined(conditions: Sequence[Condition]) -> Condition:
    sizes: dict[tuple[int, int], int] = {}
    for condition in conditions:
        sizes.update(condition.sizes)
    return Condition(
        sizes=sizes,
        dtype=next((one.dtype for one in conditions if one.dtype is not None), None),
        grad=any(one.grad for one in conditions),
        threads=next((one.threads for one in conditions if one.threads is not None), None),
    )


def difference(own: Outcome, traced: Outcome) -> str:
    """Say where a module and its graph part; empty where they do not, or where neither runs."""
    if isinstance(own, str):
        return "" if isinstance(traced, str) else f"it does not run: {own}"
    if isinstance(traced, str):
        return f"its graph does not run: {traced}"
    return own.difference(traced)


def runs_under(
    fakes: Fakes, model: nn.Module, example: Sequence[Any], condition: Condition
) -> bool:
    """Tell whether a network runs under a condition."""
    (outcome,) = events_under(fakes, model, example, [condition])
    return isinstance(outcome, Events)


def same_numbers(
    model: nn.Module, graph: nn.Module, example: Sequence[Any], condition: Condition
) -> bool:
    """Tell whether a module and its graph give the same by other operators: torch has kernels.

    Random inputs of three magnitudes, to the rounding of their type.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = condition.inputs(example)
    for magnitude in (0.1, 1.0, 100.0):
        given = pytree.tree_map_only(
            Tensor, partial(_random, magnitude, generator, condition.dtype), inputs
        )
        try:
            with _threads(condition.threads):
                found = [
                    _values(
                        one, given, condition.earlier, grad=condition.grad, dtype=condition.dtype
                    )
                    for one in (model, graph)
                ]
        except Exception:  # noqa: BLE001 - whatever a forward raises: they are not the same
            return False
        if [one.shape for one in found[0]] != [one.shape for one in found[1]]:
            return False
        for first, second in zip(*found, strict=True):
            scale = float(second.abs().max()) if second.numel() else 0.0
            if not bool(((first - second).abs() <= 1e-4 * scale).all()):
                return False
    return True


def _random(
    magnitude: float, generator: torch.Generator, dtype: torch.dtype | None, value: Tensor
) -> Tensor:
    if not value.is_floating_point():
        return value
    drawn = torch.randn(value.shape, generator=generator) * magnitude
    return drawn.to(device=value.device, dtype=dtype or value.dtype)


def _values(
    model: nn.Module,
    inputs: Sequence[Any],
    earlier: int,
    *,
    grad: bool,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    held = {
        name: value.to(dtype) if dtype is not None and value.is_floating_point() else value.clone()
        for name, value in state.items()
    }
    with evaluating(model), attributes_kept(model), torch.set_grad_enabled(grad):
        given = arguments_of(model, inputs)
        for _ in range(earlier):
            run_with(model, held, given)
        return [value.detach().double() for value in tensors_in(run_with(model, held, given))]
