"""What a module costs, holds and scores: analyze, sweep and evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.analysis.network import analyze_network
from prunecli.api.inputs import Example, as_inputs
from prunecli.budget import parse_sweep
from prunecli.data import evaluation_split, load_split, open_source
from prunecli.evaluation.batches import Images
from prunecli.evaluation.images import evaluate as evaluate_network
from prunecli.network.traced import read_network
from prunecli.options import (
    AnalyzeOptions,
    PruneOptions,
)
from prunecli.options.declare import chosen, takes
from prunecli.progress import Progress, silent
from prunecli.pruning.sweep import sweep_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.evaluation.batches import Batches
    from prunecli.report import Evaluation, ModelAnalysis, SweepReport


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
        read_network(model, as_inputs(example_inputs)),
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
        read_network(model, as_inputs(example_inputs)),
        options=chosen(AnalyzeOptions, options, choices, model=True, data=None),
        architecture=type(model).__name__,
        batches=batches,
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
