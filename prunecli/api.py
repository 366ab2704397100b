"""The Python API: the verbs on modules instead of files. It never prints and never exits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.analysis.network import analyze_network
from prunecli.architectures.reference import GRAPH, ArchitectureRef, InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import example_input, read, state_of, versions
from prunecli.budget import make_budget, parse_sweep
from prunecli.checkpoint import Checkpoint
from prunecli.checkpoint import save as save_checkpoint
from prunecli.data import evaluation_split, load_split, open_source
from prunecli.errors import InputError
from prunecli.evaluation.batches import Images
from prunecli.evaluation.images import evaluate as evaluate_network
from prunecli.network.traced import read_network
from prunecli.options import (
    AnalyzeOptions,
    FinetuneOptions,
    LatencyOptions,
    LoadOptions,
    PruneOptions,
)
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.road import PruneResult, check_prune
from prunecli.pruning.sweep import sweep_network
from prunecli.pruning.timed import needs_table, prune_timed
from prunecli.sparse import SparseResult, check_sparsify, sparsify_network, weight_layers
from prunecli.sparse.semi_structured import to_semi_structured
from prunecli.training import FinetuneResult
from prunecli.training import finetune as finetune_network

if TYPE_CHECKING:
    from prunecli.evaluation.batches import Batches
    from prunecli.report import Evaluation, ModelAnalysis, Parity, SweepReport

Example = Tensor | Sequence[Any] | Mapping[str, Any]


def prune(
    model: nn.Module,
    example_inputs: Example,
    *,
    flops: float | str | None = None,
    params: float | str | None = None,
    activations: float | str | None = None,
    bytes: float | str | None = None,  # noqa: A002 - the option is called --bytes
    sparsity: float | str | None = None,
    latency: float | str | None = None,
    latency_options: LatencyOptions | None = None,
    signal: str = PruneOptions.signal,
    candidates: Sequence[str] = (),
    allocation: str = PruneOptions.allocation,
    aggregate: str = PruneOptions.aggregate,
    align: int | None = None,
    min_width: int = 1,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    seed: int = 0,
    repair: Sequence[str] = (),
    importance: str | None = None,
    dead: bool = False,
    dead_threshold: float | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> PruneResult:
    """Return a narrower copy of any module that keeps a budget, proven equal to its mask.

    `example_inputs` is one input, a sequence of them or a mapping by name, with the batch first;
    an input may itself hold tensors, as `[[image, image]]` does. `flops=0.5` keeps at most half;
    `params="1.5M"` is a ceiling; `sparsity=0.5` removes half of the channels. `batches` yields
    normalised images and labels for signals that look at data. `signal="auto"` cuts by each of
    `candidates` and takes the one with the least loss on `measured_on`. `latency="5ms"`, or a
    share, is a ceiling on the time of a forward in ONNX Runtime on this machine's CPU, as
    `latency_options` has it, predicted from measured operators (that takes a minute, unless these
    name a table that exists); `example_inputs` is one batch of images then. `repair=("bn", "bias",
    "lstsq")` names what is done right after the cut on the images of `batches`, in this order; the
    report scores each step on `measured_on`, or else on the same images. `importance` is what
    allocations by importance look at. `dead` removes first what does nothing: channels that are
    constant on those images (without any: by their weights), and with `dead_threshold` those whose
    replacement by their mean changes the loss by no more; then no other budget is needed. `model`
    is left untouched. Raises `GraphError`, `GateError` (an infeasible budget), `InputError` and
    `ProofError`.
    """
    budget = make_budget(
        flops=flops,
        params=params,
        activations=activations,
        bytes=bytes,
        sparsity=sparsity,
        latency=latency,
        needed=not dead,
    )
    options = PruneOptions(
        signal=signal,
        candidates=tuple(candidates),
        allocation=allocation,
        aggregate=aggregate,
        align=align,
        min_width=min_width,
        exclude=tuple(exclude),
        only=tuple(only),
        seed=seed,
        repair=tuple(repair),
        importance=importance,
        latency=latency_options or LatencyOptions(),
        dead=dead,
        dead_threshold=dead_threshold,
    )
    images, clock = Images(batches, measured_on), Clock(progress)
    check_prune(budget, options, images)
    spec = _spec_of(example_inputs) if needs_table(budget, options) else None
    return prune_timed(
        read_network(model, _inputs(example_inputs), clock=clock),
        input=spec,
        budget=budget,
        options=options,
        images=images,
        dry_run=dry_run,
        clock=clock,
    )


def sparsify(
    model: nn.Module,
    example_inputs: Example,
    *,
    sparsity: float | None = None,
    granularity: str = "weight",
    signal: str = PruneOptions.signal,
    allocation: str = PruneOptions.allocation,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    seed: int = 0,
    repair: Sequence[str] = (),
    masks: Mapping[str, Tensor] | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> SparseResult:
    """Return a copy of any module with single weights zeroed, proven equal to dense x mask.

    `sparsity=0.9` zeroes nine in ten weights of all convolutions and linear layers, the least
    salient ones; `granularity="2:4"` keeps 2 of every 4 along a layer's inputs, and takes no
    `sparsity`. `masks` are those that the network has already, `repair=("bn",)` estimates batch
    norm anew on `batches`. `model` is left untouched. Raises what `prune` raises.
    """
    options = PruneOptions(
        signal=signal,
        allocation=allocation,
        exclude=tuple(exclude),
        only=tuple(only),
        seed=seed,
        repair=tuple(repair),
        granularity=granularity,
    )
    images, clock = Images(batches, measured_on), Clock(progress)
    check_sparsify(options, sparsity, images)
    return sparsify_network(
        read_network(model, _inputs(example_inputs), clock=clock),
        sparsity=sparsity,
        options=options,
        masks=masks,
        images=images,
        dry_run=dry_run,
        clock=clock,
    )


def sweep(
    model: nn.Module,
    example_inputs: Example,
    budgets: str,
    *,
    batches: Callable[[], Batches],
    measured_on: Callable[[], Batches] | None = None,
    signals: Sequence[str] = (PruneOptions.signal,),
    allocations: Sequence[str] = (PruneOptions.allocation,),
    options: PruneOptions | None = None,
    progress: Progress = silent,
) -> SweepReport:
    """Return loss and accuracy over `budgets` (`flops=0.3:0.9:0.1`) for signals and allocations.

    Nothing is proven and no network is returned; random channels are always tried beside the
    `signals`. `batches` are for signals and repairs, `measured_on` for the scores, or else the
    same; `options` holds everything else that `prune` can choose.
    """
    return sweep_network(
        read_network(model, _inputs(example_inputs)),
        parse_sweep(budgets),
        signals=signals,
        allocations=allocations,
        options=options or PruneOptions(),
        images=Images(batches, measured_on),
        architecture=type(model).__name__,
        progress=progress,
    )


def analyze(
    model: nn.Module,
    example_inputs: Example,
    *,
    signal: str = AnalyzeOptions.signal,
    signals: Sequence[str] = (),
    oracle: bool = AnalyzeOptions.oracle,
    importance: bool = AnalyzeOptions.importance,
    dead_threshold: float | None = AnalyzeOptions.dead_threshold,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> ModelAnalysis:
    """Return every channel group of a module, what is frozen and why, and what it can be cut to.

    `oracle` measures, over `batches`, what removing each channel alone does to the loss, and
    compares `signals` with that; `importance` measures every importance of the layers on them.
    Dead channels are looked for on `batches` (with `dead_threshold`: see `prune`), without any by
    the weights.
    """
    network = read_network(model, _inputs(example_inputs))
    return analyze_network(
        network,
        options=AnalyzeOptions(
            signal=signal,
            signals=tuple(signals),
            oracle=oracle,
            sensitivity=False,
            importance=importance,
            dead_threshold=dead_threshold,
        ),
        architecture=type(model).__name__,
        batches=batches,
        progress=progress,
    )


def finetune(
    model: nn.Module,
    data: str | Path,
    *,
    input: InputSpec,  # noqa: A002 - the word for it everywhere here
    options: FinetuneOptions | None = None,
    teacher: nn.Module | None = None,
    masks: Mapping[str, Tensor] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> FinetuneResult:
    """Return a trained copy of `model`, its best epoch chosen on images held out from training.

    What `masks` leave out (those of `sparsify`) stays zero.
    """
    grows = options is not None and options.sparsity is not None
    layers = weight_layers(read_network(model, [example_input(input)])) if grows else ()
    return finetune_network(
        model,
        open_source(data),
        input=input,
        options=options,
        teacher=teacher,
        masks=masks,
        layers=layers,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )


def evaluate(
    model: nn.Module,
    data: str | Path,
    *,
    input: InputSpec,  # noqa: A002
    split: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Return the scores of `model` on one split of a data set; by default the one to report on."""
    source = open_source(data)
    images = load_split(source, split or evaluation_split(source), input=input, progress=progress)
    return evaluate_network(model, images, input=input, progress=progress)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input: InputSpec,  # noqa: A002
    opset: int | None = None,
    classes: tuple[str, ...] | None = None,
    tolerance: float = 1e-4,
) -> Parity:
    """Write `model` in the format that the ending of `path` names (`.onnx`).

    Nothing is written unless the file computes what torch computes.
    """
    from prunecli.exporting import format_of, write_proven

    target = Path(path)
    _, parity = write_proven(
        format_of(target),
        model,
        target,
        input=input,
        opset=opset,
        classes=classes,
        tolerance=tolerance,
    )
    return parity


def load(
    path: str | Path, *, architecture: str | None = None, semi_structured: bool = False
) -> nn.Module:
    """Return the network in a file as an `nn.Module` in evaluation mode, without pickle.

    `semi_structured` puts it on the GPU in 16 bits and lets its 2:4 linear layers run sparse;
    raises `DeviceError` where there is no such GPU, `InputError` where there is no such layer.
    """
    model = instantiate(read(Path(path), LoadOptions(architecture=architecture)).checkpoint)
    return to_semi_structured(model).model if semi_structured else model


def save(
    model: nn.Module | PruneResult | SparseResult,
    path: str | Path,
    *,
    input: InputSpec,  # noqa: A002
    classes: Iterable[str] | None = None,
) -> None:
    """Write any traceable module so that `load` gives it back without its code and without pickle.

    The network is traced and stored as a graph of plain operators with its tensors (`.pt` or
    `.safetensors`). The zeros of `sparsify` are not stored.
    """
    plan = model.plan if isinstance(model, PruneResult) else None
    masks = model.masks if isinstance(model, SparseResult) else {}
    module = model.model if isinstance(model, PruneResult | SparseResult) else model
    if module is None:
        raise InputError("a dry run has no network to save", code="DRY_RUN")
    kinds = (value.dtype for value in module.parameters() if value.is_floating_point())
    example = example_input(input).to(next(kinds, torch.float32))
    network = read_network(module, [example])
    whole = np.ones(network.coupling.atom_count, np.bool_)
    rebuilt, program = network.graph_network(whole)
    tensors = state_of(rebuilt)
    save_checkpoint(
        Checkpoint(
            architecture=ArchitectureRef(GRAPH),
            tensors=tensors,
            masks={name: mask for name, mask in masks.items() if name in tensors},
            input=input,
            plan=plan,
            graph=program,
            classes=None if classes is None else tuple(classes),
            metadata={"versions": versions()},
        ),
        Path(path),
    )


def _spec_of(example: Example) -> InputSpec:
    """Return the input of a network that is to be timed as ONNX."""
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise InputError(
            "a latency can only be measured of a network with one input, a batch of images",
            code="BAD_EXAMPLE",
            hint="give a tensor [n, channels, height, width] as example_inputs, or another budget",
        )
    channels, height, width = example.shape[1:]
    return InputSpec(channels, height, width, (0.0,) * channels, (1.0,) * channels)


def _inputs(example: Example) -> Sequence[Any] | Mapping[str, Any]:
    return [example] if isinstance(example, Tensor) else example
