"""The road of every method that trains while it prunes: rehearse, train, cut the dense one, prove.

What is trained is the traced graph; at the end the dense module holds the trained weights, and is
cut and proven as in a cut at once.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from prunecli.data.pixels import normalise
from prunecli.errors import GraphError
from prunecli.evaluation.batches import Images
from prunecli.evaluation.images import evaluate
from prunecli.methods.setup import Setup
from prunecli.network.described import trace_warnings
from prunecli.options import TrainingOptions
from prunecli.preflight.pruning import check_latency, check_mixed
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.described import cut_report
from prunecli.pruning.proven_cut import Cut, proven
from prunecli.pruning.road import PruneResult, check_options, prune_network
from prunecli.pruning.timed import bound_where_needed, with_measured
from prunecli.pruning.training_mode import graph_training_warnings
from prunecli.report import AccuracyChange
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import (
    SAVE_SECONDS,
    interruptible,
    load_images,
    make_recipe,
    make_teacher,
    ready_folder,
    reproducible,
    tensors_digest,
    trainable_copy,
)
from prunecli.training.loop import epoch_batches
from prunecli.training.method import TrainingMethod
from prunecli.training.placing import start_run
from prunecli.training.session import Place, Session
from prunecli.training.trackers import tracking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.data import DataSource, ImageSet
    from prunecli.network.traced import Network
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.pruning.selection import Selection
    from prunecli.training.recipe import Recipe

LOOKED_AT = 1024
"""Training images that a method looks at before it trains."""

LOOKED_AT_ONCE = 64
"""How many of them at once."""


class CuttingMethod(TrainingMethod, Protocol):
    """A method of training that removes channels; at its end it says which ones are kept."""

    @property
    def module(self) -> nn.Module:
        """The network to train."""

    @property
    def network(self) -> Network:
        """The network that channels are cut from: the dense one, or that without some blocks."""

    @property
    def keep(self) -> NDArray[np.bool_]:
        """One boolean per atom of `network`."""

    @property
    def widths(self) -> Widths:
        """The widths that are left."""

    @property
    def selection(self) -> Selection | None:
        """What stays whole, and what had to give way; None before anything was decided."""


class Way(Protocol):
    """What tells one such method from another: how it trains, what it builds, what it reports."""

    scored: int | None
    """Held-out images that every round is scored on; None for all."""

    def check(self, options: PruneOptions) -> None:
        """Raise `InputError` for options that the method cannot follow, before any work."""

    def training(self, options: PruneOptions) -> FinetuneOptions:
        """Return how the weights are trained."""

    def round_steps(self, options: PruneOptions) -> int | None:
        """Return the steps of a round; None for an epoch."""

    def planned(self, setup: Setup, recipe: Recipe, held_out: ImageSet) -> Mapping[str, Any]:
        """Return what the run is going to do, as fields of the report."""

    def begin(self, setup: Setup, recipe: Recipe) -> Any:
        """Return the method, ready to train: a `CuttingMethod`, which `told` is given back."""

    def told(
        self, planned: Mapping[str, Any], method: Any, session: Session, change: Change
    ) -> Mapping[str, Any]:
        """Return what the run has done, as fields of the report."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Accuracy and loss on `images` held-out images: of the original model, and of the result."""

    accuracy: AccuracyChange
    loss: tuple[float, float]
    images: int


def train_and_prune(
    way: Way,
    network: Network,
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
    clock: Clock | None = None,
) -> PruneResult:
    """Train a copy of the model and remove channels from it until it keeps `budget`.

    The result is proven on the trained weights: it equals the dense network that holds them,
    masked. `run_dir` holds the log and the state that `options.training.resume` goes on from.
    Raises what `prune_network` and `finetune` raise, and `GraphError` for a network that cannot be
    re-emitted.
    """
    check_trained(way, options)
    check_mixed(options, budget)
    clock = clock or Clock(silent)
    dense, student = network.model, trainable_copy(network.model).eval()
    architecture = architecture or type(network.model).__name__
    network = dataclasses.replace(network, model=student)
    _check_emits(network)
    network, notes = bound_where_needed(network, input, budget, options, clock)
    with clock.stage("rehearse"):
        # What cannot be reached or proven is known before any training.
        first = prune_network(
            network,
            budget=budget,
            options=rehearsal_options(options),
            architecture=architecture,
        )
    with reproducible(), interruptible():
        recipe, held_out, warnings = _recipe(
            way,
            source,
            input=input,
            options=options,
            teacher=teacher,
            teacher_input=teacher_input or input,
            progress=clock.progress,
        )
        setup = Setup(
            network=network,
            budget=budget,
            options=options,
            rehearsed=np.asarray([group.after for group in first.report.groups], np.int64),
            held={item.name: item.reason for item in first.frozen[len(network.coupling.frozen) :]},
            images=Images(lambda: _some_images(recipe), None),
        )
        planned = way.planned(setup, recipe, held_out)
        if dry_run:
            return with_measured(
                _dry(network, first, options, planned, clock),
                dense,
                input,
                budget=budget,
                options=options,
                clock=clock,
                notes=notes,
            )
        settings = settings_of(options, budget, recipe, student, teacher)
        every = SAVE_SECONDS if way.round_steps(options) is None else math.inf
        place = Place(ready_folder(run_dir), every, settings)
        with clock.stage("begin"):
            method: CuttingMethod = way.begin(setup, recipe)
            run = start_run(method.module, recipe, method)
        session = Session(run, held_out=held_out, place=place)
        if options.training.resume and not session.restore():
            warnings.append(f"nothing to resume in {run_dir}: started from the beginning")
        with (
            tracking(recipe.accelerator, recipe.options.log, settings, run_dir) as tell,
            clock.stage("train"),
        ):
            session.tell_to(tell)
            session.train()
        warnings.extend(note for note in recipe.images.found() if note not in warnings)
        result = _finished(
            way,
            session,
            method,
            setup,
            planned,
            architecture=first.report.architecture,
            warnings=warnings,
            clock=clock,
        )
    return with_measured(
        result, dense, input, budget=budget, options=options, clock=clock, notes=notes
    )


def check_trained(way: Way, options: PruneOptions) -> None:
    """Raise `InputError` for what a run that trains cannot do, before any work."""
    check_options(options)
    check_latency(options.latency)
    way.check(options)


def rehearsal_options(options: PruneOptions) -> PruneOptions:
    """Return the options of a cut that is not kept: it needs no images."""
    return dataclasses.replace(options, signal="l1", training=TrainingOptions(), repair=())


def settings_of(
    options: PruneOptions,
    budget: Budget,
    recipe: Recipe,
    student: nn.Module,
    teacher: nn.Module | None,
) -> dict[str, Any]:
    """Return what must not change when a run is resumed."""
    accelerator = recipe.accelerator
    chosen = dataclasses.asdict(options)
    own = chosen.pop("training")
    for name in (
        "resume",
        "teacher",
        "patience",
        "log",
        "workers",
    ):  # a run that goes on may change these
        del own[name]
    del chosen["limit"]
    return {
        **_plain({**chosen, **own}),
        "budget": budget.to_json(),
        "classes": list(recipe.images.classes),
        "images": len(recipe.images),
        "network": tensors_digest(student),
        "teacher": tensors_digest(teacher),
        "device": accelerator.device.type,
        "precision": accelerator.mixed_precision,
    }


def _plain(value: Any) -> Any:
    """Return a value of an option as a saved state may hold it: no tuples, and paths as text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _recipe(
    way: Way,
    source: DataSource,
    *,
    input: InputSpec,  # noqa: A002
    options: PruneOptions,
    teacher: nn.Module | None,
    teacher_input: InputSpec,
    progress: Progress,
) -> tuple[Recipe, ImageSet, list[str]]:
    """Return how the updates train and on what, the held-out images, and warnings."""
    training = way.training(options)
    accelerator = make_accelerator(training.amp, training.device)
    if not accelerator.is_main_process:
        progress = silent
    train, held_out, warnings = load_images(source, input, training, progress, scored=way.scored)
    recipe = make_recipe(
        source,
        train,
        input=input,
        options=training,
        teacher=make_teacher(teacher, teacher_input, accelerator),
        accelerator=accelerator,
        progress=progress,
        round_steps=way.round_steps(options),
    )
    return recipe, held_out, warnings


def _some_images(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some training images, normalised, with their labels: the same in every process."""
    batches = epoch_batches(len(recipe.images), LOOKED_AT_ONCE, seed=recipe.options.seed, epoch=0)
    for images, labels in recipe.images.gather(batches[: LOOKED_AT // LOOKED_AT_ONCE]):
        yield normalise(images, recipe.input), labels


def _check_emits(network: Network) -> None:
    trace = network.trace
    if not trace.recorded and trace.folding is None:
        return
    why = trace.recorded or "its forward computes weights from others"
    raise GraphError(
        f"this model cannot shrink while it trains: {why}",
        code="ITERATIVE_NEEDS_GRAPH",
        where=type(network.model).__name__,
        hint="use --method one-shot, then prunecli finetune",
    )


def _dry(
    network: Network,
    first: PruneResult,
    options: PruneOptions,
    planned: Mapping[str, Any],
    clock: Clock,
) -> PruneResult:
    note = "the widths are those that l1 would choose now; the real ones follow from the updates"
    report = dataclasses.replace(
        first.report,
        signal=options.signal,
        verified=None,
        training=None,
        seconds=clock.seconds,
        warnings=(*first.report.warnings, *graph_training_warnings(network), note),
        **planned,
    )
    return PruneResult(None, first.plan, report, None)


def _finished(
    way: Way,
    session: Session,
    method: CuttingMethod,
    setup: Setup,
    planned: Mapping[str, Any],
    *,
    architecture: str,
    warnings: list[str],
    clock: Clock,
) -> PruneResult:
    """Cut the dense module, which holds what was trained, by the plan of the whole way."""
    before = session.before
    plan = session.finish()
    chosen = method.selection
    assert before is not None
    assert chosen is not None
    assert plan is not None
    network, options = method.network, setup.options
    cut = proven(network, Cut(plan, method.keep, method.widths, chosen.whole), options, clock)
    assert cut.model is not None
    # In full precision, whatever it was trained in.
    held_out, spec = session.held_out, session.recipe.input
    after = evaluate(
        cut.model,
        held_out,
        input=spec,
        device=session.run.device,
        processes=session.recipe.processes,
    )
    report = cut_report(
        network,
        cut,
        options,
        cost=network.cost,
        seconds=clock.seconds,
        architecture=architecture,
        warnings=(
            *trace_warnings(network),
            *graph_training_warnings(network),
            *chosen.warnings,
            *warnings,
        ),
    )
    change = Change(
        AccuracyChange(before.accuracy, after.accuracy, before.split),
        (before.loss, after.loss),
        before.count,
    )
    report = dataclasses.replace(report, **way.told(planned, method, session, change))
    return PruneResult(cut.model.cpu().eval(), cut.plan, report, cut.program)
