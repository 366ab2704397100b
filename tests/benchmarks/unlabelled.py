"""Training after pruning without labels, beside training with them, on the same images.

    python -m tests.benchmarks.unlabelled CHECKPOINT TRAIN TEST --limit 1500 --epochs 2

prunes CHECKPOINT to half of its FLOPs and trains the result three times on images of TRAIN: with
labels alone, with labels and the original as teacher, and with the original's outputs alone (no
label is looked at). `unlabelled.csv` has the accuracy and the agreement with the original on
images of TEST, which no choice was made on.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import FinetuneOptions

TABLE = Path(__file__).with_suffix(".csv")

WAYS = {
    "labels": {"teacher": Path("none"), "loss": "labels"},
    "labels and teacher": {"loss": "labels"},
    "outputs alone": {"loss": "outputs"},
}


def main() -> None:
    """Prune once, train in every way, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--scored", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    rows = []
    with TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.pt"
        verbs.prune(given.checkpoint, output=slim, budget=make_budget(flops=given.flops))
        for way, how in {"not trained": None, **WAYS}.items():
            path, start = slim, time.process_time()
            if how is not None:
                path = Path(folder) / f"{way.replace(' ', '-')}.pt"
                options = FinetuneOptions(
                    epochs=given.epochs, limit=given.limit, loss=how["loss"], amp="no"
                )
                verbs.finetune(
                    slim, data=given.train, output=path, options=options,
                    teacher=how.get("teacher", given.checkpoint),
                )  # fmt: skip
            spent = time.process_time() - start
            found = verbs.evaluate(
                path, data=given.test, limit=given.scored, against=given.checkpoint
            )
            rows.append(
                {
                    "checkpoint": given.checkpoint.name,
                    "flops": given.flops,
                    "trained": way,
                    "images": 0 if how is None else given.limit,
                    "epochs": 0 if how is None else given.epochs,
                    "accuracy": round(found.accuracy, 4),
                    "agreement": round(found.outputs[0].agreement, 4),
                    "scored": found.count,
                    "cpu_seconds": round(spent, 1),
                }
            )
            print(rows[-1], flush=True)
            with given.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
