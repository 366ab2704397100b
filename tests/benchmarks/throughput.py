"""Images per second of the training loop beside the bare step, from 224-pixel JPEGs on disk.

The pictures are made here: smooth noise of 256 x 256, which compresses as photographs do. They are
decoded anew in every epoch, by threads (no workers) or by processes. `decoded` is what comes of
decoding and augmentation alone: a GPU whose bare step is faster waits for them. All are timed in
turns, by the wall clock, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn

from prunecli import data
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.data.pixels import normalise
from prunecli.options import FinetuneOptions
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import make_recipe
from prunecli.training.loop import drawn_batches, train_round
from prunecli.training.placing import start_run
from prunecli.training.reading import gather
from prunecli.training.sampling import with_positions

if TYPE_CHECKING:
    from prunecli.training.method import TrainingRun
    from prunecli.training.recipe import Recipe

OUT = Path(__file__).with_suffix(".csv")
FIELDS = (
    "augment", "workers", "cores", "batch_size", "bare_images_per_second", "loop_images_per_second",
    "decoded_images_per_second", "loop_to_bare",
)  # fmt: skip
INPUT = InputSpec(3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WORKERS = (0, 1, 2)


def main() -> None:
    """Write one row for each augmentation and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = data.open_source(str(pictures(Path(folder), arguments.images)))
        for augment in ("crop-flip", "imagenet", "imagenet+randaugment"):
            rows += measured(source, augment, arguments)
            with arguments.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)


def pictures(folder: Path, count: int) -> Path:
    """Write JPEGs of two classes."""
    generator = np.random.default_rng(0)
    for at in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        place = folder / "train" / str(at % 2)
        place.mkdir(parents=True, exist_ok=True)
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(place / f"{at}.jpg", quality=90)
    return folder


def measured(
    source: data.DataSource, augment: str, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Time the bare step, the loop and the decoding alone with each number of workers, in turns."""
    images = data.load_split(source, "train", input=INPUT, held_out=0.0, memory_limit=0)
    options = FinetuneOptions(epochs=1000, batch_size=arguments.batch_size, augment=augment)
    reference = ArchitectureRef(arguments.model, {"num_classes": 2})
    recipes = {
        workers: make_recipe(
            source, images, input=INPUT, options=dataclasses.replace(options, workers=workers),
            teacher=None, accelerator=make_accelerator("auto"),
        )
        for workers in WORKERS
    }  # fmt: skip
    runs = {
        workers: start_run(build_dense(reference, device="cpu"), recipe)
        for workers, recipe in recipes.items()
    }
    bare = start_run(build_dense(reference, device="cpu"), recipes[0])
    rates: dict[tuple[str, int], list[float]] = {}
    for turn in range(arguments.turns + 1):
        for workers, run in runs.items():
            end = run.taken + run.recipe.steps_per_epoch
            for name, work in (
                ("bare", lambda: step_alone(bare)),
                ("loop", lambda: train_round(run, end, save=lambda: None, save_seconds=1e9)),  # noqa: B023
                ("decoded", lambda: decode_alone(run.recipe)),  # noqa: B023
            ):
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
                if turn:  # the first one warms up
                    rates.setdefault((name, workers), []).append(len(images) / seconds)
    found = {key: statistics.median(values) for key, values in rates.items()}
    return [
        {
            "augment": augment,
            "workers": workers,
            "cores": os.cpu_count(),
            "batch_size": arguments.batch_size,
            **{f"{name}_images_per_second": round(found[name, workers], 1)
               for name in ("bare", "loop", "decoded")},
            "loop_to_bare": round(
                statistics.median(
                    loop / own
                    for loop, own in zip(
                        rates["loop", workers], rates["bare", workers], strict=True
                    )
                ),
                3,
            ),
        }
        for workers in WORKERS
    ]  # fmt: skip


def step_alone(run: TrainingRun) -> None:
    """Take the steps of an epoch on one batch that is already normalised."""
    recipe, model, optimizer = run.recipe, run.model, run.optimizer
    pixels = normalise(
        torch.zeros(recipe.options.batch_size, *INPUT.shape, dtype=torch.uint8), INPUT,
        memory_format=run.memory_format,
    ).to(run.device)  # fmt: skip
    labels = torch.zeros(len(pixels), dtype=torch.int64, device=run.device)
    model.train()
    for _ in range(recipe.steps_per_epoch):
        with recipe.accelerator.autocast():
            loss = nn.functional.cross_entropy(model(pixels).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        recipe.accelerator.backward(loss)
        optimizer.step()


def decode_alone(recipe: Recipe) -> None:
    """Read an epoch as the loop does, and train on nothing of it."""
    for _ in with_positions(recipe.images, drawn_batches(recipe, 0), gather(recipe, 0)):
        pass


if __name__ == "__main__":
    main()
