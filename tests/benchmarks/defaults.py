"""Which signal, allocation and aggregate to take by default: accuracy right after the cut.

    python tests/benchmarks/defaults.py --data DATA CHECKPOINT [CHECKPOINT ...]

Each checkpoint is cut without alignment, the batch-norm statistics are estimated anew on 512
training images (the weights stay), and the accuracy is that of images held out from training; test
images are not looked at. Writes `defaults.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from prunecli import artefacts
from prunecli.allocation import (
    Problem,
    allocate,
    allowed_widths,
    ceilings_of,
    keep_mask,
)
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.instantiate import instantiate
from prunecli.network import read_network
from prunecli.network_data import normalised
from prunecli.options import PruneOptions
from prunecli.pruning import score_network
from prunecli.training import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
SIGNALS = (
    "magnitude", "l1", "l2", "bn-gamma", "geometric-median", "taylor", "taylor-share", "fisher",
    "random",
)  # fmt: skip
ALLOCATIONS = ("uniform", "global", "greedy")
FRACTIONS = (0.7, 0.5)


def main() -> None:
    """Measure every combination on every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
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
    checkpoint = artefacts.read(path).checkpoint
    network = read_network(instantiate(checkpoint), [artefacts.example_input(checkpoint.input)])
    source = open_source(arguments.data)
    spec = checkpoint.input
    held_out = load_split(source, "held_out", input=spec, limit=arguments.images)
    train = load_split(source, "train", input=spec, limit=512)
    dense = evaluate(network.model, held_out, input=spec).accuracy
    yield (path.name, "dense", "", "", "", *([f"{dense:.3f}"] * len(FRACTIONS)))
    for signal, aggregate in product(SIGNALS, ("sum", "mean")):
        for seed in range(arguments.seeds if signal == "random" else 1):
            if signal == "random" and aggregate == "mean":
                continue
            options = PruneOptions(signal=signal, aggregate=aggregate, seed=seed)
            saliency = score_network(network, options, batches=lambda: normalised(train, spec))
            for allocation in ALLOCATIONS:
                found = []
                for fraction in FRACTIONS:
                    slim = cut(network, saliency, allocation, fraction)
                    recalibrate_(slim, normalised(train, spec))
                    found.append(f"{evaluate(slim, held_out, input=spec).accuracy:.3f}")
                yield (path.name, signal, aggregate, allocation, str(seed), *found)


def cut(network, saliency: np.ndarray, allocation: str, fraction: float) -> nn.Module:
    """Return the network cut to a fraction of its FLOPs, without alignment or proof."""
    groups, cost = network.coupling.groups, network.cost
    visible = {group.name for group in groups if not np.isnan(saliency[group.atoms]).any()}
    problem = Problem(
        groups,
        saliency,
        cost,
        ceilings_of(make_budget(flops=fraction), cost.dense),
        allowed_widths(groups, eligible=lambda group: group.name in visible, align=1, min_width=1),
    )
    ranked = np.nan_to_num(saliency, nan=np.inf)
    slim, _ = network.graph_network(keep_mask(groups, ranked, allocate(allocation, problem)))
    return slim


def recalibrate_(model: nn.Module, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Estimate the batch-norm statistics anew, as a plain average over the batches, in place."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    model.eval()


if __name__ == "__main__":
    main()
