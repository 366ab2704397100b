"""Accuracy of networks that shrank while they trained, beside cuts at once, for as many updates.

    python tests/benchmarks/iterative.py --checkpoint resnet20-jpeg.pt --data DATA [--rows NAME ...]

Every row starts from the same checkpoint, keeps half of the FLOPs, and takes about as many updates
of 128 images from the same ones: an iterative row 31 times `--updates` while it shrinks and one
epoch of `finetune` over `--images`, the others two such epochs. The epoch is chosen on held-out
training images; the accuracies are those of 2,000 test images, and the milliseconds are processor
time of one update. Rows are appended to `iterative.csv` beside this script; rows that are there are
not run again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from resumed import Rows

from prunecli import verbs
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions, PruneOptions, TrainingOptions
from prunecli.training import finetune

if TYPE_CHECKING:
    from prunecli.progress import Step

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "checkpoint", "row", "seed", "kept_flops", "updates", "cut", "after",
    "first_ms", "last_ms", "seconds",
)  # fmt: skip
RESULTS = Rows(TABLE, FIELDS, 3)
TESTED = 2_000


@dataclass(frozen=True)
class Row:
    """One way to a network of half the FLOPs: a method and a signal."""

    name: str
    method: str
    signal: str


ROWS = (
    Row("iterative fisher", "iterative", "fisher"),
    Row("one-shot l1", "one-shot", "l1"),
    Row("iterative random", "iterative", "random"),
    Row("one-shot fisher", "one-shot", "fisher"),
    Row("iterative taylor", "iterative", "taylor"),
)


def main() -> None:
    """Run the rows that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=9_600)
    parser.add_argument("--updates", type=int, default=2, help="between two removals")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    arguments = parser.parse_args()
    for row in ROWS:
        key = (arguments.checkpoint.name, row.name, str(arguments.seed))
        if (arguments.rows and row.name not in arguments.rows) or key in RESULTS.done():
            continue
        RESULTS.append(dict(zip(FIELDS, (*key, *run(row, arguments)), strict=True)))


def run(row: Row, arguments: argparse.Namespace) -> tuple[str, ...]:
    """Cut and train once; return what the table says about it."""
    start, clock = time.perf_counter(), Clock(arguments.updates)
    own = {"limit": arguments.images, "training": TrainingOptions(updates=arguments.updates)}
    with tempfile.TemporaryDirectory() as folder:
        cut = verbs.prune(
            arguments.checkpoint,
            output=Path(folder) / "slim.pt",
            budget=make_budget(flops=0.5),
            options=PruneOptions(
                method=row.method,
                signal=row.signal,
                seed=arguments.seed,
                **(own if row.method == "iterative" else {}),
            ),
            data=arguments.data,
            progress=clock,
        )
        checkpoint = read(cut.output).checkpoint
    way, network, source = cut.iterative, instantiate(checkpoint), open_source(arguments.data)
    test = load_split(source, "test", input=checkpoint.input, limit=TESTED)
    before = evaluate(network, test, input=checkpoint.input)
    epochs = 2 if way is None else 1
    tuned = finetune(
        network,
        source,
        input=checkpoint.input,
        options=FinetuneOptions(epochs=epochs, limit=arguments.images, seed=arguments.seed),
    )
    after = evaluate(tuned.model, test, input=checkpoint.input)
    updates = epochs * -(-arguments.images // FinetuneOptions.batch_size)
    if way is not None:
        updates += (len(way.removals) + 1) * arguments.updates
    times = ("", "") if way is None else clock.ends()
    return (
        f"{cut.cost.kept['flops']:.4f}",
        str(updates),
        f"{before.accuracy:.4f}",
        f"{after.accuracy:.4f}",
        *times,
        f"{time.perf_counter() - start:.0f}",
    )


class Clock:
    """Processor time of every update of an iterative run that follows another one directly."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.last = 0.0
        self.seconds: list[float] = []

    def __call__(self, step: Step) -> None:
        if step.stage != "iterative":
            return
        now = time.process_time()
        if self.updates == 1 or step.done % self.updates != 1:
            self.seconds.append(now - self.last)
        self.last = now

    def ends(self) -> tuple[str, str]:
        """Return the medians of the first and of the last five, in milliseconds."""
        first, last = median(self.seconds[:5]), median(self.seconds[-5:])
        return f"{first * 1e3:.0f}", f"{last * 1e3:.0f}"


if __name__ == "__main__":
    main()
