"""Models of any kind side by side: read, run on images, and written as ONNX to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prunecli.architectures.examples import called, example_arguments
from prunecli.architectures.inputs import InputSpec
from prunecli.checkpoint.sniff import is_onnx
from prunecli.cost.flops import count_flops
from prunecli.cost.sizes import tensor_bytes
from prunecli.data.pixels import normalise
from prunecli.errors import InputError, PruneError
from prunecli.evaluation.memory import memory_format_for
from prunecli.exporting.onnx.evaluate import classifier_output
from prunecli.exporting.onnx.evaluate import normalise as normalised_array
from prunecli.exporting.onnx.outline import OnnxOutline, onnx_outline
from prunecli.exporting.onnx.runtime import open_session, run
from prunecli.exporting.timing.engines import Contestant
from prunecli.exporting.timing.race import Racer
from prunecli.graph.outputs import ONLY, named_leaves
from prunecli.graph.tracing.running import evaluating
from prunecli.options import LoadOptions
from prunecli.verbs.opened import open_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

LEAST = 2


@dataclass(frozen=True)
class Entrant:
    """One of several models: a checkpoint, then `model` is its network, or an ONNX file.

    `takes` is its input; `spec` says how pixels become that: None where a file does not, or takes
    something else. `fixed_batch` is the only batch size that it takes, where there is only one.
    `precision` is what an ONNX file computes in.
    """

    file: Path
    name: str
    kind: str
    architecture: str
    takes: InputSpec
    spec: InputSpec | None
    classes: tuple[str, ...] | None
    cost: Mapping[str, float | None]
    file_bytes: int
    model: nn.Module | None = None
    fixed_batch: int | None = None
    warnings: tuple[str, ...] = ()
    precision: str = ""


def enter(
    files: Sequence[Path], load: LoadOptions | None, *, least: int = LEAST, counted: bool = True
) -> tuple[Entrant, ...]:
    """Read models; raises what reading each raises, and `InputError` for fewer than `least`.

    Models of the same file name go by their paths. Costs of networks are `counted` or left out.
    """
    if len(files) < least:
        raise InputError(
            "there is nothing to compare with: one model was given",
            code="ONE_MODEL",
            hint="name two models or more: the first is what the others are compared with",
        )
    load = load or LoadOptions()
    return named(tuple(_entrant(file, load, counted=counted) for file in files))


def named(entrants: tuple[Entrant, ...]) -> tuple[Entrant, ...]:
    """Return entrants under names of their own: that of the file, or its path, or a number."""
    for name in (lambda one, _: one.file.name, lambda one, _: str(one.file)):
        names = [name(one, at) for at, one in enumerate(entrants)]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{one.file} ({at})" for at, one in enumerate(entrants, start=1)]
    return tuple(replace(one, name=own) for one, own in zip(entrants, names, strict=True))


def _entrant(file: Path, load: LoadOptions, *, counted: bool) -> Entrant:
    if is_onnx(file):
        return _of_onnx(file, load)
    return _of_checkpoint(file, load, counted=counted)


def _of_checkpoint(file: Path, load: LoadOptions, *, counted: bool) -> Entrant:
    opened = open_model(file, load)
    spec, model = opened.checkpoint.input, opened.model
    cost = {
        "flops": count_flops(model, example_arguments(spec, model, batch=1)) if counted else None,
        "params": sum(value.numel() for value in model.parameters()),
        "bytes": tensor_bytes((*model.parameters(), *model.buffers())),
    }
    return Entrant(
        file=file,
        name="",
        kind="PyTorch",
        architecture=opened.architecture,
        takes=spec,
        spec=spec if spec.is_images and spec.mean else None,
        classes=opened.checkpoint.classes,
        cost=cost,
        file_bytes=file.stat().st_size,
        model=model,
        warnings=opened.loaded.warnings,
    )


def _of_onnx(file: Path, load: LoadOptions) -> Entrant:
    found = onnx_outline(file, size=load.input_size)
    spec = found.metadata.input
    images = spec is None or spec.is_images
    takes = InputSpec(*_shape(found, file, load.input_size)) if spec is None or images else spec
    mean, std = load.mean or (spec.mean if spec else None), load.std or (spec.std if spec else None)
    return Entrant(
        file=file,
        name="",
        kind="ONNX",
        architecture="",
        takes=takes,
        spec=replace(takes, mean=tuple(mean), std=tuple(std)) if images and mean and std else None,
        classes=found.metadata.classes,
        cost={"flops": found.cost.flops, "params": found.cost.params, "bytes": found.cost.bytes},
        file_bytes=found.bytes,
        fixed_batch=_fixed_batch(found),
        precision="" if found.info.precision is None else found.info.precision.statement,
    )


def _shape(found: OnnxOutline, file: Path, size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return the shape of an image that an ONNX file takes."""
    inputs = found.info.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise InputError(
            f"this ONNX file takes {len(inputs)} inputs, the first of shape "
            f"{list(inputs[0].shape) if inputs else []}, not one batch of images",
            code="NOT_IMAGES",
            where=str(file),
            hint="give models with one input [batch, channels, height, width]",
        )
    spec = found.metadata.input
    wanted = (None, *(size or (None, None))) if spec is None else spec.shape
    dims = [
        dim if isinstance(dim, int) else said
        for dim, said in zip(inputs[0].shape[1:], wanted, strict=True)
    ]
    if any(dim is None for dim in dims):
        raise InputError(
            "the size of the images that this model takes is not known",
            code="UNKNOWN_INPUT_SIZE",
            where=str(file),
            hint="say it: --input-size 224 or --input-size 224x320",
        )
    channels, height, width = (int(dim) for dim in dims if dim is not None)
    return channels, height, width


def _fixed_batch(found: OnnxOutline) -> int | None:
    first = found.info.inputs[0].shape[0]
    return first if isinstance(first, int) else None


Answers = Callable[["Sequence[NDArray[Any]]"], "dict[str, NDArray[Any]]"]
"""From the inputs of a model, such as normalised images `[n, C, H, W]`, to its outputs for them by
name: `logits`, or else the first one, comes first."""


def answers_of(entrant: Entrant, *, threads: int | None = None) -> Answers:
    """Return what runs a model on its inputs: PyTorch, or ONNX Runtime, on the CPU."""
    if entrant.model is not None:
        return _torch_answers(entrant.model, entrant.takes)
    session = open_session(entrant.file, threads=threads)
    fixed, main = entrant.fixed_batch, classifier_output(session)
    names = [one.name for one in session.get_inputs()]
    batched = [one.batched for one in entrant.takes.tensors]

    def once(inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return _first(run(session, dict(zip(names, inputs, strict=True))), main)

    def part(values: NDArray[Any], at: int, size: int) -> NDArray[Any]:
        rows = values[at : at + size]
        return np.concatenate([rows, np.zeros_like(values[:1]).repeat(size - len(rows), 0)])

    def answers(inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if fixed is None:
            return once(inputs)
        count = next(len(values) for values, many in zip(inputs, batched, strict=True) if many)
        outputs = [
            once([part(values, at, fixed) if many else values
                  for values, many in zip(inputs, batched, strict=True)])
            for at in range(0, count, fixed)
        ]  # fmt: skip
        return {
            name: np.concatenate([each[name] for each in outputs])[:count]
            for name, value in outputs[0].items()
            if value.ndim and len(value) == fixed
        }

    return answers


def _first(outputs: dict[str, NDArray[Any]], main: str) -> dict[str, NDArray[Any]]:
    return {main: outputs[main], **outputs}


def _torch_answers(model: nn.Module, takes: InputSpec) -> Answers:
    layout = memory_format_for(model, takes) if takes.is_images else torch.contiguous_format

    def answers(inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = [torch.from_numpy(values) for values in inputs]
        if takes.is_images:
            tensors = [value.contiguous(memory_format=layout) for value in tensors]
        with evaluating(model), torch.no_grad():
            leaves = named_leaves(called(model, takes, tensors))
        found = {
            name: np.asarray(leaf.float().numpy())
            for name, leaf in leaves.items()
            if isinstance(leaf, Tensor)
        }
        return _first(found, ONLY if ONLY in found else next(iter(found)))

    return answers


def prepared(entrant: Entrant, pixels: Tensor) -> NDArray[np.float32]:
    """Return uint8 images as a model takes them, computed as `evaluate` does."""
    assert entrant.spec is not None
    if entrant.model is None:
        return normalised_array(pixels.numpy(), entrant.spec)
    plain = normalise(pixels, entrant.spec, memory_format=torch.contiguous_format)
    return np.asarray(plain.numpy(), np.float32)


def racers(
    entrants: Iterable[Entrant],
    folder: Path,
    missing: dict[str, str],
    *,
    batches: Sequence[int],
) -> tuple[Racer, ...]:
    """Return what is timed: every model as ONNX, so that models are compared and not engines.

    Checkpoints are written to `folder` for that. One that cannot be, or that does not take all
    `batches`, is left out and noted in `missing`, with the reason.
    """
    from prunecli.exporting import to_onnx

    found = []
    for at, one in enumerate(entrants):
        path = one.file
        if one.fixed_batch is not None and set(batches) != {one.fixed_batch}:
            missing[one.name] = f"not timed: it takes batches of {one.fixed_batch} alone"
            continue
        if one.model is not None:
            path = folder / f"{at}.onnx"
            try:
                to_onnx(one.model, path, input=one.takes)
            except PruneError as error:
                missing[one.name] = f"not timed: {error.message}"
                continue
        found.append(Racer(one.name, Contestant(path, one.model), one.takes))
    return tuple(found)
