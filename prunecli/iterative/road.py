"""The road of an iterative cut: rehearse, shrink while training, cut the dense network, prove.

The loop is that of Molchanov et al. 2017 (arXiv 1611.06440) and Theis et al. 2018 (arXiv
1801.05787): updates during which the criterion is accumulated, then a removal, costs taken anew.
Ours: the traced graph is what trains, re-emitted narrower at every removal; and the widths to end
at follow from the first scores and the allocation, as in a cut at once, so that they are aligned:
which channels go, and in which order, is decided at every removal.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.errors import GraphError, InputError
from prunecli.iterative.criterion import criterion_of
from prunecli.iterative.removal import removals_left, widths_of
from prunecli.iterative.session import Session, score
from prunecli.iterative.slim import Course
from prunecli.network import Clock, read_network
from prunecli.options import FinetuneOptions, IterativeOptions, PruneOptions
from prunecli.progress import Progress, Step, silent
from prunecli.pruning import (
    PruneResult,
    check_options,
    cut_and_prove,
    cut_cost,
    frozen_reports,
    group_reports,
    in_graph_mode,
    plan_of,
    prune_network,
    trace_warnings,
)
from prunecli.report import AccuracyChange, IterativeReport, PruneReport
from prunecli.training.augment import normalise
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import check_options as check_training
from prunecli.training.finetune import (
    interruptible,
    load_images,
    make_recipe,
    make_teacher,
    ready_folder,
    reproducible,
    tensors_digest,
    trainable_copy,
)
from prunecli.training.loop import epoch_batches, teach
from prunecli.training.losses import class_logits
from prunecli.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.budget import Budget
    from prunecli.checkpoint import InputSpec
    from prunecli.data import DataSource
    from prunecli.graph.trace import Example
    from prunecli.network import Network
    from prunecli.training.loop import Recipe

SCORED = 1024
"""Held-out images that every removal is scored on."""

GENTLE = 0.5
"""Part of an optimiser's own learning rate, which is a peak, that is held throughout."""


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
    _check_iterative(options)
    training = _training_options(options)
    clock = Clock(progress)
    student = trainable_copy(model).eval()
    network = read_network(student, example, clock=clock)
    _check_emits(network)
    with clock.stage("rehearse"):
        # What cannot be reached or proven is known before any training.
        first = prune_network(
            student, example, budget=budget, options=_rehearsal(options), architecture=architecture
        )
    rehearsed = np.asarray([group.after for group in first.report.groups], np.int64)
    held = {item.name: item.reason for item in first.frozen[len(network.coupling.frozen) :]}
    with reproducible(), interruptible():
        accelerator = make_accelerator(training.amp)
        if accelerator.num_processes > 1:
            raise InputError(
                "an iterative cut runs in one process",
                code="ONE_PROCESS",
                hint="start it without torchrun, and fine-tune the result in parallel",
            )
        train, held_out, warnings = load_images(source, input, training, progress, scored=SCORED)
        recipe = make_recipe(
            source,
            train,
            input=input,
            options=training,
            teacher=make_teacher(teacher, teacher_input or input, accelerator),
            accelerator=accelerator,
            progress=progress,
        )
        course = Course(
            network=network,
            budget=budget,
            options=options,
            recipe=recipe,
            held_out=held_out,
            rehearsed=rehearsed,
            held=held,
            folder=None if dry_run else ready_folder(run_dir),
            settings=_settings(options, budget, recipe, student, teacher),
        )
        planned = _planned(course)
        if dry_run:
            return _dry(first, options, planned, clock)
        session = Session(course)
        if options.iterative.resume and not session.restore():
            warnings.append(f"nothing to resume in {run_dir}: started from the beginning")
        with clock.stage("train"):
            session.run()
        warnings.extend(note for note in train.found() if note not in warnings)
        return _finished(
            session, planned, warnings, architecture or type(model).__name__, clock=clock
        )


def _check_iterative(options: PruneOptions) -> None:
    if options.repair:
        raise InputError(
            "a repair refits a network to its dense outputs, and this one has been trained since",
            code="BAD_OPTION",
            where="--repair",
            hint="leave --repair away, or use --method one-shot",
        )
    per_removal, updates = options.iterative.remove_per_step, options.iterative.updates
    for name, value in (("remove-per-step", per_removal), ("updates", updates)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below 1", code="BAD_OPTION")


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


def _training_options(options: PruneOptions) -> FinetuneOptions:
    own = options.iterative
    rate = OPTIMIZERS.get(own.optimizer).learning_rate * GENTLE if own.lr is None else own.lr
    training = FinetuneOptions(
        lr=rate,
        optimizer=own.optimizer,
        schedule="constant",
        batch_size=own.batch_size,
        amp="no",
        limit=own.limit,
        seed=options.seed,
    )
    check_training(training)
    return training


def _rehearsal(options: PruneOptions) -> PruneOptions:
    """Return the options of a cut that is not kept: it needs no images."""
    return dataclasses.replace(options, signal="l1", iterative=IterativeOptions())


def _settings(
    options: PruneOptions,
    budget: Budget,
    recipe: Recipe,
    student: nn.Module,
    teacher: nn.Module | None,
) -> dict[str, Any]:
    """Return what must not change when a run is resumed."""
    chosen = dataclasses.asdict(options)
    own = chosen.pop("iterative")
    del own["resume"], own["teacher"], chosen["limit"]
    return {
        **{name: list(value) if isinstance(value, tuple) else value
           for name, value in {**chosen, **own}.items()},
        "budget": budget.to_json(),
        "classes": list(recipe.images.classes),
        "images": len(recipe.images),
        "network": tensors_digest(student),
        "teacher": tensors_digest(teacher),
        "device": recipe.accelerator.device.type,
    }  # fmt: skip


def _planned(course: Course) -> IterativeReport:
    """Return what the run will do, and report it with the time that one update takes now."""
    own, dense = course.options.iterative, course.network.cost.dense_widths
    removals = removals_left(
        0, channels=int((dense - course.rehearsed).sum()), per_removal=own.remove_per_step
    )
    updates = (removals + 1) * own.updates
    seconds = updates * _seconds_per_update(course)
    course.recipe.progress(
        Step(f"about {removals} removals, {updates} updates, at most {seconds:.0f} s", 0)
    )
    return IterativeReport(
        planned_removals=removals,
        planned_updates=updates,
        planned_seconds=round(seconds, 1),
        criterion=criterion_of(course.options.signal),
    )


def _seconds_per_update(course: Course) -> float:
    """Return the time of a forward and backward of the dense network, the second of two."""
    recipe, network = course.recipe, course.network
    graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    graph.to(recipe.accelerator.device).train()
    positions = epoch_batches(
        len(recipe.images), recipe.options.batch_size, seed=recipe.options.seed, epoch=0
    )[:1]
    spent = 0.0
    for images, labels in (*recipe.images.gather(positions), *recipe.images.gather(positions)):
        start = time.perf_counter()
        placed = images.to(recipe.accelerator.device)
        taught = teach(recipe.teacher, placed)
        logits, auxiliary = class_logits(graph(normalise(placed, recipe.input)))
        loss = recipe.objective(logits, auxiliary, labels.to(placed.device), taught)
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())
        spent = time.perf_counter() - start
    return spent


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
    planned: IterativeReport,
    warnings: list[str],
    architecture: str,
    *,
    clock: Clock,
) -> PruneResult:
    """Cut the dense module, which holds what was trained, by the plan of the whole way."""
    course, before, chosen = session.course, session.before, session.selection
    assert before is not None
    assert chosen is not None
    network, options, keep = course.network, course.options, session.slim.keep
    widths = widths_of(network.coupling.groups, keep)
    plan = plan_of(network, keep, widths, budget=course.budget, options=options)
    slim, program, verified = cut_and_prove(network, plan, keep, options, clock)
    plan = plan if program is None else in_graph_mode(plan)
    after = score(course, slim)
    report = PruneReport(
        output=None,
        plan=plan.to_json(),
        cost=cut_cost(network.cost, widths),
        verified=verified,
        groups=group_reports(network, widths),
        frozen=(*frozen_reports(network), *chosen.whole),
        architecture=architecture,
        mode=plan.mode,
        signal=options.signal,
        allocation=options.allocation,
        align="auto" if options.align is None else str(options.align),
        seconds=clock.seconds,
        warnings=(*trace_warnings(network), *chosen.warnings, *warnings),
        iterative=dataclasses.replace(
            planned,
            removals=session.removals,
            accuracy=AccuracyChange(before.accuracy, after.accuracy, before.split),
            loss=(before.loss, after.loss),
            images=before.count,
            seconds_per_update=session.seconds,
            log=session.log,
        ),
    )
    return PruneResult(slim.cpu().eval(), plan, report, program)
