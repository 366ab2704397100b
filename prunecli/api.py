"""The Python API: the verbs on modules instead of files. It never prints and never exits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

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
    ExportOptions,
    FinetuneOptions,
    LoadOptions,
    PruneOptions,
)
from prunecli.options.declare import chosen, declared, refuse_idle, takes, values_of
from prunecli.options.prune import CHANNEL, ITERATIVE, ONE_SHOT
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.road import PruneResult, check_prune
from prunecli.pruning.sweep import sweep_network
from prunecli.pruning.timed import needs_table, prune_timed
from prunecli.sparse import SparseResult, check_sparsify, sparsify_network, weight_layers
from prunecli.sparse.granularity import parse_pattern
from prunecli.sparse.semi_structured import to_semi_structured
from prunecli.training import FinetuneResult
from prunecli.training import finetune as finetune_network
from prunecli.verbs.images import normalised
from prunecli.verbs.prune import road_of
from prunecli.verbs.prune_weights import weight_sparsity

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.data import DataSource
    from prunecli.evaluation.batches import Batches
    from prunecli.report import Evaluation, ModelAnalysis, Parity, SweepReport

Example = Tensor | Sequence[Any] | Mapping[str, Any]

_UNUSED: Mapping[str, tuple[str, ...]] = {
    ONE_SHOT: ("masks", "run_dir"),
    ITERATIVE: ("batches", "measured_on", "masks"),
}
"""Arguments of `prune` that a method has no use for, when it removes channels of a module."""
_UNUSED_BY_WEIGHTS = ("run_dir",)


@overload
def prune(
    model: nn.Module,
    example_inputs: Example,
    *,
    granularity: Literal["channel"] = "channel",
    **choices: Any,
) -> PruneResult: ...


@overload
def prune(
    model: nn.Module, example_inputs: Example, *, granularity: str, **choices: Any
) -> PruneResult | SparseResult: ...


@takes(PruneOptions)
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
    options: PruneOptions | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    data: str | Path | None = None,
    input: InputSpec | None = None,  # noqa: A002 - the word for it everywhere here
    teacher: nn.Module | None = None,
    masks: Mapping[str, Tensor] | None = None,
    run_dir: Path | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> PruneResult | SparseResult:
    """Return a smaller copy of any module that meets a budget, verified against its mask.

    `example_inputs` is one input, a sequence of them or a mapping by name, with the batch first;
    an input may itself hold tensors, as `[[image, image]]` does. `flops=0.5` keeps at most half;
    `params="1.5M"` is a ceiling; `sparsity=0.5` removes half of the channels; `latency="5ms"`, or a
    fraction, is a ceiling on the time of a forward in ONNX Runtime on this machine's CPU, predicted
    from measured operators (`example_inputs` is one batch of images then).

    Everything else that can be chosen is a keyword of its own, or stands in `options`, or both:
    keywords change `options`. One that nothing follows is refused. Images come from `batches`,
    which yields normalised images and labels, and `measured_on`, whose images repairs and
    candidates are scored on (without it: the same); or both from `data`, a folder or another data
    set, prepared as `input` says. `method="iterative"` trains on `data`, from `teacher` if there is
    one, with its log and state in `run_dir`. `granularity="weight"` and patterns such as `"2:4"`
    return a `SparseResult`, and keep the zeros of `masks`. `model` is left untouched.

    Raises `GraphError`, `GateError` (an infeasible budget), `InputError` and `ProofError`.
    """
    options = chosen(PruneOptions, options, choices, latency=latency)
    if teacher is not None:
        refuse_idle(declared(PruneOptions), {"teacher"}, values_of(options))
    budget = make_budget(
        flops=flops,
        params=params,
        activations=activations,
        bytes=bytes,
        sparsity=sparsity,
        latency=latency,
        needed=not options.dead and parse_pattern(options.granularity) is None,
    )
    road_of(options, budget)
    if input is not None and data is None:
        raise InputError(
            "input says how images of data are prepared, and no data is named",
            code="OPTION_WITHOUT_EFFECT",
            hint="add data='images/', or leave input out",
        )
    _refuse_unused(options, batches=batches, measured_on=measured_on, masks=masks, run_dir=run_dir)
    source = None if data is None else open_source(data)
    if source is not None:
        input = _needed(input)  # noqa: A001
        if options.method == ONE_SHOT:
            batches = batches or _images(source, "train", input, options, progress)
            measured_on = measured_on or _images(source, "held_out", input, options, progress)
    images, clock = Images(batches, measured_on), Clock(progress)
    if options.granularity != CHANNEL:
        return _sparsified(
            model,
            example_inputs,
            sparsity=weight_sparsity(budget if budget.limits else None),
            options=options,
            masks=masks,
            images=images,
            dry_run=dry_run,
            clock=clock,
        )
    if options.method == ITERATIVE:
        return _iteratively(
            model,
            example_inputs,
            source,
            input=input,
            budget=budget,
            options=options,
            teacher=teacher,
            run_dir=run_dir,
            dry_run=dry_run,
            clock=clock,
        )
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


def _refuse_unused(options: PruneOptions, **given: Any) -> None:
    """Raise `InputError` for an argument without use, and for a method that takes no modules."""
    if options.method not in _UNUSED:
        raise InputError(
            f"the method {options.method} cuts files, not modules",
            code="BAD_OPTION",
            hint=f"call prunecli.verbs.prune, or take a method of {', '.join(_UNUSED)}",
        )
    unused, way = _UNUSED[options.method], f"method={options.method!r}"
    if options.granularity != CHANNEL:
        unused, way = _UNUSED_BY_WEIGHTS, f"granularity={options.granularity!r}"
    for name in unused:
        if given[name] is not None:
            raise InputError(
                f"{name} has no effect with {way}",
                code="OPTION_WITHOUT_EFFECT",
                hint=f"leave {name} out",
            )


def _iteratively(
    model: nn.Module,
    example_inputs: Example,
    source: DataSource | None,
    *,
    input: InputSpec | None,  # noqa: A002
    budget: Budget,
    options: PruneOptions,
    teacher: nn.Module | None,
    run_dir: Path | None,
    dry_run: bool,
    clock: Clock,
) -> PruneResult:
    """Return what the method `iterative` makes of a module; it trains on `source`."""
    from prunecli.methods.iterative import check_iterative_prune, iterative_prune

    if source is None:
        raise InputError(
            f"the method {options.method} trains the model, and no images were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add data='images/' and input=InputSpec(...)",
        )
    check_iterative_prune(options)
    file, teacher_input = options.iterative.teacher, None
    if teacher is None and file is not None:
        taught = read(file, LoadOptions()).checkpoint
        teacher, teacher_input = instantiate(taught), taught.input
    return iterative_prune(
        read_network(model, _inputs(example_inputs), clock=clock),
        source,
        input=_needed(input),
        budget=budget,
        options=options,
        teacher=teacher,
        teacher_input=teacher_input,
        run_dir=run_dir,
        dry_run=dry_run,
        clock=clock,
    )


@takes(PruneOptions)
def sparsify(
    model: nn.Module,
    example_inputs: Example,
    *,
    sparsity: float | None = None,
    options: PruneOptions | None = None,
    masks: Mapping[str, Tensor] | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> SparseResult:
    """Return a copy of any module with single weights zeroed, verified to equal dense x mask.

    `sparsity=0.9` zeroes nine in ten weights of all convolutions and linear layers, the least
    salient ones; `granularity="2:4"` keeps 2 of every 4 along a layer's inputs, and takes no
    `sparsity`. `masks` are those that the model has already, `repair=("bn",)` estimates batch
    norm anew on `batches`. Keywords change `options`. `model` is left untouched. Raises what
    `prune` raises.
    """
    usual = {} if options is not None else {"granularity": "weight"}
    return _sparsified(
        model,
        example_inputs,
        sparsity=sparsity,
        options=chosen(PruneOptions, options, {**usual, **choices}),
        masks=masks,
        images=Images(batches, measured_on),
        dry_run=dry_run,
        clock=Clock(progress),
    )


def _sparsified(
    model: nn.Module,
    example_inputs: Example,
    *,
    sparsity: float | None,
    options: PruneOptions,
    masks: Mapping[str, Tensor] | None,
    images: Images,
    dry_run: bool,
    clock: Clock,
) -> SparseResult:
    """Check, trace, and zero weights."""
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
    signals: Sequence[str] = (),
    allocations: Sequence[str] = (),
    options: PruneOptions | None = None,
    progress: Progress = silent,
) -> SweepReport:
    """Return loss and accuracy over `budgets` (`flops=0.3:0.9:0.1`) for signals and allocations.

    Nothing is verified and no model is returned; random channels are always tried beside the
    `signals`. Signals and allocations are by default the one of `options`, which holds everything
    else that `prune` can choose. `batches` are for signals and repairs, `measured_on` for the
    scores, or else the same.
    """
    options = options or PruneOptions()
    return sweep_network(
        read_network(model, _inputs(example_inputs)),
        parse_sweep(budgets),
        signals=signals or (options.signal,),
        allocations=allocations or (options.allocation,),
        options=options,
        images=Images(batches, measured_on),
        architecture=type(model).__name__,
        progress=progress,
    )


@takes(AnalyzeOptions)
def analyze(
    model: nn.Module,
    example_inputs: Example,
    *,
    options: AnalyzeOptions | None = None,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
    **choices: Any,
) -> ModelAnalysis:
    """Return every channel group of a module, what is frozen and why, how far it can be pruned.

    `oracle` measures, over `batches`, what removing each channel alone does to the loss, and
    compares `signals` with that; `importance` measures every importance of the layers on them.
    Dead channels are looked for on `batches` (with `dead_threshold`: see `prune`), without any by
    the weights. Keywords change `options`.
    """
    return analyze_network(
        read_network(model, _inputs(example_inputs)),
        options=chosen(AnalyzeOptions, options, choices, model=True, data=None),
        architecture=type(model).__name__,
        batches=batches,
        progress=progress,
    )


@takes(FinetuneOptions)
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
    **choices: Any,
) -> FinetuneResult:
    """Return a trained copy of `model`, its best epoch chosen on images held out from training.

    What `masks` leave out (those of `sparsify`) stays zero. Keywords change `options`.
    """
    options = chosen(FinetuneOptions, options, choices, teacher=teacher is not None)
    grows = options.sparsity is not None
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


@takes(ExportOptions)
def export(
    model: nn.Module,
    path: str | Path,
    *,
    input: InputSpec,  # noqa: A002
    options: ExportOptions | None = None,
    classes: tuple[str, ...] | None = None,
    **choices: Any,
) -> Parity:
    """Write `model` in the format that the ending of `path` names (`.onnx`).

    Nothing is written unless the file computes what PyTorch computes. Keywords change `options`.
    Nothing is timed here, so the options of the benchmark are refused.
    """
    from prunecli.exporting import format_of, write_proven

    options = chosen(ExportOptions, options, choices, benchmark=False)
    target = Path(path)
    _, parity = write_proven(
        format_of(target),
        model,
        target,
        input=input,
        opset=options.opset,
        classes=classes,
        tolerance=options.tolerance,
        seed=options.seed,
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
        raise InputError("a dry run has no model to save", code="DRY_RUN")
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
            "a latency can only be measured of a model with one input, a batch of images",
            code="BAD_EXAMPLE",
            hint="give a tensor [n, channels, height, width] as example_inputs, or another budget",
        )
    channels, height, width = example.shape[1:]
    return InputSpec(channels, height, width, (0.0,) * channels, (1.0,) * channels)


def _needed(spec: InputSpec | None) -> InputSpec:
    """Return how images of a data set are prepared for a model."""
    if spec is None:
        raise InputError(
            "images were named, and not how they are prepared for the model",
            code="BAD_OPTION",
            hint="add input=InputSpec(channels, height, width, mean, std)",
        )
    return spec


def _images(
    source: DataSource,
    split: str,
    input: InputSpec,  # noqa: A002
    options: PruneOptions,
    progress: Progress,
) -> Callable[[], Batches]:
    """Return a function that yields the images of a split, which are read at the first call."""
    read = cache(
        partial(
            load_split,
            source,
            split,
            input=input,
            seed=options.seed,
            limit=options.limit,
            progress=progress,
        )
    )
    return lambda: normalised(read(), input)


def _inputs(example: Example) -> Sequence[Any] | Mapping[str, Any]:
    return [example] if isinstance(example, Tensor) else example
