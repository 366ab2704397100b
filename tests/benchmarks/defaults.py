"""Which signal, allocation and aggregate to take by default: accuracy right after the cut.

    python tests/benchmarks/defaults.py --data DATA CHECKPOINT [CHECKPOINT ...]

Each checkpoint is cut without alignment, the batch-norm statistics are estimated anew on 512
training images (the weights stay), and the accuracy is that of images held out from training; test
images are not looked at. No repair is done, though with images `prune` does one by default: see
`repair.py` and `recovery.py`. Writes `defaults.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from cuts import chosen, recalibrate_

from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_network
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
SIGNALS = (
    "magnitude", "l1", "l2", "bn-gamma", "geometric-median", "taylor", "taylor-share", "fisher",
    "reconstruction", "random",
)  # fmt: skip
WITHOUT_AGGREGATE = ("random", "reconstruction")
ALLOCATIONS = ("uniform", "global", "greedy")
FRACTIONS = (0.7, 0.5)


def main() -> None:
    """Measure every combination on every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--signals", nargs="*", default=SIGNALS, help="only these signals")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the random signal")
    arguments = parser.parse_args()
    fields = ("checkpoint", "signal", "aggregate", "allocation", "seed", *map(str, FRACTIONS))
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(fields)
        for path in arguments.checkpoints:
            for row in measure(path, arguments):
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def measure(path: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one checkpoint."""
    checkpoint = provenance.read(path).checkpoint
    network = read_network(instantiate(checkpoint), example_arguments(checkpoint.input))
    source = open_source(arguments.data)
    spec = checkpoint.input
    held_out = load_split(source, "held_out", input=spec, limit=arguments.images)
    train = load_split(source, "train", input=spec, limit=512)
    dense = evaluate(network.model, held_out, input=spec).accuracy
    if set(arguments.signals) == set(SIGNALS):
        yield (path.name, "dense", "", "", "", *([f"{dense:.3f}"] * len(FRACTIONS)))
    for signal, aggregate in product(arguments.signals, ("sum", "mean")):
        for seed in range(arguments.seeds if signal == "random" else 1):
            if signal in WITHOUT_AGGREGATE and aggregate == "mean":
                continue
            options = PruneOptions(signal=signal, aggregate=aggregate, seed=seed)
            saliency = score_network(network, options, batches=lambda: normalised(train, spec))
            for allocation in ALLOCATIONS:
                found = []
                for fraction in FRACTIONS:
                    keep = chosen(network, saliency, allocation=allocation, kept=fraction)
                    slim, _ = network.graph_network(keep)
                    recalibrate_(slim, normalised(train, spec))
                    found.append(f"{evaluate(slim, held_out, input=spec).accuracy:.3f}")
                yield (path.name, signal, aggregate, allocation, str(seed), *found)


if __name__ == "__main__":
    main()
