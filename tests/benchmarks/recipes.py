"""Accuracy after fine-tuning one pruned network by several recipes, at equal epochs.

    python tests/benchmarks/recipes.py --checkpoints DIR --data DIR [--threads 1]

ResNet-20 is pruned once per budget by the default recipe, then fine-tuned from there with the dense
network as teacher, one setting changed at a time. A recipe is chosen by its accuracy on held-out
training images (`held_out`); `after` is that on the test images. Rows go to `recipes.csv` beside
this script as they are done; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from learning import AT_ONCE, processor
from resumed import Rows

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import FinetuneOptions, PruneOptions

RESNET20 = "resnet20-jpeg.pt"

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "batch 64": {"batch_size": 64},
    "half the learning rate": {"lr": 0.01},
    "twice the learning rate": {"lr": 0.04},
    "batch 64, half the learning rate": {"batch_size": 64, "lr": 0.01},
    "the teacher alone": {"alpha": 1.0},
    "temperature 2": {"temperature": 2.0},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "averaged weights": {"ema": 0.99},
    "label smoothing, no teacher": {"alpha": 0.0, "label_smoothing": 0.1},
    "no teacher": {"alpha": 0.0},
}


@dataclass(frozen=True)
class Cell:
    """What is run: the share of the FLOPs to keep, a recipe of `RECIPES`, epochs, a seed."""

    flops: float
    recipe: str
    epochs: int
    seed: int


@dataclass(frozen=True)
class Row(Cell):
    """What came of it: accuracy on held-out and on test images, and how it was trained."""

    held_out: float
    after: float
    precision: str
    cpu: str


RESULTS = Rows(
    Path(__file__).with_suffix(".csv"),
    tuple(field.name for field in fields(Row)),
    len(fields(Cell)),
)


def main() -> None:
    """Run the cells that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flops", type=float, nargs="*", default=[0.5, 0.25])
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=sorted(RECIPES))
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dense = arguments.checkpoints / RESNET20
    for flops in arguments.flops:
        cells = [Cell(flops, recipe, arguments.epochs, 0) for recipe in arguments.recipes]
        left = [cell for cell in cells if tuple(map(str, astuple(cell))) not in RESULTS.done()]
        with tempfile.TemporaryDirectory() as folder:
            slim = Path(folder) / "slim.pt"
            if left:
                chosen = PruneOptions(seed=0, **AT_ONCE["one-shot"])
                budget = make_budget(flops=flops)
                verbs.prune(dense, output=slim, budget=budget, options=chosen, data=arguments.data)
            for cell in left:
                RESULTS.append(astuple(run(cell, slim, dense, arguments.data)))


def run(cell: Cell, slim: Path, dense: Path, data: str) -> Row:
    """Fine-tune a pruned network, and score it on the test images."""
    options = FinetuneOptions(
        **{"epochs": cell.epochs, "seed": cell.seed, "batch_size": 128, **RECIPES[cell.recipe]}
    )
    target = slim.with_name(f"{cell.recipe.replace(' ', '-')}.pt")
    taught = dense if options.alpha else None
    tuned = verbs.finetune(slim, data=data, output=target, teacher=taught, options=options)
    after = verbs.evaluate(target, data=data, split="test").accuracy
    return Row(*astuple(cell), round(tuned.held_out.after, 4), after, tuned.precision, processor())


if __name__ == "__main__":
    main()
