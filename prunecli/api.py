"""The Python API: the verbs on modules instead of files. It never prints and never exits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.analysis import analyze_network
from prunecli.artefacts import example_input, read, state_of, versions
from prunecli.budget import make_budget
from prunecli.checkpoint import ArchitectureRef, Checkpoint, InputSpec
from prunecli.checkpoint import save as save_checkpoint
from prunecli.checkpoint.artefact import GRAPH
from prunecli.data import evaluation_split, load_split, open_source
from prunecli.errors import InputError
from prunecli.instantiate import instantiate
from prunecli.network import read_network
from prunecli.options import AnalyzeOptions, FinetuneOptions, LoadOptions, PruneOptions
from prunecli.progress import Progress, silent
from prunecli.pruning import PruneResult, prune_network
from prunecli.training import FinetuneResult
from prunecli.training import evaluate as evaluate_network
from prunecli.training import finetune as finetune_network

if TYPE_CHECKING:
    from prunecli.report import Evaluation, ModelAnalysis, Parity
    from prunecli.signals.score import Batches

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
    signal: str = PruneOptions.signal,
    allocation: str = PruneOptions.allocation,
    aggregate: str = PruneOptions.aggregate,
    align: int | None = None,
    min_width: int = 1,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    seed: int = 0,
    repair: Sequence[str] = (),
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
    normalised images and labels for signals that look at data. `repair=("bn", "bias", "lstsq")`
    names what is done right after the cut on the images of `batches`, in this order; the report
    scores each step on `measured_on`, or else on the same images. `dead` removes first what does
    nothing: channels that are constant on those images (without any: by their weights), and with
    `dead_threshold` those whose replacement by their mean changes the loss by no more; then no
    other budget is needed. `model` is left untouched.
    Raises `GraphError`, `GateError` (an infeasible budget), `InputError` and `ProofError`.
    """
    budget = make_budget(
        flops=flops,
        params=params,
        activations=activations,
        bytes=bytes,
        sparsity=sparsity,
        needed=not dead,
    )
    options = PruneOptions(
        signal=signal,
        allocation=allocation,
        aggregate=aggregate,
        align=align,
        min_width=min_width,
        exclude=tuple(exclude),
        only=tuple(only),
        seed=seed,
        repair=tuple(repair),
        dead=dead,
        dead_threshold=dead_threshold,
    )
    return prune_network(
        model,
        _inputs(example_inputs),
        budget=budget,
        options=options,
        batches=batches,
        measured_on=measured_on,
        dry_run=dry_run,
        progress=progress,
    )


def analyze(
    model: nn.Module,
    example_inputs: Example,
    *,
    signal: str = AnalyzeOptions.signal,
    signals: Sequence[str] = (),
    oracle: bool = AnalyzeOptions.oracle,
    dead_threshold: float | None = AnalyzeOptions.dead_threshold,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> ModelAnalysis:
    """Return every channel group of a module, what is frozen and why, and what it can be cut to.

    `oracle` measures, over `batches`, what removing each channel alone does to the loss, and
    compares `signals` with that. Dead channels are looked for on `batches` (with `dead_threshold`:
    see `prune`), without any by the weights.
    """
    network = read_network(model, _inputs(example_inputs))
    return analyze_network(
        network,
        options=AnalyzeOptions(
            signal=signal,
            signals=tuple(signals),
            oracle=oracle,
            sensitivity=False,
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
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> FinetuneResult:
    """Return a trained copy of `model`, its best epoch chosen on images held out from training."""
    return finetune_network(
        model,
        open_source(data),
        input=input,
        options=options,
        teacher=teacher,
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
    """Write `model` as ONNX, only if ONNX Runtime computes what torch computes."""
    from prunecli.exporting import to_proven_onnx

    _, parity = to_proven_onnx(
        model, Path(path), input=input, opset=opset, classes=classes, tolerance=tolerance
    )
    return parity


def load(path: str | Path, *, architecture: str | None = None) -> nn.Module:
    """Return the network in a file as an `nn.Module` in evaluation mode, without pickle."""
    return instantiate(read(Path(path), LoadOptions(architecture=architecture)).checkpoint)


def save(
    model: nn.Module | PruneResult,
    path: str | Path,
    *,
    input: InputSpec,  # noqa: A002
    classes: Iterable[str] | None = None,
) -> None:
    """Write any traceable module so that `load` gives it back without its code and without pickle.

    The network is traced and stored as a graph of plain operators with its tensors (`.pt` or
    `.safetensors`).
    """
    plan = model.plan if isinstance(model, PruneResult) else None
    module = model.model if isinstance(model, PruneResult) else model
    if module is None:
        raise InputError("a dry run has no network to save", code="DRY_RUN")
    kinds = (value.dtype for value in module.parameters() if value.is_floating_point())
    example = example_input(input).to(next(kinds, torch.float32))
    network = read_network(module, [example])
    whole = np.ones(network.coupling.atom_count, np.bool_)
    rebuilt, program = network.graph_network(whole)
    save_checkpoint(
        Checkpoint(
            architecture=ArchitectureRef(GRAPH),
            tensors=state_of(rebuilt),
            input=input,
            plan=plan,
            graph=program,
            classes=None if classes is None else tuple(classes),
            metadata={"versions": versions()},
        ),
        Path(path),
    )


def _inputs(example: Example) -> Sequence[Any] | Mapping[str, Any]:
    return [example] if isinstance(example, Tensor) else example
