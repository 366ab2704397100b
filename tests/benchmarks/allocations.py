"""Which allocation rule to take: loss and accuracy right after the cut, under one signal.

    python tests/benchmarks/allocations.py --data DATA CHECKPOINT [CHECKPOINT ...]

Saliencies, importances and batch-norm statistics come from training images; the scores, right after
the cut (`cut`) and with batch norm estimated anew (`bn`), are those of test images. Widths are not
aligned. Writes `allocations.csv` beside this script; rows that are there are kept.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli.allocation import ALLOCATIONS, BY_IMPORTANCE, keep_mask
from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.importance import Measured, measure_importance
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_network
from prunecli.pruning.selection import select
from prunecli.repair.layers import layers_of
from prunecli.repair.steps import REPAIRS, Patient
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.report import Evaluation

TABLE = Path(__file__).with_suffix(".csv")
FRACTIONS = (0.5, 0.7, 0.3, 0.9)
FIELDS = (
    "checkpoint", "signal", "allocation", "importance", "asked", "kept", "step", "loss", "accuracy",
    "seconds", "images", "scored",
)  # fmt: skip


def choices(importances: list[str]) -> list[tuple[str, str]]:
    """Return every rule, those by importance with each of the importances."""
    rules = [entry.name for entry in ALLOCATIONS]
    plain = [(rule, "") for rule in rules if rule not in BY_IMPORTANCE]
    return plain + [(rule, name) for rule in BY_IMPORTANCE for name in importances]


def main() -> None:
    """Measure every rule at every budget on every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--signal", default="taylor")
    parser.add_argument("--importances", nargs="+", default=["probe"])
    parser.add_argument("--images", type=int, default=512, help="training images to look at")
    parser.add_argument("--test", type=int, default=2000, help="test images to score")
    parser.add_argument("--kept", type=float, nargs="+", default=FRACTIONS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            done = {tuple(row[name] for name in FIELDS[:5]) for row in csv.DictReader(file)}
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(FIELDS)
        for path in arguments.checkpoints:
            for row in measure(path, arguments, done):
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def measure(
    path: Path, arguments: argparse.Namespace, done: set[tuple[str, ...]]
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one checkpoint."""
    checkpoint = provenance.read(path).checkpoint
    source, spec = open_source(arguments.data), checkpoint.input
    train = load_split(source, "train", input=spec, limit=arguments.images)
    test = load_split(source, "test", input=spec, limit=arguments.test)
    network = read_network(instantiate(checkpoint), example_arguments(spec))

    def batches() -> Iterator:
        return normalised(train, spec)

    def score(graph: torch.nn.Module) -> Evaluation:
        return evaluate(graph, test, input=spec)

    saliency = score_network(network, PruneOptions(signal=arguments.signal), batches=batches)
    measured = Measured(network, saliency, batches)
    importance = {name: measure_importance(name, measured) for name in arguments.importances}
    dense, _ = network.graph_network(np.ones(saliency.size, np.bool_))
    end = (len(train), len(test))
    if (path.name, "", "", "", "1.0") not in done:
        found = score(dense)
        yield (path.name, "", "", "", 1.0, 1.0, "dense", *_scores(found), "", *end)
    for kept in arguments.kept:
        for rule, named in choices(arguments.importances):
            facts = (path.name, arguments.signal, rule, named, str(kept))
            if facts in done:
                continue
            start = time.process_time()
            selection = select(
                network, saliency, make_budget(flops=kept),
                PruneOptions(signal=arguments.signal, allocation=rule, align=1),
                held={}, importance=importance.get(named),
            )  # fmt: skip
            seconds = f"{time.process_time() - start:.2f}"
            share = network.cost.cost(selection.widths)["flops"] / network.cost.dense["flops"]
            keep = keep_mask(network.coupling.groups, saliency, selection.widths)
            graph, _ = network.graph_network(keep)
            row = (*facts, f"{share:.4f}")
            yield (*row, "cut", *_scores(score(graph)), seconds, *end)
            _renew_statistics_(graph, dense, network, keep, batches, images=len(train))
            yield (*row, "bn", *_scores(score(graph)), seconds, *end)


def _renew_statistics_(
    graph, dense, network: Network, keep: np.ndarray, batches, *, images: int
) -> None:
    """Estimate the batch-norm statistics of the cut graph anew, as `--repair bn` does."""
    with torch.no_grad():
        before = {name: value.clone() for name, value in graph.state_dict().items()}
        patient = Patient(dense, graph, before, layers_of(network, graph, keep), batches,
                          images, lambda _: None)  # fmt: skip
        REPAIRS.get("bn")(patient)


def _scores(found: Evaluation) -> tuple[str, str]:
    return f"{found.loss:.4f}", f"{found.accuracy:.4f}"


if __name__ == "__main__":
    main()
