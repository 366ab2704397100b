"""Accuracy on test images after pruning and training, method by method, at equal epochs.

    python tests/benchmarks/learning.py --checkpoints DIR --data DIR --plan quarter [--threads 1]

Every row starts from the same dense network and trains for as many epochs on the same images, with
the dense network as teacher; the best epoch is chosen on held-out training images, and the accuracy
is that of the test images. Rows go to `learning.csv` beside this script as they are done; rows that
are there are not run again, so that a plan resumes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from resumed import Rows

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import FinetuneOptions, PruneOptions, TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
RESNET20, RESNET56 = "resnet20-jpeg.pt", "resnet56-jpeg.pt"


@dataclass(frozen=True)
class Cell:
    """What is run: a network, a method, the share of the FLOPs to keep, epochs, images, a seed.

    `images` are those trained on, 0 for all.
    """

    network: str
    method: str
    flops: float
    epochs: int
    images: int
    seed: int


@dataclass(frozen=True)
class Row(Cell):
    """What came of it: shares kept, accuracies on test images, minutes, and how it was trained."""

    kept_flops: float
    kept_params: float
    before: float
    after: float
    minutes: float
    precision: str
    cpu: str


RESULTS = Rows(TABLE, tuple(field.name for field in fields(Row)), len(fields(Cell)))

RECIPE = {"signal": "reconstruction", "allocation": "greedy", "repair": ("lstsq",)}
AT_ONCE: dict[str, dict[str, Any]] = {
    "one-shot": RECIPE,
    "one-shot, any width": {**RECIPE, "align": 1},
    "l1": {"signal": "l1"},
    "random": {"signal": "random"},
}
"""Cuts at once, then fine-tuned; every other method has its own name."""

PUBLISHED = {"start": "equal", "threshold": "fixed"}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "bar as published": ("bar", {**PUBLISHED, "volume": "hard", "gate_lr": 0.02}),
    "gates as published": ("gates", {**PUBLISHED, "gate_lr": 0.02}),
}
"""The forms of the papers' public remains: equal starts, plain gradients, hard counts."""

LEARNED = ("exact-gates", "bar", "gates", "gradual", "slimming", "group-lasso")


def headline() -> Iterator[Cell]:
    """Yield the cells of the headline, all images, the most wanted first."""
    for seed in range(3):
        for flops in (0.5, 0.25):
            yield Cell(RESNET20, "one-shot", flops, 3, 0, seed)
        yield Cell(RESNET20, "dense", 1.0, 3, 0, seed)
    for method in ("one-shot", "exact-gates", "random", "bar", "gates"):
        for flops in (0.5, 0.25, 0.125, 0.0625):
            yield Cell(RESNET20, method, flops, 10, 0, 0)
    for method in ("one-shot", "exact-gates", "dense", "random"):
        for flops in (0.5, 0.25):
            yield Cell(RESNET56, method, flops, 10, 0, 0)


def quarter() -> Iterator[Cell]:
    """Yield all methods at a quarter of the FLOPs, on few images."""
    for seed in range(3):
        for method in ("one-shot", *LEARNED, "random", "l1", *FORMS):
            yield Cell(RESNET20, method, 0.25, 6, 6000, seed)
        yield Cell(RESNET20, "dense", 1.0, 6, 6000, seed)


def grid() -> Iterator[Cell]:
    """Yield the best methods at all budgets, on few images."""
    for seed in range(2):
        for flops in (0.5, 0.125, 0.0625):
            for method in ("one-shot", "exact-gates", "random"):
                yield Cell(RESNET20, method, flops, 6, 6000, seed)


def widths() -> Iterator[Cell]:
    """Yield the default beside cuts whose widths are not rounded, all images."""
    for seed in range(3):
        for flops in (0.5, 0.25):
            yield Cell(RESNET20, "one-shot, any width", flops, 3, 0, seed)
            yield Cell(RESNET20, "one-shot", flops, 3, 0, seed)


PLANS = {"widths": widths, "headline": headline, "quarter": quarter, "grid": grid}


def main() -> None:
    """Run the cells that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--plan", default="quarter", choices=sorted(PLANS))
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for cell in PLANS[arguments.plan]():
        wanted = not arguments.methods or cell.method in arguments.methods
        if wanted and tuple(map(str, astuple(cell))) not in RESULTS.done():
            RESULTS.append(astuple(run(cell, arguments.checkpoints, arguments.data)))


def run(cell: Cell, checkpoints: Path, data: str) -> Row:
    """Prune and train once, and score on the test images."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept, precision, tuned = _trained(cell, checkpoints / cell.network, data, Path(folder))
        before, after = (
            verbs.evaluate(model, data=data, split="test").accuracy
            for model in (checkpoints / cell.network, tuned)
        )
    minutes = round((time.perf_counter() - start) / 60, 2)
    shares = (round(kept["flops"], 4), round(kept["params"], 4))
    return Row(*astuple(cell), *shares, before, after, minutes, precision, processor())


def _trained(
    cell: Cell, dense: Path, data: str, folder: Path
) -> tuple[dict[str, float], str, Path]:
    """Return the shares kept, the precision of training, and where the result lies."""
    batch, limit = (64, cell.images) if cell.images else (128, None)
    target, budget = folder / "tuned.pt", make_budget(flops=cell.flops, needed=cell.flops < 1)
    if cell.method in AT_ONCE or cell.method == "dense":
        start, kept = dense, {"flops": 1.0, "params": 1.0}
        if cell.method in AT_ONCE:
            chosen = PruneOptions(seed=cell.seed, **AT_ONCE[cell.method])
            start = folder / "slim.pt"
            cut = verbs.prune(dense, output=start, budget=budget, options=chosen, data=data)
            kept = dict(cut.cost.kept)
        tuning = FinetuneOptions(epochs=cell.epochs, seed=cell.seed, limit=limit, batch_size=batch)
        tuned = verbs.finetune(start, data=data, output=target, teacher=dense, options=tuning)
        return kept, tuned.precision, target
    method, form = FORMS.get(cell.method, (cell.method, {}))
    training = TrainingOptions(epochs=cell.epochs, batch_size=batch, teacher=dense, **form)
    options = PruneOptions(method=method, seed=cell.seed, limit=limit, training=training)
    report = verbs.prune(dense, output=target, budget=budget, options=options, data=data)
    return dict(report.cost.kept), report.learning.precision, target


def processor() -> str:
    """Return what the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    main()
