"""The road of an iterative cut: rehearse, shrink while training, cut the dense network, prove.

The loop is that of Molchanov et al. 2017 (arXiv 1611.06440) and Theis et al. 2018 (arXiv
1801.05787): updates during which the criterion is accumulated, then a removal, costs taken anew.
Ours: the traced graph is what trains, re-emitted narrower at every removal; and the widths to end
at follow from the first scores and the allocation, as in a cut at once, so that they are aligned:
which channels go, and in which order, is decided at every removal.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.errors import GraphError
from prunecli.evaluation.images import evaluate
from prunecli.methods.iterative.method import IterativePruning
from prunecli.methods.iterative.planning import (
    check_iterative,
    planned_for,
    rehearsal_options,
    settings_of,
    training_options,
)
from prunecli.methods.iterative.stage import Setup
from prunecli.network.described import trace_warnings
from prunecli.network.traced import read_network
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.described import cut_report
from prunecli.pruning.proven_cut import Cut, proven
from prunecli.pruning.road import PruneResult, check_options, prune_network
from prunecli.report import AccuracyChange, IterativeReport
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import (
    interruptible,
    load_images,
    make_recipe,
    make_teacher,
    ready_folder,
    reproducible,
    trainable_copy,
)
from prunecli.training.placing import start_run
from prunecli.training.session import Place, Session

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.budget import Budget
    from prunecli.data import DataSource, ImageSet
    from prunecli.graph.tracing.trace import Example
    from prunecli.network.traced import Network
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.training.recipe import Recipe

SCORED = 1024
"""Held-out images that every removal is scored on."""


def iterative_prune(
    model: nn.Module,
    example: Example,
    source: DataSource,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    budget: Budget,
    options: PruneOptions,
    teacher: nn.Module | None = None,
    teacher_input: InputSpec | None = None,
    run_dir: Path | None = None,
    dry_run: bool = False,
    architecture: str = "",
    progress: Progress = silent,
) -> PruneResult:
    """Remove channels of a copy of `model` in turn with updates until it keeps `budget`.

    Every removal is a physical cut, proven on the weights of its time, and the result is proven on
    the trained ones: it equals the dense network that holds them, masked. `run_dir` holds the log
    and the state that `options.iterative.resume` goes on from. Raises what `prune_network` and
    `finetune` raise, and `GraphError` for a network that cannot be re-emitted.
    """
    check_options(options)
    check_iterative(options)
    clock = Clock(progress)
    student = trainable_copy(model).eval()
    network = read_network(student, example, clock=clock)
    _check_emits(network)
    with clock.stage("rehearse"):
        # What cannot be reached or proven is known before any training.
        first = prune_network(
            network,
            budget=budget,
            options=rehearsal_options(options),
            architecture=architecture or type(model).__name__,
        )
    with reproducible(), interruptible():
        recipe, held_out, warnings = _recipe(
            source,
            input=input,
            options=training_options(options),
            updates=options.iterative.updates,
            teacher=teacher,
            teacher_input=teacher_input or input,
            progress=progress,
        )
        setup = Setup(
            network=network,
            budget=budget,
            options=options,
            rehearsed=np.asarray([group.after for group in first.report.groups], np.int64),
            held={item.name: item.reason for item in first.frozen[len(network.coupling.frozen) :]},
        )
        planned = planned_for(setup, recipe, held_out)
        if dry_run:
            return _dry(first, options, planned, clock)
        settings = settings_of(options, budget, recipe, student, teacher)
        place = Place(ready_folder(run_dir), math.inf, settings)
        method = IterativePruning(setup)
        run = start_run(method.stage.module, recipe, method)
        session = Session(run, held_out=held_out, place=place)
        if options.iterative.resume and not session.restore():
            warnings.append(f"nothing to resume in {run_dir}: started from the beginning")
        with clock.stage("train"):
            session.train()
        warnings.extend(note for note in recipe.images.found() if note not in warnings)
        return _finished(
            session,
            method,
            planned,
            architecture=first.report.architecture,
            warnings=warnings,
            clock=clock,
        )


def _recipe(
    source: DataSource,
    *,
    input: InputSpec,  # noqa: A002
    options: FinetuneOptions,
    updates: int,
    teacher: nn.Module | None,
    teacher_input: InputSpec,
    progress: Progress,
) -> tuple[Recipe, ImageSet, list[str]]:
    """Return how the updates train and on what, the held-out images, and warnings."""
    accelerator = make_accelerator(options.amp)
    if not accelerator.is_main_process:
        progress = silent
    train, held_out, warnings = load_images(source, input, options, progress, scored=SCORED)
    recipe = make_recipe(
        source,
        train,
        input=input,
        options=options,
        teacher=make_teacher(teacher, teacher_input, accelerator),
        accelerator=accelerator,
        progress=progress,
        round_steps=updates,
    )
    return recipe, held_out, warnings


def _check_emits(network: Network) -> None:
    trace = network.trace
    if not trace.recorded and trace.folding is None:
        return
    why = trace.recorded or "its forward computes weights from others"
    raise GraphError(
        f"this network cannot shrink while it trains: {why}",
        code="ITERATIVE_NEEDS_GRAPH",
        where=type(network.model).__name__,
        hint="use --method one-shot, then prunecli finetune",
    )


def _dry(
    first: PruneResult, options: PruneOptions, planned: IterativeReport, clock: Clock
) -> PruneResult:
    note = "the widths are those that l1 would choose now; the real ones follow from the updates"
    report = dataclasses.replace(
        first.report,
        signal=options.signal,
        verified=None,
        seconds=clock.seconds,
        warnings=(*first.report.warnings, note),
        iterative=planned,
    )
    return PruneResult(None, first.plan, report, None)


def _finished(
    session: Session,
    method: IterativePruning,
    run: IterativeReport,
    *,
    architecture: str,
    warnings: list[str],
    clock: Clock,
) -> PruneResult:
    """Cut the dense module, which holds what was trained, by the plan of the whole way."""
    setup, before, chosen = method.setup, session.before, method.selection
    plan = session.finish()
    assert before is not None
    assert chosen is not None
    assert plan is not None
    network, options = setup.network, setup.options
    planned = Cut(plan, method.stage.keep, method.widths, chosen.whole)
    cut = proven(network, planned, options, clock)
    assert cut.model is not None
    # In full precision, whatever it was trained in.
    held_out, spec = session.held_out, session.recipe.input
    after = evaluate(cut.model, held_out, input=spec, device=session.run.device)
    report = cut_report(
        network,
        cut,
        options,
        cost=network.cost,
        seconds=clock.seconds,
        architecture=architecture,
        warnings=(*trace_warnings(network), *chosen.warnings, *warnings),
    )
    report = dataclasses.replace(
        report,
        iterative=dataclasses.replace(
            run,
            removals=method.removals,
            accuracy=AccuracyChange(before.accuracy, after.accuracy, before.split),
            loss=(before.loss, after.loss),
            images=before.count,
            seconds_per_update=method.seconds,
            log=session.log,
        ),
    )
    return PruneResult(cut.model.cpu().eval(), cut.plan, report, cut.program)
