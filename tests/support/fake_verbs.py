"""Verbs that compute nothing, to test the command line apart from the library."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli import report
from prunecli.progress import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

READ = ("m.pt", "t.pt", "d.pt", "dense.pt", "nets/m.th", "nets/m.pruned.pt")
"""Models that are asked for: that they are there is looked at before a verb is called."""

COST = report.Cost(flops=41e6, params=272e3, activations=188e3, bytes=1.09e6, channels=688)
HALF = report.Cost(flops=20.3e6, params=151e3, activations=121e3, bytes=610e3, channels=401)
EVALUATION = report.Evaluation(
    accuracy=0.9,
    top5=0.99,
    loss=0.31,
    count=360,
    per_class={"zero": 0.95, "one": 0.85},
    split="test",
)


def latency_report(*, met: bool) -> report.LatencyReport:
    row = report.BenchmarkRow(
        "cpu", "CPUExecutionProvider", 1, 2, 10.0, 7.8, 1.28, 1.26, 1.3, None, {}, {}, 50
    )
    return report.LatencyReport(
        1, 2, 9.5, 6.6, 0.695, None, row, 0.78, (0.77, 0.79), -0.109, 0.7, met
    )


DEAD = report.DeadReport(
    (
        report.DeadGroup(
            "features.denseblock3.denselayer24.conv1",
            1024,
            tuple(range(0, 900, 3)),
            (1, 2),
            (4,),
            {"0": "it carries the constants of others"},
            0.123,
        ),
    ),
    4096,
    302,
    {"a norm runs over its channels": 768},
    images=1024,
    threshold=0.001,
    borders={"conv2d_117": 0.25},
    scores=report.DeadScores(0.612345, 0.612355, 0.912, 0.911, 1024, "held_out"),
)


def prune_report(
    output: Path | None,
    *,
    warnings: tuple[str, ...] = (),
    latency: report.LatencyReport | None = None,
) -> report.PruneReport:
    return report.PruneReport(
        output=output,
        plan={"schema": 1, "keep": {"layer1.0.conv1": "0-3,7"}},
        cost=report.CutCost(COST, HALF, {"flops": 0.495, "params": 0.555}),
        verified=None if output is None else report.Verified("masked == cut", 3e-16),
        groups=tuple(
            report.GroupReport(f"layer{stage}.{block}.conv1", 64, 32, 0.03, 0.02)
            for stage in range(1, 5)
            for block in range(7)
        ),
        frozen=(report.FrozenReport("linear", "the classifier's outputs stay", "linear", 0.0),),
        architecture="cifar_resnet20",
        mode="graph",
        signal="l2",
        allocation="greedy",
        align="8",
        seconds={"trace": 0.4, "cut": 0.1},
        warnings=warnings,
        latency=latency,
        dead=DEAD,
    )


def removal(at: int) -> report.RemovalReport:
    return report.RemovalReport(
        removal=at,
        updates=20 * at,
        channels=688 - 9 * at,
        flops=1 - at / 60,
        params=1 - at / 70,
        train_loss=0.4,
        loss=0.5,
        accuracy=0.9,
        seconds_per_update=0.31 - at / 200,
        max_rel_error=3e-16,
    )


def iterative_report(*, dry_run: bool) -> report.IterativeReport:
    planned = report.IterativeReport(30, 620, 190.0, "accumulated during the updates")
    if dry_run:
        return planned
    return dataclasses.replace(
        planned,
        removals=tuple(removal(at) for at in range(1, 31)),
        accuracy=report.AccuracyChange(0.92, 0.9, "held_out"),
        loss=(0.3, 0.5),
        images=1024,
        seconds_per_update=(0.31, 0.16),
    )


EPOCHS, SEARCH_EPOCHS, PER_EPOCH = 12, 4.5, 10
"""Those of `learning_report`, and the points of an epoch of its search."""


def course_point(step: int, groups: tuple[str, ...]) -> report.CoursePoint:
    """Return a point of a course whose search ends within the fifth epoch, at half of the cost."""
    epoch = step / PER_EPOCH
    done = min(epoch / SEARCH_EPOCHS, 1.0)
    scored = {} if step % PER_EPOCH else {"accuracy": 0.9 - 0.4 * done + epoch / 40}
    rest = {"train_loss": 0.4, "loss": 0.5, "learning_rate": 0.1, "images_per_second": 900.0}
    return report.CoursePoint(
        updates=20 * step,
        epoch=epoch,
        phase="search" if epoch <= SEARCH_EPOCHS else "train",
        budget=1 - 0.5 * done,
        expected=1 - 0.48 * done,
        cost=1 - 0.51 * done,
        alive=int(688 * (1 - done / 2)),
        flips=0 if done == 1 else 7,
        widths={name: 64 - round(32 * done) - at % 3 for at, name in enumerate(groups)},
        **scored,
        **(rest if scored else {}),
    )


def learning_report(
    *, dry_run: bool = False, groups: tuple[str, ...] = ("layer1.0.conv1", "layer2.0.conv1")
) -> report.LearningReport:
    planned = report.LearningReport(
        "exact-gates", EPOCHS, SEARCH_EPOCHS, 688, {"stem": "it has a single channel"}
    )
    if dry_run:
        return planned
    steps = [*range(1, int(SEARCH_EPOCHS * PER_EPOCH) + 1), *range(50, 121, PER_EPOCH)]
    return dataclasses.replace(
        planned,
        kept=0.49,
        accuracy=report.AccuracyChange(0.92, 0.9, "held_out"),
        loss=(0.3, 0.5),
        images=1024,
        best_epoch=11,
        max_rel_error=3e-16,
        course=tuple(course_point(step, groups) for step in steps),
    )


def trained_report() -> report.LearningReport:
    """Return the training of three epochs after a cut at once."""
    course = (dataclasses.replace(course_point(10 * at, ()), phase="train") for at in (1, 2, 3))
    return report.LearningReport(
        method="one-shot",
        epochs=3,
        search_epochs=0.0,
        gates=0,
        kept=0.49,
        accuracy=report.AccuracyChange(0.4, 0.88, "held_out"),
        loss=(2.3, 0.5),
        images=1024,
        best_epoch=3,
        course=tuple(course),
    )


def trial(signal: str, keep: float, accuracy: float | None, **facts: Any) -> report.Trial:
    score = None if accuracy is None else report.Score(2.5 - accuracy, accuracy, 1.0, 143)
    kept = {} if accuracy is None else dict.fromkeys(("flops", "params", "channels"), keep - 0.01)
    budget = {"flops": {"fraction": keep}}
    return report.Trial(signal, facts.pop("allocation", "greedy"), 0, budget, kept, score, **facts)


DENSE = report.Trial(
    "dense", "", 0, {}, {"flops": 1.0, "params": 1.0}, report.Score(0.3, 0.92, 0.3, 143)
)
SEARCH = report.SearchReport(
    "taylor",
    DENSE,
    (trial("l1", 0.5, 0.4), trial("taylor", 0.5, 0.6), trial("random", 0.5, None, problem="no")),
    143,
    "held_out",
    2.0,
)


def sweep_report(*, table: Path | None = None, **facts: Any) -> report.SweepReport:
    trials = tuple(
        trial(signal, keep, accuracy - (0.3 if signal == "random" else 0))
        for keep, accuracy in ((0.9, 0.9), (0.5, 0.6))
        for signal in ("l1", "taylor", "random")
    )
    return report.SweepReport(
        architecture="cifar_resnet20",
        kind="flops",
        cost=COST,
        dense=DENSE,
        trials=(*trials, trial("l1", 0.1, None, problem="the lowest reachable is 0.132")),
        images=143,
        measured="held_out",
        repair=(),
        suggested=trials[1],
        seconds=3.0,
        table=table,
        **facts,
    )


def finetune_report(output: Path, *, accuracy: float = 0.91) -> report.FinetuneReport:
    epoch = report.EpochReport(1, 0.41, 0.90, 0.33, 0.05, 2400.0, 18.0)
    return report.FinetuneReport(
        output=output,
        accuracy=report.AccuracyChange(0.52, accuracy, "test"),
        held_out=report.AccuracyChange(0.51, 0.9, "held_out"),
        epochs=(epoch,),
        best_epoch=1,
        log=output.with_suffix(".csv"),
        seconds=18.0,
        teacher=0.93,
        taught_by=report.TeacherReport("history", Path("t.pt")),
    )


def export_report(output: Path, *, speedup: float | None = 1.62) -> report.ExportReport:
    row = report.BenchmarkRow(
        device="cpu",
        provider="CPUExecutionProvider",
        batch=8,
        threads=2,
        dense_ms=None if speedup is None else 12.3,
        slim_ms=7.6,
        speedup=speedup,
        speedup_low=None if speedup is None else 1.58,
        speedup_high=None if speedup is None else 1.66,
        flops_ratio=2.02,
        dense_percentiles={"p50": 12.3},
        slim_percentiles={"p50": 7.6},
        runs=100,
    )
    return report.ExportReport(output, 20, 612_345, report.Parity(2.1e-6, 8), (row,), 4.0)


def compress_report(output: Path, onnx: Path) -> report.CompressReport:
    exported = export_report(onnx)
    return report.CompressReport(
        output=output,
        onnx=onnx,
        before=report.ModelFigures(41e6, 272e3, 1_090_000, 12.3, 0.93),
        after=report.ModelFigures(20.3e6, 151e3, 610_000, 7.6, 0.9),
        met=(report.Wish("flops", 0.5, 0.495, ok=True, asked_text="50 %", got_text="49.5 %"),),
        tried=(),
        seconds=30.0,
        architecture="cifar_resnet20",
        verified=report.Verified("masked == cut", 3e-16),
        parity=exported.parity,
        benchmark=exported.benchmark,
        choice="the only one",
        commands=(),
    )


def compare_report(files: Sequence[Path]) -> report.CompareReport:
    models = (
        report.ComparedModel(
            name=file.name,
            file=file,
            kind="ONNX" if at else "PyTorch",
            architecture="cifar_resnet20",
            input=(1, 8, 8),
            class_count=10,
            cost={"flops": 41e6, "params": 272e3, "bytes": 1.09e6},
            file_bytes=612_345,
            scores=report.Scored(0.9 if at else 0.93, (0.88, 0.95), 0.99, 0.31),
        )
        for at, file in enumerate(files)
    )
    return report.CompareReport(tuple(models), "digits", "test", 360, (), 4.0)


ORACLE = report.OracleReport(
    64,
    1024,
    1.0,
    {"features.denseblock3.denselayer24.conv1": (0.1, 0.2)},
    (
        report.SignalAgreement("random", "size", 0.02, -0.01, None),
        report.SignalAgreement("taylor", "size", 0.61, 0.12, 0.71),
    ),
)


IMPORTANCE = report.ImportanceReport(
    64,
    1.0,
    {
        name: {"features.denseblock3.denselayer24.conv1": 0.1, "features.conv0": None}
        for name in ("energy", "probe", "sensitivity")
    },
    {"energy, probe": 0.41, "energy, sensitivity": None},
)


RELATION = report.Relation(
    embedding="pca-5",
    volume="none",
    predicted="error",
    predictor="CSG",
    coefficients=(0.01, 0.09),
    r=0.93,
    p=2.5e-7,
    left_out=0.042,
    families_left_out={"digits": 0.05, "CIFAR-10": 0.09},
    network="four convolutions",
    training="600 updates",
    points=(
        report.FittedPoint("digits all", "digits", 10, 143.8, 0.38, 0.014, 0.06),
        report.FittedPoint("CIFAR-10 35", "CIFAR-10", 2, 5000.0, 0.94, 0.22, 0.13),
    ),
)
EXPECTED = report.ExpectedError(0.23, (0.12, 0.34), (), RELATION, 0.5)


def analyze_report(*, model: bool, dataset: bool) -> report.AnalyzeReport:
    group = report.GroupAnalysis(
        "features.denseblock3.denselayer24.conv1",
        1024,
        1,
        0.05,
        0.01,
        True,
        {"min": 0.1, "median": 0.4, "max": 1.2},
        ({"cut": 0.25, "loss": 0.4, "accuracy": 0.9},),
    )
    frozen = (report.FrozenReport("linear", "the classifier's outputs stay", None, 0.01),)
    return report.AnalyzeReport(
        model=report.ModelAnalysis(
            "cifar_resnet20",
            COST,
            (group,),
            frozen,
            0.97,
            0.02,
            0.9,
            {"aten::pad": 2},
            oracle=ORACLE,
            importance=IMPORTANCE,
            dead=DEAD,
        )
        if model
        else None,
        dataset=report.DatasetAnalysis(
            "digits",
            "digits",
            1797,
            (report.ClassCount("zero", 178), report.ClassCount("one", 182)),
            {"8x8": 1797},
            0.97,
            (),
            (),
            0.4,
            (0.38, 0.43),
            {
                "embedding": "pca-5",
                "embedding_steps": "5 principal components, not whitened",
                "samples": 250,
                "neighbours": 3,
                "volume": "box",
                "repeats": 30,
                "images": 1797,
            },
            (0.0, 0.1),
            ((1.0, 0.2), (0.2, 1.0)),
            (("zero", "one", 0.2),),
            csg_votes=0.5,
            difficulty=(
                report.ClassDifficulty("zero", 0.1, 0.2, 0.6),
                report.ClassDifficulty("one", 0.3, 0.2, 0.6),
            ),
            confusing=(report.ConfusingImage("images/one/17.png", "one", "zero", 1.0),),
            reduction=report.Reduction(
                (report.ReductionStep(5, 0.9, 0.1), report.ReductionStep(50, 0.5, 0.1)),
                whole=0.5,
                tolerance=0.1,
                smallest=50,
            ),
            expected=EXPECTED,
        )
        if dataset
        else None,
        seconds=1.0,
    )


@dataclass
class FakeVerbs:
    """Answers every verb with a ready report, and keeps what it was called with."""

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    raises: BaseException | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    speedup: float | None = 1.62
    latency: report.LatencyReport | None = None
    warnings: tuple[str, ...] = ()
    prints: str = ""

    def prune(self, model: Path, *, dry_run: bool, output: Path, **options: Any) -> Any:
        self._called("prune", model=model, dry_run=dry_run, output=output, **options)
        if not dry_run:
            output.write_bytes(b"slim")
        found = prune_report(
            None if dry_run else output, warnings=self.warnings, latency=self.latency
        )
        if options["options"].method == "iterative":
            found = dataclasses.replace(found, iterative=iterative_report(dry_run=dry_run))
        elif options["options"].method != "one-shot":
            found = dataclasses.replace(found, learning=learning_report(dry_run=dry_run))
        return found

    def sweep(self, model: Path, *, table: Path | None, **options: Any) -> Any:
        self._called("sweep", model=model, table=table, **options)
        return sweep_report(table=table)

    def finetune(self, model: Path, *, output: Path, **options: Any) -> Any:
        self._called("finetune", model=model, output=output, **options)
        output.write_bytes(b"tuned")
        return finetune_report(output)

    def evaluate(self, model: Path, **options: Any) -> Any:
        self._called("evaluate", model=model, **options)
        accuracy = self.accuracy.get(str(model), EVALUATION.accuracy)
        return _with_accuracy(accuracy)

    def export(self, model: Path, *, output: Path, **options: Any) -> Any:
        self._called("export", model=model, output=output, **options)
        output.write_bytes(b"onnx")
        return export_report(output, speedup=self.speedup)

    def compress(self, model: Path, *, output: Path, onnx: Path | None, **options: Any) -> Any:
        self._called("compress", model=model, output=output, **options)
        file = onnx or output.with_suffix(".onnx")
        for path in (output, file):
            path.write_bytes(b"slim")
        return compress_report(output, file)

    def compare(self, models: Sequence[Path], **options: Any) -> Any:
        self._called("compare", models=models, **options)
        return compare_report(models)

    def analyze(self, *, model: Path | None, data: str | None, **options: Any) -> Any:
        self._called("analyze", model=model, data=data, **options)
        return analyze_report(model=model is not None, dataset=data is not None)

    def _called(self, verb: str, **options: Any) -> None:
        self.calls.append((verb, options))
        progress = options.get("progress")
        if progress is not None:
            progress(Step("working", 1, 2, {"loss": 0.4}))
            progress(Step("working", 2, 2, {"loss": 0.3}))
        if self.prints:
            print(self.prints)
        if self.raises is not None:
            raise self.raises


def _with_accuracy(accuracy: float) -> report.Evaluation:
    return report.Evaluation(accuracy, 0.99, 0.31, 360, EVALUATION.per_class, "test")
