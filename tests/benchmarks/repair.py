"""What repair adds right after the cut: loss and accuracy after every step, without training.

    python tests/benchmarks/repair.py --data DATA CHECKPOINT [CHECKPOINT ...]

Channels are chosen and repairs estimated on training images; the scores are those of test images.
Cuts are not aligned. The repairs follow one another: means, then batch norm, then least squares,
which starts from the plain cut whatever came before. `all` has the seconds of the whole `prune`, on
the clock and of the processor; `load` is the average load of the machine in the minute before, of
which the process itself makes up as much as it has threads. Writes `repair.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.batches import Images
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.road import prune_network
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.data import ImageSet

TABLE = Path(__file__).with_suffix(".csv")
FRACTIONS = (0.7, 0.5)
FIELDS = (
    "checkpoint", "kept", "signal", "allocation", "stream", "seed", "step", "loss", "accuracy",
    "seconds", "cpu_seconds", "images", "scored", "threads", "load",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """How channels are chosen; without `stream` those of the residual stream all stay."""

    signal: str
    allocation: str
    stream: bool
    seed: int = 0


CHOICES = (
    Choice("reconstruction", "greedy", stream=True),
    Choice("taylor", "greedy", stream=True),
    Choice("l1", "uniform", stream=False),
    Choice("random", "uniform", stream=False, seed=0),
    Choice("random", "uniform", stream=False, seed=1),
    Choice("random", "uniform", stream=False, seed=2),
    Choice("reconstruction", "greedy", stream=False),
    Choice("taylor", "greedy", stream=False),
)
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
"""The groups of the residual stream in the ResNets for CIFAR."""


def main() -> None:
    """Measure every choice of channels on every checkpoint; rows that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1024, help="training images to look at")
    parser.add_argument("--test", type=int, default=None, help="test images to score; default all")
    parser.add_argument("--choices", type=int, nargs="*", default=range(len(CHOICES)))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(FIELDS)
        for path in arguments.checkpoints:
            for row in measure(path, arguments):
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def measure(path: Path, arguments: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one checkpoint."""
    checkpoint = provenance.read(path).checkpoint
    source = open_source(arguments.data)
    train = load_split(source, "train", input=checkpoint.input, limit=arguments.images)
    test = load_split(source, "test", input=checkpoint.input, limit=arguments.test)
    for at in arguments.choices:
        for kept in FRACTIONS:
            for step in repaired(checkpoint, CHOICES[at], kept, train, test):
                load = f"{os.getloadavg()[0]:.1f}"
                threads = torch.get_num_threads()
                yield (path.name, kept, *step, len(train), len(test), threads, load)


def repaired(
    checkpoint, choice: Choice, kept: float, train: ImageSet, test: ImageSet
) -> Iterator[tuple[object, ...]]:
    """Yield the steps of one cut; the last, `all`, has the seconds of the whole `prune`."""
    spec = checkpoint.input
    clocks = (time.perf_counter, time.process_time)
    spent = [0.0, 0.0]

    def scored() -> Iterator:
        start = [clock() for clock in clocks]
        yield from normalised(test, spec)
        for at, clock in enumerate(clocks):
            spent[at] += clock() - start[at]

    start = [clock() for clock in clocks]
    result = prune_network(
        read_network(instantiate(checkpoint), example_arguments(spec)),
        budget=make_budget(flops=kept),
        options=PruneOptions(
            signal=choice.signal,
            allocation=choice.allocation,
            seed=choice.seed,
            align=1,
            exclude=() if choice.stream else STREAM,
            repair=("bias", "bn", "lstsq"),
        ),
        images=Images(lambda: normalised(train, spec), scored),
    )
    # A score is taken while its generator waits: that is no part of the repair.
    seconds, cpu_seconds = (
        clock() - first - other for clock, first, other in zip(clocks, start, spent, strict=True)
    )
    facts = (choice.signal, choice.allocation, "cut" if choice.stream else "whole", choice.seed)
    for step in result.report.repair.steps:
        loss, accuracy = f"{step.loss:.4f}", f"{step.accuracy:.4f}"
        yield (*facts, step.name, loss, accuracy, f"{step.seconds:.1f}", "")
    yield (*facts, "all", loss, accuracy, f"{seconds:.1f}", f"{cpu_seconds:.1f}")


if __name__ == "__main__":
    main()
