"""What a sweep shows, and whether `--signal auto` takes the signal that is best on test images.

    python tests/benchmarks/sweep.py --data DATA CHECKPOINT

Cuts are not aligned and spread greedily; nothing is repaired or trained. Writes `sweep.csv` and
`sweep.svg` (held-out images) and `search.csv` (every candidate on held-out and on test images).
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import torch

from prunecli import artefacts, pipeline
from prunecli.budget import make_budget, parse_sweep
from prunecli.data import load_split, open_source
from prunecli.instantiate import instantiate
from prunecli.network import read_network
from prunecli.network_data import normalised
from prunecli.options import PruneOptions
from prunecli.pictures import save_figure, sweep_picture
from prunecli.search import asked_signals
from prunecli.sweep import sweep_network

HERE = Path(__file__).parent
SIGNALS = ("l1", "magnitude", "fisher", "taylor-share")
BUDGETS = (0.8, 0.7, 0.6, 0.5)
FIELDS = ("checkpoint", "keep", "signal", "held_out_loss", "held_out_accuracy", "test_accuracy",
          "taken", "images", "test_images")  # fmt: skip


def main() -> None:
    """Sweep one checkpoint, then search at some budgets and score all candidates on test images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=512, help="images to look at and to score")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    options = PruneOptions(limit=arguments.images, align=1, allocation="greedy")
    report = pipeline.sweep(
        arguments.checkpoint,
        sweep=parse_sweep("flops=0.3:0.9:0.1"),
        signals=SIGNALS,
        allocations=["greedy"],
        options=options,
        data=arguments.data,
        table=HERE / "sweep.csv",
        overwrite=True,
    )
    save_figure(sweep_picture(report), HERE / "sweep.svg")
    print(f"swept in {report.seconds:.0f} s", flush=True)
    with (HERE / "search.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows(searched(arguments, options))


def searched(arguments: argparse.Namespace, options: PruneOptions) -> list[tuple[object, ...]]:
    """Return one row per budget and candidate."""
    tests = on_test_images(arguments, options)
    rows = []
    for keep in BUDGETS:
        found = pipeline.prune(
            arguments.checkpoint,
            budget=make_budget(flops=keep),
            options=PruneOptions(**{**vars(options), "signal": "auto"}),
            data=arguments.data,
            dry_run=True,
        ).candidates
        for trial in found.trials:
            score, (accuracy, count) = trial.final, tests[keep, trial.signal]
            rows.append((arguments.checkpoint.name, keep, trial.signal, f"{score.calibrated:.4f}",
                         f"{score.accuracy:.4f}", f"{accuracy:.4f}",
                         int(trial.signal == found.chosen), found.images, count))  # fmt: skip
            print(*rows[-1], flush=True)
    return rows


def on_test_images(
    arguments: argparse.Namespace, options: PruneOptions
) -> dict[tuple[float, str], tuple[float, int]]:
    """Return accuracy and number of test images of every candidate at every budget."""
    checkpoint = artefacts.read(arguments.checkpoint).checkpoint
    source, spec = open_source(arguments.data), checkpoint.input
    train = load_split(source, "train", input=spec, limit=arguments.images)
    test = load_split(source, "test", input=spec, limit=arguments.test)
    report = sweep_network(
        read_network(instantiate(checkpoint), [artefacts.example_input(spec)]),
        parse_sweep("flops=0.5:0.8:0.1"),
        signals=asked_signals(PruneOptions(signal="auto")),
        allocations=["greedy"],
        options=options,
        batches=lambda: normalised(train, spec),
        measured_on=lambda: normalised(test, spec),
    )
    return {
        (trial.budget["flops"]["fraction"], trial.signal): (trial.final.accuracy, len(test))
        for trial in report.trials
    }


if __name__ == "__main__":
    main()
