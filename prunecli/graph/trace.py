"""Trace a network once, with `torch.export` or by recording a forward, and name what is in it."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols
from torch.utils import _pytree as pytree

from prunecli.errors import GraphError, InputError
from prunecli.graph.record import Recording, attributes_kept, merged, record, tensors_in
from prunecli.modes import evaluating

if TYPE_CHECKING:
    from prunecli.graph.folding import Folding

_TORCH = str(Path(torch.__file__).parent)


Example = Sequence[Any] | Mapping[str, Any]
"""The arguments of one forward: by position, or by name."""


@dataclass(frozen=True)
class Trace:
    """The traced network: an ATen graph whose placeholders are inputs, parameters or buffers.

    `tensors` maps a placeholder to the name of its parameter, buffer or constant; `constants`
    holds tensors that the forward made itself. `batch` is the symbol of the batch dimension, or
    None where the network fixes its batch size. `unused` names parameters that evaluation never
    reads, `buffers` the tensors that are no parameters. A tensor with several names has its first.
    `integers` holds the stored integers by placeholder: tables of indices decide where channels go.
    `recorded` says why the graph is that of one forward, sizes and branches baked in (`record.py`);
    it is empty for a graph that stands for the network. `example` holds positional arguments, and
    `further` those that made the forward take other branches.
    `folding` says which tensors the graph reads that the network computes from others.
    """

    graph: fx.Graph
    tensors: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    output_structure: Any
    batch: Any
    unused: tuple[str, ...]
    example: tuple[Any, ...]
    buffers: frozenset[str] = frozenset()
    integers: Mapping[str, Tensor] = field(default_factory=dict)
    recorded: str = ""
    further: tuple[tuple[Any, ...], ...] = ()
    folding: Folding | None = None


def trace(model: nn.Module, example: Example) -> Trace:
    """Trace `model` in evaluation mode for the arguments `example`, by position or by name.

    The batch dimension is free where the network lets it. A network whose control flow follows the
    values of tensors cannot be exported; one real forward is recorded instead. Raises `InputError`
    when the forward fails on the example, and `GraphError` when it can neither be exported nor
    recorded. The mode of the model is restored.
    """
    given = _by_position(model, example)
    with evaluating(model), quiet():
        program, used, reason = _export(model, given)
        if program is None:
            traced = _recorded(model, given, reason)
        else:
            traced = _exported(model, program, used)
    _check_output(model, traced.graph)
    return traced


def _check_output(model: nn.Module, graph: fx.Graph) -> None:
    (output,) = (node for node in graph.nodes if node.op == "output")
    if not any(tensors_in(node.meta.get("val")) for node in output.all_input_nodes):
        raise InputError(
            "the network's forward returns no tensor",
            code="NO_OUTPUT",
            where=type(model).__name__,
            hint="return the tensors themselves, not numbers taken from them; a network that "
            "returns its losses in training has to return its predictions in evaluation",
        )


def _exported(model: nn.Module, program: Any, example: tuple[Any, ...]) -> Trace:
    signature = program.graph_signature
    # What nobody reads (the averaged weights of an attention) must not hold channels fast.
    program.graph_module.graph.eliminate_dead_code()
    first = _first_names(model)
    tensors = {
        placeholder: first.get(name, name)
        for placeholder, name in (
            *signature.inputs_to_parameters.items(),
            *signature.inputs_to_buffers.items(),
        )
    }
    constants = {
        name: program.constants[target]
        for name, target in signature.inputs_to_lifted_tensor_constants.items()
    }
    return Trace(
        graph=program.graph_module.graph,
        tensors=tensors,
        constants=constants,
        inputs=tuple(name for name in signature.user_inputs if isinstance(name, str)),
        output_structure=_output_structure(program),
        batch=_batch_symbol(program, signature.user_inputs),
        unused=_unused(model, program.graph_module.graph, tensors),
        example=example,
        buffers=frozenset(name for name, _ in model.named_buffers()),
        integers=_integers(model, tensors, constants),
    )


def _recorded(model: nn.Module, example: tuple[Any, ...], reason: str) -> Trace:
    try:
        recording = record(model, example)
    except Exception as error:
        _run_once(model, example)
        raise GraphError(
            f"torch.export cannot trace this network ({reason}), nor can a forward be recorded: "
            f"{_first_line(error)}",
            code="NOT_TRACEABLE",
            where=type(model).__name__,
            hint="export or simplify the part that fails first",
        ) from error
    recording, further = _other_branches(model, example, recording)
    return Trace(
        graph=recording.graph,
        tensors=recording.tensors,
        constants=recording.constants,
        inputs=recording.inputs,
        output_structure=None,
        batch=None,
        unused=_unused(model, recording.graph, recording.tensors),
        example=example,
        buffers=frozenset(name for name, _ in model.named_buffers()),
        integers=_integers(model, recording.tensors, recording.constants),
        recorded=reason,
        further=further,
    )


def _other_branches(
    model: nn.Module, example: tuple[Any, ...], recording: Recording
) -> tuple[Recording, tuple[tuple[Any, ...], ...]]:
    """Add forwards on other inputs while layers are left that no forward has reached."""
    generator = torch.Generator().manual_seed(0)
    further = []
    for change in _CHANGES:
        unused = _unused(model, recording.graph, recording.tensors)
        if not unused:
            break
        other = pytree.tree_map_only(Tensor, lambda value: change(value, generator), example)  # noqa: B023
        try:
            again = record(model, other)
        except Exception:  # noqa: BLE001, S112 - a made-up input need not suit the network
            continue
        if set(unused) - set(_unused(model, again.graph, again.tensors)):
            recording = merged(recording, again)
            further.append(other)
    return recording, tuple(further)


def _noise(value: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(value.shape, generator=generator).to(value)


_CHANGES: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    lambda value, _: -value if value.is_floating_point() else value,
    lambda value, generator: _noise(value, generator) if value.is_floating_point() else value,
    lambda value, generator: -_noise(value, generator) if value.is_floating_point() else value,
)
"""Inputs that make a forward take other branches, maybe."""


def _by_position(model: nn.Module, example: Example) -> tuple[Any, ...]:
    """Return arguments given by name in the order in which the forward takes them."""
    if not isinstance(example, Mapping):
        return tuple(example)
    try:
        bound = inspect.signature(model.forward).bind(**example)
    except TypeError as error:
        given = ", ".join(str(name) for name in example)
        raise _bad_names(model, f"{error}, given {given}") from error
    bound.apply_defaults()
    if set(bound.kwargs) & set(example):
        names = ", ".join(sorted(set(bound.kwargs) & set(example)))
        raise _bad_names(model, f"{names} can only be given by name")
    last = max((at for at, name in enumerate(bound.arguments) if name in example), default=-1)
    return bound.args[: last + 1]


def _bad_names(model: nn.Module, reason: str) -> InputError:
    return InputError(
        f"these example inputs do not fit the network's forward: {reason}",
        code="BAD_EXAMPLE",
        where=type(model).__name__,
        hint="give the inputs in the order in which the forward takes them",
    )


def _unused(model: nn.Module, graph: fx.Graph, tensors: Mapping[str, str]) -> tuple[str, ...]:
    named = {name for name, _ in model.named_parameters()}
    return tuple(sorted(named - _read(graph, tensors)))


def _integers(
    model: nn.Module, tensors: Mapping[str, str], constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    buffers = dict(model.named_buffers())
    named = {node: buffers[name] for node, name in tensors.items() if name in buffers}
    return {
        node: value
        for node, value in {**named, **constants}.items()
        if not (value.is_floating_point() or value.is_complex())
    }


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of every tensor by each of its names: tied weights have several."""
    named = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def source_line(node: fx.Node) -> str | None:
    """Return `file:line` of the user's code behind a node, where the trace recorded it."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


def concrete(size: Any, batch: Any = None) -> int:
    """Return a size as an integer, for one input: the batch symbol counts as 1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if batch is not None:
        expression = expression.subs({batch: 1})
    return int(expression) if expression.is_number else int(size.node.hint)


def _at_least_two(value: Any) -> Any:
    # A batch of one would be specialised away, and with it the free batch dimension.
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == 1:
        return torch.cat([value, value])
    return value


def _export(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], str]:
    """Return the exported program, the inputs that it was exported for, and why there is none.

    Tried in turn: a free batch, a batch of two, the example as it is. Arguments that hold tensors
    (a list of images) say nothing of their batch, and are taken as they are.
    """
    double = tuple(_at_least_two(value) for value in given)
    reason = ""
    for example, shapes in ((double, _free_batch), (double, None), (given, None)):
        free = shapes and pytree.tree_map(shapes, _by_name(model, example))
        try:
            # Without gradients, a `no_grad` inside the forward leaves no mark in the graph.
            with torch.no_grad(), attributes_kept(model), _few_values(), _no_idle_autocast():
                program = torch.export.export(model, example, dynamic_shapes=free, strict=False)
            if not _has_unknown_sizes(program.graph_module.graph):
                return program, example, ""
            reason = "its sizes depend on the values of tensors"
            break
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            reason = _first_line(error)
            if type(error).__name__ in _ASKS_FOR_VALUES:
                break
    return None, given, reason


def _by_name(model: nn.Module, example: tuple[Any, ...]) -> Any:
    """Return arguments by the names of the forward, `*arguments` as one of them: as export asks."""
    try:
        return dict(inspect.signature(model.forward).bind(*example).arguments)
    except (TypeError, ValueError):
        return example


def _has_unknown_sizes(graph: fx.Graph) -> bool:
    """Tell whether a size depends on the values of tensors, such as the number of boxes found."""
    return any(
        bool(free_unbacked_symbols(size))
        for node in graph.nodes
        for value in tensors_in(node.meta.get("val"))
        for size in value.shape
    )


class _ManyValuesError(Exception):
    """A forward asks for the values of many tensors."""


@contextlib.contextmanager
def _few_values(limit: int = 16) -> Iterator[None]:
    """Give an export up once it depends on more than `limit` values: it fails, but only later.

    A loop over 90 classes, each with a number of boxes of its own, keeps the exporter busy for ten
    seconds with sizes that it cannot know.
    """
    known = ShapeEnv.create_unbacked_symint
    count = 0

    def counted(self: ShapeEnv, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > limit:
            raise _ManyValuesError(f"its sizes depend on the values of more than {limit} tensors")
        return known(self, *args, **kwargs)

    ShapeEnv.create_unbacked_symint = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShapeEnv.create_unbacked_symint = known  # type: ignore[method-assign]


@contextlib.contextmanager
def _no_idle_autocast() -> Iterator[None]:
    """Leave out `autocast(enabled=False)`: it would hide what is inside from the graph."""
    enter: Any = torch.autocast.__enter__
    leave: Any = torch.autocast.__exit__

    def entered(self: Any) -> Any:
        return enter(self) if self._enabled else self

    def left(self: Any, *error: Any) -> Any:
        return leave(self, *error) if self._enabled else None

    torch.autocast.__enter__, torch.autocast.__exit__ = entered, left  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__, torch.autocast.__exit__ = enter, leave  # type: ignore[method-assign]


def _free_batch(value: Any) -> Any:
    return {0: torch.export.Dim.AUTO} if isinstance(value, Tensor) and value.dim() else None


_ASKS_FOR_VALUES = frozenset(
    {
        "DataDependentOutputException",
        "DynamicOutputShapeException",
        "GuardOnDataDependentSymNode",
        "PendingUnbackedSymbolNotFound",
        "_ManyValuesError",
    }
)
"""Failures of an export that no other batch size can cure."""


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "") or repr(error)
    return textwrap.shorten(line, 160, placeholder=" ...")


def _run_once(model: nn.Module, example: tuple[Any, ...]) -> None:
    """Tell a forward that fails by itself from one that only cannot be traced."""
    try:
        with torch.no_grad(), attributes_kept(model):
            model(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors_in(example))
        raise InputError(
            f"the network's own forward fails on inputs of shape {shapes}: {error}",
            code="FORWARD_FAILED",
            where=type(model).__name__,
            hint="check the example input's shape, dtype and device (--input-size)",
        ) from error


def _batch_symbol(program: Any, user_inputs: Sequence[str]) -> Any:
    for node in program.graph_module.graph.nodes:
        if node.op == "placeholder" and node.name in user_inputs:
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.dim():
                size = value.shape[0]
                return None if isinstance(size, int) else size.node.expr
    return None


def _output_structure(program: Any) -> Any:
    """Return the output's shape as nested lists and dicts of positions in the flat output."""
    spec = program.call_spec.out_spec
    positions = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    return _plain(positions)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _read(graph: fx.Graph, tensors: Mapping[str, str]) -> set[str]:
    return {tensors[node.name] for node in graph.nodes if node.name in tensors and node.users}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own chatter off the user's screen; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
