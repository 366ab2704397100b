"""A module to a file and back: export, load and save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from prunecli.architectures.examples import example_arguments, named_for
from prunecli.architectures.reference import GRAPH, ArchitectureRef, InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read, state_of, versions
from prunecli.checkpoint import Checkpoint
from prunecli.checkpoint import save as save_checkpoint
from prunecli.errors import InputError
from prunecli.network.traced import read_network
from prunecli.options import (
    ExportOptions,
    LoadOptions,
)
from prunecli.options.declare import chosen, takes
from prunecli.progress import Progress, silent
from prunecli.pruning.road import PruneResult
from prunecli.sparse import SparseResult
from prunecli.sparse.semi_structured import to_semi_structured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prunecli.report import Conversion, Parity


@takes(ExportOptions)
def export(
    model: nn.Module | PruneResult | SparseResult,
    path: str | Path,
    *,
    input: InputSpec | None = None,  # noqa: A002
    options: ExportOptions | None = None,
    classes: tuple[str, ...] | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
    **choices: Any,
) -> Parity | Conversion:
    """Write `model` in the format that the ending of `path` names (`.onnx`).

    Nothing is written unless the file computes what PyTorch computes, output by output. `input` may
    be left out for a result of `prune`, which knows its example. Keywords change `options`. Nothing
    is timed here, so the options of the benchmark are refused.

    `int8=True` with images as `data`, or `fp16=True`, write another precision; what comes of that
    beside float is returned (`Conversion`).
    """
    from prunecli.exporting import converter_of, format_of
    from prunecli.verbs.exported import exported, request_of

    options = chosen(ExportOptions, options, choices, benchmark=False, data=data)
    target = Path(path)
    form = format_of(target)
    if options.precision:
        converter_of(form, options.precision)
    module = _module(model)
    request = request_of(
        options,
        None if data is None else str(data),
        model=module,
        input=_known(input, model, module),
        classes=classes,
        progress=progress,
    )
    with exported(form, module, target, request=request, options=options, classes=classes) as done:
        return done.conversion or done.parity


@takes(LoadOptions)
def load(
    path: str | Path,
    *,
    options: LoadOptions | None = None,
    semi_structured: bool = False,
    **choices: Any,
) -> nn.Module:
    """Return the network in a file as an `nn.Module` in evaluation mode, without pickle.

    Keywords change `options`; `architecture` is another word for `arch`.
    `semi_structured` puts it on the GPU in 16 bits and lets its 2:4 linear layers run sparse;
    raises `DeviceError` where there is no such GPU, `InputError` where there is no such layer.
    """
    options = chosen(LoadOptions, options, choices)
    model = instantiate(read(Path(path), options).checkpoint)
    return to_semi_structured(model).model if semi_structured else model


def save(
    model: nn.Module | PruneResult | SparseResult,
    path: str | Path,
    *,
    input: InputSpec | None = None,  # noqa: A002
    classes: Iterable[str] | None = None,
) -> None:
    """Write any traceable module so that `load` gives it back without its code and without pickle.

    The network is traced and stored as a graph of plain operators with its tensors (`.pt` or
    `.safetensors`). `input` says what it takes, and may be left out for a result of `prune`, which
    knows its example. The zeros of `sparsify` are not stored.
    """
    plan = model.plan if isinstance(model, PruneResult) else None
    masks = model.masks if isinstance(model, SparseResult) else {}
    module = _module(model)
    spec = _known(input, model, module)
    kinds = (value.dtype for value in module.parameters() if value.is_floating_point())
    example = example_arguments(spec, module, dtype=next(kinds, torch.float32))
    network = read_network(module, example)
    whole = np.ones(network.coupling.atom_count, np.bool_)
    rebuilt, program = network.graph_network(whole, any_size=True)
    tensors = state_of(rebuilt)
    save_checkpoint(
        Checkpoint(
            architecture=ArchitectureRef(GRAPH),
            tensors=tensors,
            masks={name: mask for name, mask in masks.items() if name in tensors},
            input=spec,
            plan=plan,
            graph=program,
            classes=None if classes is None else tuple(classes),
            metadata={"versions": versions()},
        ),
        Path(path),
    )


def _module(model: nn.Module | PruneResult | SparseResult) -> nn.Module:
    module = model.model if isinstance(model, PruneResult | SparseResult) else model
    if module is None:
        raise InputError("a dry run has no model to save", code="DRY_RUN")
    return module


def _known(
    spec: InputSpec | None, model: nn.Module | PruneResult | SparseResult, module: nn.Module
) -> InputSpec:
    """Return what a model takes: as the caller says, or else as its result knows."""
    if spec is None and isinstance(model, PruneResult | SparseResult):
        spec = model.input
    if spec is None:
        raise InputError(
            "nobody said what the model takes",
            code="NO_INPUT_SPEC",
            where=type(module).__name__,
            hint="add input=InputSpec(channels, height, width, mean, std) for images, or "
            "input=InputSpec.of(example_inputs, model) for anything else",
        )
    return named_for(spec, module)
