"""What a sweep shows, and whether `--signal auto` takes the signal that is best on test images.

    python tests/benchmarks/sweep.py --data DATA CHECKPOINT

Cuts are not aligned and spread greedily; nothing is repaired or trained. Writes `sweep.csv` and
`sweep.svg` (held-out images) and `search.csv` (every candidate on held-out and on test images).
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from prunecli import verbs
from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget, parse_sweep
from prunecli.data import load_split, open_source
from prunecli.evaluation.batches import Images
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pictures import save_figure, sweep_picture
from prunecli.pruning.scoring import score_signals
from prunecli.pruning.search import asked_signals, least_loss
from prunecli.pruning.trial import try_cut
from prunecli.verbs.images import normalised

HERE = Path(__file__).parent
SIGNALS = ("l1", "magnitude", "fisher", "taylor-share")
BUDGETS = (0.7, 0.5)
FIELDS = ("checkpoint", "keep", "signal", "held_out_loss", "held_out_accuracy", "test_accuracy",
          "taken", "images", "test_images")  # fmt: skip


def main() -> None:
    """Sweep one checkpoint, search at some budgets and score all candidates on test images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=512, help="images to look at and to score")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    options = PruneOptions(limit=arguments.images, align=1, allocation="greedy")
    for part in arguments.parts:
        PARTS[part](arguments, options)


def swept(arguments: argparse.Namespace, options: PruneOptions) -> None:
    """Write the table and the picture of a sweep."""
    report = verbs.sweep(
        arguments.checkpoint,
        sweep=parse_sweep("flops=0.3:0.9:0.1"),
        signals=SIGNALS,
        allocations=[options.allocation],
        options=options,
        data=arguments.data,
        table=HERE / "sweep.csv",
        overwrite=True,
    )
    save_figure(sweep_picture(report), HERE / "sweep.svg")
    print(f"swept in {report.seconds:.0f} s", flush=True)


def searched(arguments: argparse.Namespace, options: PruneOptions) -> None:
    """Write one row per budget and candidate; what `auto` takes is marked."""
    checkpoint = provenance.read(arguments.checkpoint).checkpoint
    source, spec = open_source(arguments.data), checkpoint.input
    limits = {"train": arguments.images, "held_out": arguments.images, "test": arguments.test}
    images = {
        split: load_split(source, split, input=spec, limit=limit) for split, limit in limits.items()
    }
    batches = {split: partial(normalised, found, spec) for split, found in images.items()}
    network = read_network(instantiate(checkpoint), example_arguments(spec))
    names = asked_signals(PruneOptions(signal="auto"))
    saliencies = score_signals(network, names, options, batches=batches["train"])
    with (HERE / "search.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for keep in BUDGETS:
            held_out, test = (
                [try_cut(network, saliencies[name], budget=make_budget(flops=keep),
                         options=replace(options, signal=name),
                         images=Images(measured_on=batches[split]))
                 for name in names]
                for split in ("held_out", "test")
            )  # fmt: skip
            taken = least_loss(held_out)
            for seen, unseen in zip(held_out, test, strict=True):
                score = seen.final
                facts = (f"{score.calibrated:.4f}", f"{score.accuracy:.4f}",
                         f"{unseen.final.accuracy:.4f}", int(seen is taken))  # fmt: skip
                counts = (len(images["held_out"]), len(images["test"]))
                row = (arguments.checkpoint.name, keep, seen.signal, *facts, *counts)
                writer.writerow(row)
                print(*row, flush=True)


PARTS = {"sweep": swept, "search": searched}


if __name__ == "__main__":
    main()
