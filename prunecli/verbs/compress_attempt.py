"""One attempt of `compress`: prune to a budget, tighten it by what is measured, train, judge."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from prunecli.budget import Budget, Limit
from prunecli.compression.journal import Cut
from prunecli.compression.pace import Deadline, Pace
from prunecli.compression.wishes import exceeded
from prunecli.cost.sizes import tensor_bytes
from prunecli.data import evaluation_split, load_split
from prunecli.data.pixels import normalise
from prunecli.errors import InfeasibleBudgetError, InputError, ProofError
from prunecli.exporting import ExportedModel, int8_bytes
from prunecli.graph.tracing.running import evaluating
from prunecli.options import FinetuneOptions, LatencyOptions, PruneOptions
from prunecli.options.finetune import LABELS
from prunecli.report import ACCURACY, AGREEMENT, Attempt, ModelFigures
from prunecli.verbs.compress_judge import Judge, judge_of, open_judged
from prunecli.verbs.finetune import finetune
from prunecli.verbs.images import class_count
from prunecli.verbs.opened import Opened, open_model
from prunecli.verbs.prune import prune
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.compression.journal import Journal
    from prunecli.compression.wishes import Wishes
    from prunecli.data import ImageSet
    from prunecli.options import CompressOptions, LoadOptions
    from prunecli.progress import Progress
    from prunecli.report import ExportReport, PruneReport

TIGHTENED = 3
"""How often a cut is made anew because it was measured slower or larger than its budget says."""


ROUNDED = 1.001
"""A share of what can be reached at the least: exactly that might be missed by rounding."""

WIDENED, WIDER = 4, 1.5
"""How often, and by how much, a network is made wider that is too narrow to pass a signal."""


def unheard(_: str) -> None:
    """Tell nobody: the default in the library."""


@dataclass(frozen=True)
class Run:
    """What `compress` was asked for; `folder` is where everything that is tried is kept.

    Where the model was given a new classifier first, `pretrained` is what it was before, and
    `load_before` how that is read.
    """

    model: Path
    data: str | None
    wishes: Wishes
    options: CompressOptions
    load: LoadOptions | None
    folder: Path
    deadline: Deadline
    progress: Progress
    tell: Callable[[str], None] = unheard
    pretrained: Path | None = None
    load_before: LoadOptions | None = None

    @property
    def head_epochs(self) -> int:
        """Epochs in which a model with a new classifier is trained before it is pruned."""
        return max(self.options.epochs, 1)


@dataclass(frozen=True)
class Original:
    """The model to compress, by which every attempt is judged: where it is right, and how fast.

    `choose` [n] and `report` [m] are positions of `images`; what is chosen on the first is told on
    the second, which are the same where there are no others. `chosen` [n] and `reported` [m] are
    the original's own scores there, as `judge` has them. `pruned_on` is the data that is looked at
    for pruning: None for models that only training needs images of.
    """

    opened: Opened
    pace: Pace
    images: ImageSet | None = None
    choose: Tensor | None = None
    report: Tensor | None = None
    chosen: Tensor | None = None
    reported: Tensor | None = None
    judge: Judge | None = None
    pruned_on: str | None = None
    chosen_on: str = ""
    reported_on: str = ""
    warnings: tuple[str, ...] = ()


def open_original(run: Run) -> Original:
    """Read the original, and look at the images with it."""
    opened = open_model(run.model, run.load)
    if run.data is None:
        return Original(opened, Pace(1.0, 0), warnings=tuple(opened.loaded.warnings))
    source = open_judged(opened, run.data, run.options.loss)
    spec = opened.checkpoint.input
    split = evaluation_split(source, trained=True)
    images = load_split(source, split, input=spec, seed=run.options.seed, progress=run.progress)
    loss = run.options.loss
    judge = judge_of(opened, source, images, loss=loss, progress=run.progress)
    limit = run.options.limit
    train = source.splits.get("train", source.splits.get("all", ()))
    notes, pruned_on = _about(opened, judge, run)
    everywhere = torch.arange(len(images))
    if split == "test":
        generator = torch.Generator().manual_seed(run.options.seed)
        order = torch.randperm(len(images), generator=generator)
        half = len(order) // 2
        choose, report = (part.sort().values for part in (order[:half], order[half:]))
        told = (f"{half:,} of the test images", f"the other {len(order) - half:,} test images")
    else:
        choose = report = everywhere
        told = (f"{len(images):,} held-out images",) * 2
        note = (
            f"there are no test images: the {judge.measure} is told on held-out training images, "
            "which also choose, and which the original may have been trained on"
        )
        notes = (*notes, note)
    return Original(
        opened,
        Pace(_rate(opened.model, images, spec), min(len(train), limit or len(train))),
        images,
        choose,
        report,
        judge.parts(opened.model, choose),
        judge.parts(opened.model, report),
        judge,
        pruned_on,
        *told,
        (*opened.loaded.warnings, *images.found(), *notes),
    )


def _about(opened: Opened, judge: Judge, run: Run) -> tuple[tuple[str, ...], str | None]:
    """Say what a model is judged by, and return the data that its channels are chosen by.

    What chooses channels on images, and repairs, measures itself on a row of class scores.
    """
    if judge.measure == ACCURACY:
        return (), run.data
    said = f"models are judged by {judge.measure}, not by accuracy"
    if judge.measure == AGREEMENT:
        said = "no label is looked at: models are judged by their agreement with the original"
    try:
        class_count(opened.model, opened.checkpoint.input)
    except InputError:
        return (said, "channels are chosen by the weights: the model is no classifier"), None
    return (said,), run.data


def _rate(model: nn.Module, images: ImageSet, spec: InputSpec) -> float:
    """Return how many images a model looks at in a second, by a few."""
    at = torch.arange(min(len(images), RATED))
    with evaluating(model), torch.no_grad():
        for pixels, _ in images.gather([at]):
            start = time.perf_counter()
            model(normalise(pixels, spec))
            return len(pixels) / max(time.perf_counter() - start, 1e-9)
    return 1.0


RATED = 64
"""Images by which it is told how fast a model is."""


def prune_to(run: Run, original: Original, journal: Journal, strength: float) -> Journal:
    """Return a journal that has a model pruned to a strength, made now if there is none.

    It is pruned anew where it was measured to exceed its budget.
    """
    if journal.cut_at(strength) is not None:
        return journal
    target = run.folder / f"{strength:.3f}.pruned.pt"
    scale, dense = dict(journal.scale), dict(journal.dense)
    for _ in range(TIGHTENED):
        budget, cut = _nearest(run, original, run.wishes.budget(strength, dense, scale), target)
        dense = {kind: cut.cost.before[kind] for kind in cut.cost.before}
        row = None if cut.latency is None else cut.latency.measured
        costs = cut.cost.before, cut.cost.after
        before, after = (
            ModelFigures(cost.flops, cost.params, int(cost["bytes"] or 0)) for cost in costs
        )
        after = dataclasses.replace(after, bytes=_file_bytes(run, target))
        wanted = run.wishes.budget(strength, dense, {})
        beyond = exceeded(run.wishes, wanted, before, after, row)
        if not beyond:
            break
        scale |= {kind: scale.get(kind, 1.0) / factor for kind, factor in beyond.items()}
    made = Cut(
        strength=strength,
        budget=_words(budget),
        file=target.name,
        kept=dict(cut.cost.kept),
        speedup=None if row is None else row.speedup,
        warnings=cut.warnings,
    )
    others = tuple(one for one in journal.cuts if one.strength != strength)
    return dataclasses.replace(journal, cuts=(*others, made), scale=scale, dense=dense)


def _file_bytes(run: Run, path: Path) -> int:
    """Return the bytes that a size is wished for of: those of the file, or of the one in INT8."""
    if not run.options.int8:
        return path.stat().st_size
    opened = open_model(path, None)
    return int8_bytes(opened.model, opened.checkpoint.input)


def first_scale(run: Run, original: Original) -> dict[str, float]:
    """Return how many bytes of float tensors a byte of the file stands for, by the original."""
    if not run.options.int8:
        return {}
    model = original.opened.model
    held = tensor_bytes((*model.parameters(), *model.buffers()))
    return {"bytes": held / int8_bytes(model, original.opened.checkpoint.input)}


def train_and_judge(run: Run, original: Original, cut: Cut, epochs: int) -> Attempt:
    """Return what comes of a pruned model after some epochs, on the images that choose."""
    began = time.perf_counter()
    path, trained, warnings = run.folder / cut.file, 0, cut.warnings
    if run.data is not None and epochs:
        trained = epochs
        path = run.folder / f"{cut.strength:.3f}.{epochs}-epochs.pt"
        tuned = finetune(
            run.folder / cut.file,
            data=run.data,
            output=path,
            teacher=run.model,
            options=FinetuneOptions(
                epochs=epochs,
                limit=run.options.limit,
                seed=run.options.seed,
                loss=LABELS if original.judge is None else original.judge.loss,
            ),
            load=run.load,
            resume=goes_on(path.with_suffix(".run")),
            overwrite=True,
            command=f"prunecli finetune --epochs {epochs}",
            progress=run.progress,
        )
        warnings = merged(warnings, tuned.warnings)
    attempt = Attempt(
        strength=cut.strength,
        budget=cut.budget,
        file=path.name,
        kept=cut.kept,
        bytes=path.stat().st_size,
        epochs=trained,
        seconds=round(time.perf_counter() - began, 1),
        ok=True,
        speedup=cut.speedup,
        warnings=warnings,
    )
    return _judged(run, original, attempt, path)


def goes_on(folder: Path) -> bool:
    """Tell whether a training was stopped that left its state in a folder."""
    from prunecli.training import has_state

    return has_state(folder)


def _words(budget: Budget) -> str:
    """Return a budget as it is typed."""
    return " ".join(f"--{kind} {_amount(kind, value)}" for kind, value in budget.to_json().items())


UNITS = {"latency": (1.0, "ms"), "bytes": (1e3, "kB")}


def _amount(kind: str, value: Mapping[str, float]) -> str:
    if "fraction" in value:
        return f"{value['fraction']:.4f}"
    size, unit = UNITS.get(kind, (1e6, "M"))
    return f"{value['absolute'] / size:.6g}{unit}"


def _nearest(
    run: Run, original: Original, budget: Budget, target: Path
) -> tuple[Budget, PruneReport]:
    """Prune to a budget, or to the nearest that can be reached."""
    reached: dict[str, float] = {}
    for _ in range(len(budget.limits) + WIDENED):
        try:
            return budget, _pruned(run, original, budget, target)
        except InfeasibleBudgetError as error:
            reached[error.kind] = error.lowest * ROUNDED
        except ProofError as error:
            # The narrowest networks may pass no signal at all; nobody wishes for those.
            if error.code != "EMPTY_PROOF" or not reached:
                raise
            reached = {kind: share * WIDER for kind, share in reached.items()}
        budget = Budget(
            tuple(
                Limit(one.kind, fraction=min(1.0, reached[one.kind]))
                if one.kind in reached
                else one
                for one in budget.limits
            )
        )
    return budget, _pruned(run, original, budget, target)


def _pruned(run: Run, original: Original, budget: Budget, target: Path) -> PruneReport:
    options = run.options
    latency = LatencyOptions(
        table=run.folder / "latency.json", batch=options.batch, threads=options.threads
    )
    return prune(
        run.model,
        output=target,
        budget=budget,
        options=PruneOptions(
            seed=options.seed, latency=latency if run.wishes.timed else LatencyOptions()
        ),
        load=run.load,
        data=original.pruned_on,
        overwrite=True,
        command=f"prunecli prune {_words(budget)}",
        progress=run.progress,
    )


def _judged(run: Run, original: Original, attempt: Attempt, path: Path) -> Attempt:
    """Return an attempt with its score on the images that choose."""
    judge = original.judge
    if judge is None or original.choose is None or original.chosen is None:
        return attempt
    own = judge.parts(open_model(path, None).model, original.choose)
    drop, low, high = judge.drop(original.chosen, own)
    allowed = run.wishes.max_drop
    return dataclasses.replace(
        attempt,
        accuracy=float(own.double().mean()),
        drop=drop,
        drop_low=low,
        drop_high=high,
        excess=None if allowed is None else drop - allowed,
        ok=allowed is None or drop <= allowed,
    )


def scored(
    run: Run, original: Original, path: Path, exported: ExportReport
) -> tuple[ModelFigures, ModelFigures, tuple[float, float, float] | None]:
    """Return the original and the result in figures, and the drop on images that did not choose."""
    opened = open_model(path, None)
    costs = opened.checkpoint.plan
    assert costs is not None
    before_cost, after_cost = costs.cost_before, costs.cost_after
    before = ModelFigures(
        float(before_cost["flops"]), float(before_cost["params"]), int(before_cost["bytes"])
    )
    after = ModelFigures(
        float(after_cost["flops"]),
        float(after_cost["params"]),
        exported.bytes if run.options.int8 else path.stat().st_size,
    )
    judge = original.judge
    if judge is None or original.report is None or original.reported is None:
        return before, after, None
    model = ExportedModel(exported.output) if run.options.int8 else opened.model
    own, dense = judge.parts(model, original.report), original.reported
    return (
        dataclasses.replace(before, accuracy=float(dense.double().mean())),
        dataclasses.replace(after, accuracy=float(own.double().mean())),
        judge.drop(dense, own),
    )
