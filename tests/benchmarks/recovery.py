"""Accuracy after a cut and a short fine-tuning, beside random pruning and the dense network.

    python tests/benchmarks/recovery.py --checkpoint resnet20-jpeg.pt --data DATA [--epochs 3]

Every row starts from the same checkpoint and trains equally long on the same images with the same
teacher; the epoch is chosen on held-out training images, and the accuracy is that of the test
images. Rows are appended to `recovery.csv` beside this script; rows that are there are not run
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from resumed import Rows

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import FinetuneOptions, PruneOptions

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "checkpoint", "row", "epochs", "seed", "kept_flops", "before", "after", "images_per_second",
)  # fmt: skip
RESULTS = Rows(TABLE, FIELDS, 4)


@dataclass(frozen=True)
class Row:
    """One way to a trained network: how it is cut (None: not at all), and with a teacher or not."""

    name: str
    cut: PruneOptions | None
    teacher: bool = True


def rows(seed: int) -> tuple[Row, ...]:
    """Return the rows of the table: the defaults, their controls, and alternatives.

    *default* is what `prune` takes with images, *l1 uniform* what it takes without.
    """
    plain = PruneOptions(signal="l1", allocation="uniform", seed=seed)
    return (
        Row("dense", None, teacher=False),
        Row("dense, teacher", None),
        Row("default, teacher", PruneOptions(seed=seed)),
        Row("l1 uniform, teacher", plain),
        Row("random, teacher", PruneOptions(signal="random", allocation="uniform", seed=seed)),
        Row("default", PruneOptions(seed=seed), teacher=False),
        Row("l1 uniform", plain, teacher=False),
        Row(
            "random",
            PruneOptions(signal="random", allocation="uniform", seed=seed),
            teacher=False,
        ),
        Row(
            "magnitude greedy, teacher",
            PruneOptions(signal="magnitude", allocation="greedy", seed=seed),
        ),
        Row("l1 uniform, align 1, teacher", dataclasses.replace(plain, align=1)),
        Row("taylor, teacher", PruneOptions(signal="taylor", seed=seed)),
    )


def main() -> None:
    """Run the rows that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--flops", default="0.5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", help="only these rows")
    arguments = parser.parse_args()
    for row in rows(arguments.seed):
        key = (arguments.checkpoint.name, row.name, str(arguments.epochs), str(arguments.seed))
        if (arguments.rows and row.name not in arguments.rows) or key in RESULTS.done():
            continue
        RESULTS.append(dict(zip(FIELDS, (*key, *run(row, arguments)), strict=True)))


def run(row: Row, arguments: argparse.Namespace) -> tuple[str, str, str, str]:
    """Cut and train once; return the kept FLOPs, the accuracies and the training speed."""
    with tempfile.TemporaryDirectory() as folder:
        start, kept = arguments.checkpoint, 1.0
        if row.cut is not None:
            cut = verbs.prune(
                arguments.checkpoint,
                output=Path(folder) / "slim.pt",
                budget=make_budget(flops=arguments.flops),
                options=row.cut,
                data=arguments.data,
            )
            start, kept = cut.output, cut.cost.kept["flops"]
        report = verbs.finetune(
            start,
            data=arguments.data,
            output=Path(folder) / "tuned.pt",
            teacher=arguments.checkpoint if row.teacher else Path("none"),
            options=FinetuneOptions(epochs=arguments.epochs, seed=arguments.seed),
        )
        speed = report.epochs[-1].images_per_second
    return (
        f"{kept:.4f}",
        f"{report.accuracy.before:.4f}",
        f"{report.accuracy.after:.4f}",
        f"{speed:.0f}",
    )


if __name__ == "__main__":
    main()
