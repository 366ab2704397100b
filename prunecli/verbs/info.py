"""`info` on a file: what a model is, by its headers. Nothing is built, changed or written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunecli.architectures.inputs import of_shapes
from prunecli.architectures.reference import GRAPH, ArchitectureRef, InputSpec
from prunecli.artefacts.history import history_of
from prunecli.artefacts.origin import dense_architecture
from prunecli.checkpoint.artefact import Checkpoint
from prunecli.checkpoint.headers import TensorHeader
from prunecli.checkpoint.outline import Outline, outline
from prunecli.checkpoint.recognise import recognise
from prunecli.checkpoint.selection import selection_of
from prunecli.checkpoint.sniff import is_onnx
from prunecli.checkpoint.state_dict import Unwrapped, no_state_dict, unwrap
from prunecli.cost.kinds import in_order
from prunecli.errors import InputError
from prunecli.exporting.onnx.outline import OnnxOutline, onnx_outline
from prunecli.files import file_sha256, is_model_folder, limited
from prunecli.options import InfoOptions, LoadOptions
from prunecli.progress import Progress, silent
from prunecli.report import ArchitectureInfo, InfoReport, InputInfo, WeightSet
from prunecli.verbs.weight_sets import further_sets, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.checkpoint.described import Described
    from prunecli.report import Cost, RunStep

_UNKNOWN = (
    "AMBIGUOUS_ARCHITECTURE",
    "AMBIGUOUS_HEAD",
    "AMBIGUOUS_WEIGHTS",
    "MISSING_EXTRA",
    "PART_OF_MODEL",
    "UNKNOWN_ARCHITECTURE",
)
_OTHER = "ARCHITECTURE_MISMATCH"
_SHOWN = 3


def info(
    file: Path,
    *,
    options: InfoOptions | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,  # noqa: ARG001 - every verb takes it
) -> InfoReport:
    """Return what the headers of a checkpoint, an artefact or an ONNX file tell.

    The FLOPs of a model are known where its file tells them or is ONNX; with `build` any other one
    is built to count them, which takes torch and a few seconds. Raises what reading the file would.
    """
    options, load = options or InfoOptions(), load or LoadOptions()
    if is_model_folder(file):
        return _of_folder(file, load)
    if file.is_dir():
        raise InputError(
            "this is a folder, not a model",
            code="NOT_A_FILE",
            where=str(file),
            hint=f"name the model file inside it; for a folder of images: prunecli analyze {file}",
        )
    with limited(memory=load.max_file_memory):
        if is_onnx(file):
            return _of_onnx(file, load)
        report = _of_checkpoint(file, load)
    return _built(report, load) if options.build else report


def _of_folder(file: Path, load: LoadOptions) -> InfoReport:
    """Return what a folder of the Hugging Face hub is; that takes torch and all of its tensors."""
    from prunecli.artefacts.provenance import read

    loaded = read(file, load)
    checkpoint, spec = loaded.checkpoint, loaded.checkpoint.input
    own = checkpoint.architecture
    headers = {
        name: TensorHeader(str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in checkpoint.tensors.items()
    }
    weights = weights_of("", "weights", headers)
    return InfoReport(
        file=file,
        kind="model folder",
        format="Hugging Face",
        file_bytes=sum(each.stat().st_size for each in file.iterdir() if each.is_file()),
        sha256=loaded.sha256,
        architecture=ArchitectureInfo(own.name, own.kwargs, assumed=loaded.warnings),
        class_count=_class_count(checkpoint.classes, own),
        classes=checkpoint.classes,
        input=_input(spec, load),
        cost=_known_costs(checkpoint, (), weights),
        weights=(weights,),
    )


def _of_checkpoint(file: Path, load: LoadOptions) -> InfoReport:
    found = outline(file, allow_pickle=load.allow_pickle)
    if found.checkpoint is not None:
        return _of_artefact(file, found, found.checkpoint, load)
    unwrapped = unwrap(found.value, weights=load.weights, where=str(file))
    if unwrapped is None:
        raise no_state_dict(file, found.value)
    return _of_weights(file, found, unwrapped, load)


def _of_artefact(
    file: Path, found: Outline, checkpoint: Checkpoint, load: LoadOptions
) -> InfoReport:
    dense = dense_architecture(checkpoint)
    own = checkpoint.architecture
    history = history_of(checkpoint)
    weights = weights_of("", "weights", checkpoint.tensors)
    return InfoReport(
        file=file,
        kind="artefact",
        format=found.kind,
        file_bytes=file.stat().st_size,
        sha256=found.sha256,
        architecture=ArchitectureInfo(
            dense.name,
            dense.kwargs,
            pruned=None if checkpoint.plan is None else checkpoint.plan.mode,
            assumed=(f"read as {dense}",) if dense.changes else (),
            loads=f"--arch {own.name}" if own.is_factory else "",
        ),
        class_count=_class_count(checkpoint.classes, dense),
        classes=checkpoint.classes,
        input=_input(checkpoint.input, load),
        cost=_known_costs(checkpoint, history, weights),
        weights=(weights,),
        sparsity=found.sparsity,
        claimed=_numbers(checkpoint.metadata.get("claimed_accuracy")),
        versions=_texts(checkpoint.metadata.get("versions")),
        history=history,
    )


def _of_weights(file: Path, found: Outline, unwrapped: Unwrapped, load: LoadOptions) -> InfoReport:
    told = _described(file, found, unwrapped, load)
    architecture, spec, notes = _recognised(file, found, unwrapped, load, told)
    taken = weights_of(unwrapped.place, "weights", unwrapped.tensors)
    sets = (taken, *further_sets(found.value, unwrapped.place))
    names = architecture.arguments.get("num_classes")
    whole = found.whole(unwrapped.place)
    return InfoReport(
        file=file,
        kind="state dict" if whole is None else "whole model",
        format=found.kind,
        file_bytes=file.stat().st_size,
        sha256=found.sha256,
        architecture=dataclasses.replace(
            architecture,
            assumed=(*notes, *_conversions(taken)),
            pickled=whole or "",
        ),
        class_count=names if isinstance(names, int) else None,
        classes=None if told is None else told.classes,
        input=None if spec is None else _input(spec, load),
        cost={"flops": None, "params": taken.parameters, "activations": None, "bytes": taken.bytes},
        weights=sets,
        claimed=dict(unwrapped.accuracy),
    )


def _described(
    file: Path, found: Outline, unwrapped: Unwrapped, load: LoadOptions
) -> Described | None:
    """Return what a model that was pickled as a whole says of itself beside its weights."""
    module = found.modules.get(unwrapped.place)
    if module is None or load.architecture is not None or "ultralytics" not in module.name:
        return None
    from prunecli.checkpoint.ultralytics_files import describe_ultralytics  # it needs torch

    return describe_ultralytics(module, file)


def _recognised(
    file: Path, found: Outline, unwrapped: Unwrapped, load: LoadOptions, told: Described | None
) -> tuple[ArchitectureInfo, InputSpec | None, tuple[str, ...]]:
    """Return which architecture the weights fit, its input, and what is assumed."""
    module = found.modules.get(unwrapped.place)
    named = load.architecture is not None
    try:
        known = recognise(
            unwrapped,
            where=str(file),
            sha256=found.sha256,
            architecture=load.architecture if told is None else told.architecture,
            arguments=load.architecture_args if told is None else told.arguments,
            selection=selection_of(load),
        )
        if module is not None and not named:
            from prunecli.checkpoint.module_layers import (
                check_layers,  # it builds the network, with torch
            )

            check_layers(module, known.architecture, file)
    except InputError as error:
        if error.code not in _UNKNOWN and (named or error.code != _OTHER):
            raise
        return ArchitectureInfo(None, problem=f"{error.message}; {error.hint}"), None, ()
    own = known.architecture
    published = (f"the published weights {known.published}",) if known.published else ()
    changed = (f"read as {own}",) if own.changes else ()
    spec = (told and told.input) or known.input
    notes = (*(told.notes if told else ()), *published, *changed, *known.notes)
    return ArchitectureInfo(own.name, own.kwargs), spec, notes


def _conversions(weights: WeightSet) -> tuple[str, ...]:
    kinds = sorted(kind for kind in weights.dtypes if "float" in kind and kind != "float32")
    return (f"{', '.join(kinds)} weights are converted to float32 when used",) if kinds else ()


def _input(spec: InputSpec, load: LoadOptions) -> InputInfo | None:
    """Return what a model takes, as the user says it where they say it."""
    if load.input_shapes:
        spec = of_shapes(load.input_shapes, spec)
    if not spec.is_images:
        return InputInfo(0, 0, 0, (), (), tuple(one.described for one in spec.arguments))
    height, width = load.input_size or (spec.height, spec.width)
    if not height:
        return None
    return InputInfo(spec.channels, height, width, load.mean or spec.mean, load.std or spec.std)


def _class_count(classes: tuple[str, ...] | None, architecture: ArchitectureRef) -> int | None:
    said = architecture.kwargs.get("num_classes")
    return len(classes) if classes else said if isinstance(said, int) else None


def _known_costs(
    checkpoint: Checkpoint, history: tuple[RunStep, ...], weights: WeightSet
) -> dict[str, float | None]:
    """Return the costs that an artefact tells: those after its last cut."""
    told: dict[str, float | None] = {"flops": None, "params": weights.parameters}
    last: Cost | None = next((s.cost.after for s in reversed(history) if s.cost is not None), None)
    if last is not None:
        told |= last
    elif checkpoint.plan is not None:
        told |= _numbers(checkpoint.plan.cost_after)
    told["bytes"] = weights.bytes
    return {kind: told[kind] for kind in in_order(told)}


def _built(report: InfoReport, load: LoadOptions) -> InfoReport:
    """Return a report with the FLOPs and parameters of the model itself."""
    from prunecli.architectures.examples import example_arguments
    from prunecli.cost.flops import count_flops
    from prunecli.verbs.opened import open_model

    opened = open_model(report.file, load)
    example = example_arguments(opened.checkpoint.input, opened.model, batch=1)
    counted = {
        "flops": count_flops(opened.model, example),
        "params": sum(value.numel() for value in opened.model.parameters()),
    }
    return dataclasses.replace(report, cost={**report.cost, **counted})


def _of_onnx(file: Path, load: LoadOptions) -> InfoReport:
    found = onnx_outline(file, size=load.input_size)
    facts = _provenance(found)
    dense = facts.get("dense")
    named = isinstance(dense, Mapping) and isinstance(dense.get("name"), str)
    name = str(dense["name"]) if named and isinstance(dense, Mapping) else None
    arguments = dense.get("kwargs") if isinstance(dense, Mapping) else None
    spec, classes, cost = found.metadata.input, found.metadata.classes, found.cost
    last = found.info.outputs[0].shape[-1:] if found.info.outputs else ()
    outputs = next((size for size in last if isinstance(size, int)), None)
    return InfoReport(
        file=file,
        kind="ONNX",
        format="ONNX",
        file_bytes=found.bytes,
        sha256=file_sha256(file),
        architecture=None
        if name is None or name == GRAPH
        else ArchitectureInfo(name, arguments if isinstance(arguments, Mapping) else {}),
        class_count=len(classes) if classes else outputs,
        classes=classes,
        input=None if spec is None else _input(spec, load),
        cost={"flops": cost.flops, "params": cost.params, "activations": None, "bytes": cost.bytes},
        weights=(
            WeightSet("", "weights", found.tensors, cost.params, cost.bytes, dict(cost.dtypes)),
        ),
        versions=_texts(facts.get("versions")),
        history=_steps(facts, spec),
        onnx=found.info,
        warnings=() if cost.flops is not None else (f"the FLOPs cannot be counted: {cost.why}",),
    )


def _provenance(found: OnnxOutline) -> Mapping[str, Any]:
    """Return what an exported file keeps of where it comes from; nothing where it is damaged."""
    try:
        facts = json.loads(found.metadata.provenance.get("provenance", "{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, Mapping) else {}


def _steps(facts: Mapping[str, Any], spec: InputSpec | None) -> tuple[RunStep, ...]:
    nothing = InputSpec(1, 1, 1, (0.0,), (1.0,))
    return history_of(Checkpoint(ArchitectureRef(GRAPH), {}, input=spec or nothing, metadata=facts))


def _numbers(value: Any) -> dict[str, float]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {str(k): float(v) for k, v in pairs if isinstance(v, int | float)}


def _texts(value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {str(key): text for key, text in pairs if isinstance(text, str)}
