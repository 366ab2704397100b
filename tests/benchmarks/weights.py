"""Accuracy and file size when single weights are zeroed: by signal, by allocation, by training.

    python tests/benchmarks/weights.py --data DATA CHECKPOINT            right after masking
    python tests/benchmarks/weights.py --data DATA CHECKPOINT --train 2  trained: at once, gradually

Weights are chosen, batch norm estimated and networks trained on training images; the scores are
those of test images. Rows are added to `weights.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import save
from prunecli.data import load_split, open_source
from prunecli.evaluation.batches import Images
from prunecli.evaluation.images import evaluate
from prunecli.network.traced import read_network
from prunecli.options import FinetuneOptions, PruneOptions
from prunecli.sparse import sparsify_network, weight_layers
from prunecli.training import finetune
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "checkpoint", "signal", "allocation", "sparsity", "training", "masked", "bn", "trained",
    "bytes", "images", "scored", "seed",
)  # fmt: skip
SPARSITIES = (0.5, 0.8, 0.9)
CHOICES = (
    ("l1", "uniform"), ("l1", "uniform-plus"), ("l1", "global"), ("l1", "erdos-renyi"),
    ("l1", "lamp"), ("taylor", "uniform"), ("removal", "global"), ("fisher", "global"),
    ("random", "uniform"),
)  # fmt: skip
TRAINED = (("at-once", "uniform"), ("cubic", "uniform"), ("at-once", "lamp"), ("cubic", "lamp"))


def main() -> None:
    """Measure every choice on every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1024, help="training images to look at")
    parser.add_argument("--test", type=int, default=2000, help="test images to score")
    parser.add_argument("--train", type=int, default=0, help="epochs; 0: no training")
    parser.add_argument("--limit", type=int, default=10000, help="images of an epoch")
    parser.add_argument("--sparsities", type=float, nargs="*", default=SPARSITIES)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not file.tell():
            writer.writeheader()
        for path in arguments.checkpoints:
            for row in (trained if arguments.train else masked)(path, arguments):
                writer.writerow({"checkpoint": path.name, "seed": 0, **row})
                file.flush()
                print(*row.values(), flush=True)


def masked(path: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield accuracy right after masking, and with batch norm estimated anew."""
    checkpoint = provenance.read(path).checkpoint
    source, spec = open_source(arguments.data), checkpoint.input
    images = load_split(source, "train", input=spec, limit=arguments.images)
    test = load_split(source, "test", input=spec, limit=arguments.test)
    model = instantiate(checkpoint)
    facts = {"images": len(images), "scored": len(test)}
    dense = evaluate(model, test, input=spec).accuracy
    yield {**facts, "sparsity": 0, "masked": f"{dense:.4f}", "bytes": size(checkpoint)}
    cuts = [(signal, rule, share, "weight")
            for share in arguments.sparsities for signal, rule in CHOICES]  # fmt: skip
    for signal, rule, share, granularity in [*cuts, ("l1", "uniform", None, "2:4")]:
        result = sparsify_network(
            read_network(model, example_arguments(spec)),
            sparsity=share,
            options=PruneOptions(
                signal=signal, allocation=rule, granularity=granularity, repair=("bn",)
            ),
            images=Images(lambda: normalised(images, spec), lambda: normalised(test, spec)),
        )
        steps = {step.name: step.accuracy for step in result.report.repair.steps}
        tensors = provenance.state_of(result.model)
        yield {
            **facts,
            "signal": signal,
            "allocation": rule if share else granularity,
            "sparsity": f"{result.report.sparsity.sparsity:.3f}",
            "masked": f"{steps['cut']:.4f}",
            "bn": f"{steps['bn']:.4f}",
            "bytes": size(dataclasses.replace(checkpoint, tensors=tensors, masks=result.masks)),
        }


def trained(path: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield accuracy after training with the weights zeroed before the first step or gradually."""
    checkpoint = provenance.read(path).checkpoint
    source, spec = open_source(arguments.data), checkpoint.input
    test = load_split(source, "test", input=spec, limit=arguments.test)
    model = instantiate(checkpoint)
    layers = weight_layers(read_network(model, example_arguments(spec)))
    for share in arguments.sparsities:
        for schedule, rule in TRAINED:
            options = FinetuneOptions(
                epochs=arguments.train,
                limit=arguments.limit,
                sparsity=share,
                sparsity_schedule=schedule,
                sparsity_every=10,
                sparsity_until=0.0 if schedule == "at-once" else FinetuneOptions.sparsity_until,
                allocation=rule,
            )
            result = finetune(model, source, input=spec, options=options, layers=layers)
            tensors = provenance.state_of(result.model)
            sparse = dataclasses.replace(checkpoint, tensors=tensors, masks=result.masks)
            yield {
                "signal": "l1",
                "allocation": rule,
                "sparsity": f"{share:.3f}",
                "training": f"{schedule}, {arguments.train} epochs",
                "trained": f"{evaluate(result.model, test, input=spec).accuracy:.4f}",
                "bytes": size(sparse),
                "images": arguments.limit,
                "scored": len(test),
            }


def size(checkpoint) -> int:
    """Return the bytes of a checkpoint's file."""
    with tempfile.TemporaryDirectory() as folder:
        save(checkpoint, Path(folder) / "model.pt")
        return (Path(folder) / "model.pt").stat().st_size


if __name__ == "__main__":
    main()
