"""What bf16 gains over fp32 on a CPU that multiplies in it, and whether the accuracy follows.

    python tests/benchmarks/precision.py --checkpoint resnet20.pt --data DIR [--seeds 3]

Training steps of both precisions take turns, and processor time is counted, so that whatever else
the machine does falls on both alike. For the accuracy the network is cut to half of its FLOPs and
fine-tuned in both precisions, from the same seeds, and scored in fp32 on the same test images. Rows
that `precision.csv` has are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from resumed import Rows

from prunecli import verbs
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions
from prunecli.training import finetune
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import make_recipe, trainable_copy
from prunecli.training.loop import train_round
from prunecli.training.placing import start_run

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = ("what", "checkpoint", "seed", "images", "threads", "fp32", "bf16", "bf16_over_fp32")
RESULTS = Rows(TABLE, FIELDS, 3)
AMPS = ("no", "bf16")


def main() -> None:
    """Measure what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of 128 images, in each turn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6_000, help="to fine-tune on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tested", type=int, default=5_000)
    arguments = parser.parse_args()
    name, threads = arguments.checkpoint.name, str(torch.get_num_threads())
    if ("training images per CPU second", name, "") not in RESULTS.done():
        rates = throughput(arguments)
        measured = (*(f"{rate:.0f}" for rate in rates[:2]), f"{rates[2]:.2f}")
        images = str(128 * arguments.steps)
        RESULTS.append(("training images per CPU second", name, "", images, threads, *measured))
    for seed in range(arguments.seeds):
        what = f"accuracy after epoch {arguments.epochs}"
        if (what, name, str(seed)) not in RESULTS.done():
            full, half = accuracies(arguments, seed)
            measured = (f"{full:.4f}", f"{half:.4f}", f"{half - full:+.4f}")
            RESULTS.append((what, name, str(seed), str(arguments.images), threads, *measured))


def throughput(arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Return images per second of processor time in fp32 and in bf16, and the median ratio."""
    checkpoint = read(arguments.checkpoint).checkpoint
    source = open_source(arguments.data)
    images = load_split(source, "train", input=checkpoint.input, limit=128 * arguments.steps)
    runs = {}
    for amp in AMPS:
        recipe = make_recipe(
            source, images, input=checkpoint.input, teacher=None,
            options=FinetuneOptions(epochs=1000, amp=amp), accelerator=make_accelerator(amp),
        )  # fmt: skip
        runs[amp] = start_run(trainable_copy(instantiate(checkpoint)), recipe)
    rates: dict[str, list[float]] = {amp: [] for amp in AMPS}
    for turn in range(arguments.turns + 1):
        for amp, run in runs.items():
            # accelerate has one precision at a time.
            run.recipe = dataclasses.replace(run.recipe, accelerator=make_accelerator(amp))
            start = time.process_time()
            train_round(
                run, run.taken + arguments.steps, save=lambda: None, save_seconds=float("inf")
            )
            if turn:  # the first turn warms up
                rates[amp].append(len(images) / (time.process_time() - start))
    ratios = [half / full for full, half in zip(rates["no"], rates["bf16"], strict=True)]
    full, half = (statistics.median(rates[amp]) for amp in AMPS)
    return full, half, statistics.median(ratios)


def accuracies(arguments: argparse.Namespace, seed: int) -> tuple[float, float]:
    """Return the accuracy on test images after fine-tuning in fp32, and in bf16."""
    with tempfile.TemporaryDirectory() as folder:
        cut = verbs.prune(
            arguments.checkpoint, output=Path(folder) / "slim.pt", budget=make_budget(flops=0.5)
        )
        checkpoint = read(cut.output).checkpoint
    source = open_source(arguments.data)
    test = load_split(source, "test", input=checkpoint.input, limit=arguments.tested)
    found = []
    for amp in AMPS:
        options = FinetuneOptions(
            epochs=arguments.epochs, limit=arguments.images, seed=seed, amp=amp
        )
        tuned = finetune(
            instantiate(checkpoint), source, input=checkpoint.input, options=options
        ).model
        found.append(evaluate(tuned, test, input=checkpoint.input).accuracy)
    return found[0], found[1]


if __name__ == "__main__":
    main()
