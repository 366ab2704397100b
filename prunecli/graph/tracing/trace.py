"""Trace a network once, exported or recorded, and name what is in its graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunecli.errors import GraphError, InputError
from prunecli.graph.outputs import structure_of
from prunecli.graph.tracing.numbers import write_numbers
from prunecli.graph.tracing.record import Recording, attributes_kept, merged, record, tensors_in
from prunecli.graph.tracing.running import evaluating
from prunecli.graph.tracing.torch_export import export, export_fixed, first_line, quiet

Example = Sequence[Any] | Mapping[str, Any]
"""The arguments of one forward: by position, or by name."""


@dataclass(frozen=True)
class Folding:
    """The tensors that were folded, and how each follows from the stored ones.

    `tensors` holds the folded values by name, in the precision of the network; `sources` maps a
    placeholder of `graph` to the tensor that it stands for, `constants` to its value. `absorbed`
    names the tensors that nothing else reads: the folded network has them no more.
    """

    graph: fx.Graph
    sources: Mapping[str, str]
    constants: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    absorbed: frozenset[str]


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
    given = _apart(by_position(model, example))
    with evaluating(model), quiet():
        program, used, reason = export(model, given)
        if program is None:
            traced = _recorded(model, given, reason)
        else:
            traced = exported_trace(model, program, used)
    _check_output(model, traced.graph)
    return traced


def trace_fixed(model: nn.Module, example: tuple[Any, ...]) -> Trace:
    """Trace `model` in evaluation mode for arguments of exactly these sizes, the batch included.

    Raises what the export raises.
    """
    with evaluating(model), quiet():
        return exported_trace(model, export_fixed(model, example), example)


def _check_output(model: nn.Module, graph: fx.Graph) -> None:
    (output,) = (node for node in graph.nodes if node.op == "output")
    if not any(tensors_in(node.meta.get("val")) for node in output.all_input_nodes):
        raise InputError(
            "the model's forward returns no tensor",
            code="NO_OUTPUT",
            where=type(model).__name__,
            hint="return the tensors themselves, not numbers taken from them; a model that "
            "returns its losses in training has to return its predictions in evaluation",
        )


def exported_trace(model: nn.Module, program: Any, example: tuple[Any, ...]) -> Trace:
    """Return what an exported program of `model` says, for the arguments it was exported with."""
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
    lifted = signature.inputs_to_lifted_tensor_constants.items()
    constants = write_numbers(
        program.graph_module.graph, {name: program.constants[target] for name, target in lifted}
    )
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
            f"torch.export cannot trace this model ({reason}), nor can a forward be recorded: "
            f"{first_line(error)}",
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


def _apart(example: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy tensors that are given twice: to a trace they would be one input."""
    seen: set[int] = set()

    def own(value: Tensor) -> Tensor:
        known = id(value) in seen
        seen.add(id(value))
        return value.clone() if known else value

    return pytree.tree_map_only(Tensor, own, example)  # type: ignore[no-any-return]


def by_position(model: nn.Module, example: Example) -> tuple[Any, ...]:
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
        f"these example inputs do not fit the model's forward: {reason}",
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


def _run_once(model: nn.Module, example: tuple[Any, ...]) -> None:
    """Tell a forward that fails by itself from one that only cannot be traced."""
    try:
        with torch.no_grad(), attributes_kept(model):
            model(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors_in(example))
        raise InputError(
            f"the model's own forward fails on inputs of shape {shapes}: {error}",
            code="FORWARD_FAILED",
            where=type(model).__name__,
            hint="check the example input's shape, dtype and device (--input-size)",
        ) from error


def _batch_symbol(program: Any, user_inputs: Sequence[str]) -> Any:
    for node in program.graph_module.graph.nodes:
        if node.op == "placeholder" and node.name in user_inputs:
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.dim():
                size: Any = value.shape[0]
                free = not isinstance(size, int) and size.node.expr.is_symbol
                return size.node.expr if free else None
    return None


def _output_structure(program: Any) -> Any:
    """Return the form of the output, with positions in the flat output in it."""
    spec = program.call_spec.out_spec
    return structure_of(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))


def _read(graph: fx.Graph, tensors: Mapping[str, str]) -> set[str]:
    return {tensors[node.name] for node in graph.nodes if node.name in tensors and node.users}
