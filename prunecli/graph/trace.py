"""Trace a network once with `torch.export` and name what is in the graph."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunecli.errors import GraphError, InputError
from prunecli.modes import evaluating


@dataclass(frozen=True)
class Trace:
    """The traced network: an ATen graph whose placeholders are inputs, parameters or buffers.

    `tensors` maps a placeholder to the name of its parameter, buffer or constant; `constants`
    holds tensors that the forward made itself. `batch` is the symbol of the batch dimension, or
    None where the network fixes its batch size. `unused` names parameters that evaluation never
    reads, `buffers` the tensors that are no parameters. A tensor with several names has its first.
    """

    graph: fx.Graph
    tensors: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    output_structure: Any
    batch: Any
    unused: tuple[str, ...]
    example: tuple[Tensor, ...]
    buffers: frozenset[str] = frozenset()


def trace(model: nn.Module, example: Sequence[Tensor]) -> Trace:
    """Export `model` in evaluation mode for `example` inputs, with a free batch dimension.

    Raises `GraphError` when the network cannot be exported and `InputError` when its forward
    fails on the example. The mode of the model is restored.
    """
    example = tuple(_at_least_two(value) for value in example)
    with evaluating(model):
        program = _export(model, example)
    signature = program.graph_signature
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
    named = {name for name, _ in model.named_parameters()}
    return Trace(
        graph=program.graph_module.graph,
        tensors=tensors,
        constants=constants,
        inputs=tuple(name for name in signature.user_inputs if isinstance(name, str)),
        output_structure=_output_structure(program),
        batch=_batch_symbol(program, signature.user_inputs),
        unused=tuple(sorted(named - _read(program.graph_module.graph, tensors))),
        example=example,
        buffers=frozenset(name for name, _ in model.named_buffers()),
    )


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
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else None


def concrete(size: Any, batch: Any = None) -> int:
    """Return a size as an integer, for one input: the batch symbol counts as 1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if batch is not None:
        expression = expression.subs({batch: 1})
    return int(expression) if expression.is_number else int(size.node.hint)


def _at_least_two(value: Tensor) -> Tensor:
    # A batch of one would be specialised away, and with it the free batch dimension.
    if value.dim() and value.shape[0] == 1:
        return torch.cat([value, value])
    return value


def _export(model: nn.Module, example: tuple[Tensor, ...]) -> Any:
    free = tuple({0: torch.export.Dim.AUTO} if value.dim() else None for value in example)
    failures = []
    for shapes in (free, None):
        try:
            # Without gradients, a `no_grad` inside the forward leaves no mark in the graph.
            with quiet(), torch.no_grad():
                return torch.export.export(model, example, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            failures.append(error)
    _run_once(model, example)
    reason = str(failures[-1]).strip().splitlines() or [repr(failures[-1])]
    raise GraphError(
        f"torch.export cannot trace this network: {reason[0]}",
        code="NOT_TRACEABLE",
        where=type(model).__name__,
        hint="the forward may depend on the values of tensors; export or simplify that part first",
    ) from failures[-1]


def _run_once(model: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Tell a forward that fails by itself from one that only cannot be traced."""
    try:
        with torch.no_grad():
            model(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in example)
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
    positions = torch.utils._pytree.tree_unflatten(list(range(spec.num_leaves)), spec)  # noqa: SLF001
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
