"""From a checkpoint to a module that runs, without pickle and without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from prunecli.architectures.reference import GRAPH
from prunecli.architectures.registry import build_dense
from prunecli.cutting.surgery import cut_module
from prunecli.errors import InputError, PruneError, first_line, is_out_of_memory
from prunecli.files import no_memory
from prunecli.graph.emitting.program import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from prunecli.checkpoint import Checkpoint


def instantiate(checkpoint: Checkpoint) -> nn.Module:
    """Return the checkpoint's network on the CPU, in evaluation mode.

    A network cut in module mode is the architecture's own class, narrowed by the plan; one cut in
    graph mode is built from the graph in the file. Raises `InputError` when weights, plan and
    architecture do not belong together.
    """
    try:
        return _instantiated(checkpoint)
    except PruneError:
        raise
    except Exception as error:  # a plan or a graph of a damaged file may fail anywhere
        if is_out_of_memory(error):
            raise no_memory() from error
        raise _misfit(checkpoint, first_line(error)) from error


def _instantiated(checkpoint: Checkpoint) -> nn.Module:
    if checkpoint.architecture.name == GRAPH:
        if checkpoint.graph is None:
            raise InputError("this artefact names a graph and holds none", code="BAD_PROGRAM")
        return build(checkpoint.graph, checkpoint.tensors)
    model = _module(checkpoint, device="meta")
    stored = [*model.parameters(), *model.buffers(), *_attributes(model)]
    if any(tensor.is_meta for tensor in stored):
        # Something that the state dict does not hold (a non-persistent buffer, a tensor that is an
        # ordinary attribute) needs real values.
        model = _module(checkpoint, device="cpu")
    return model.eval()


def _module(checkpoint: Checkpoint, *, device: str) -> nn.Module:
    model = build_dense(checkpoint.architecture, device=device)
    plan = checkpoint.plan
    if plan is not None:
        model = cut_module(model, plan.slices, attributes=plan.attributes)
    try:
        tied = _tied(model)
        model.load_state_dict(dict(checkpoint.tensors), assign=True)
        for name, first in tied.items():
            holder, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(holder), leaf, model.get_parameter(first))
    except RuntimeError as error:
        raise _misfit(checkpoint, str(error).splitlines()[-1].strip()) from error
    return model


def _attributes(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that are neither parameters nor buffers, but ordinary attributes."""
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _misfit(checkpoint: Checkpoint, reason: str) -> InputError:
    return InputError(
        f"the weights do not fit {checkpoint.architecture}: {reason}",
        code="WEIGHTS_MISMATCH",
        hint="the file is damaged, or the architecture's code has changed since it was written",
    )


def _tied(model: nn.Module) -> dict[str, str]:
    """Return the later names of every parameter that has several, with its first name."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            names[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
    return names
