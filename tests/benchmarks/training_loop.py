"""Throughput of the whole training loop, data included, against a bare training step.

The bare step repeats forward, loss, backward and update on one batch that is already normalised.
Both are timed in turns, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

from prunecli import data
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.data.pixels import normalise
from prunecli.options import FinetuneOptions
from prunecli.progress import silent
from prunecli.training.augment import augmentation_for
from prunecli.training.devices import make_accelerator
from prunecli.training.loop import epoch_batches, train_round
from prunecli.training.losses import Objective
from prunecli.training.placing import start_run
from prunecli.training.recipe import Recipe
from prunecli.training.schedules import SCHEDULES
from prunecli.training.task import Classes

CIFAR = InputSpec(
    channels=3, height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def main() -> None:
    """Print one JSON object with both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    cache = os.environ.get("PRUNECLI_CACHE", "~/.cache/prunecli-data")
    parser.add_argument("--data", default=str(Path(cache).expanduser()))
    parser.add_argument("--model", default="cifar_resnet20")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps in each turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()

    options = FinetuneOptions(epochs=1000, batch_size=arguments.batch_size)
    source = data.open_source(arguments.data)
    started = time.perf_counter()
    images = data.load_split(
        source, "train", input=CIFAR, limit=arguments.steps * arguments.batch_size
    )
    decoding = len(images) / (time.perf_counter() - started)
    recipe = make_recipe(options, source, images)
    reference = ArchitectureRef(arguments.model, {"num_classes": len(source.classes)})
    run = start_run(build_dense(reference, device="cpu"), recipe)
    bare = BareStep(build_dense(reference, device="cpu"), recipe)

    rates: dict[str, list[float]] = {"bare": [], "loop": []}
    for turn in range(arguments.turns + 1):
        pair = {
            "bare": timed(lambda: bare.take(recipe.steps_per_epoch), recipe),
            "loop": timed(lambda: next_epoch(run), recipe),
        }
        if turn:  # the first turn warms up
            for name, seconds in pair.items():
                rates[name].append(len(images) / seconds)
    ratios = [loop / bare for loop, bare in zip(rates["loop"], rates["bare"], strict=True)]
    print(
        json.dumps(
            {
                "model": arguments.model,
                "device": str(recipe.accelerator.device),
                "threads": torch.get_num_threads(),
                "batch_size": arguments.batch_size,
                "decoded_images_per_second": round(decoding),
                "bare_images_per_second": round(statistics.median(rates["bare"]), 1),
                "loop_images_per_second": round(statistics.median(rates["loop"]), 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            },
            indent=2,
        )
    )


def make_recipe(options, source, images) -> Recipe:
    """Return what `finetune` would train with."""
    accelerator = make_accelerator(options.amp)
    return Recipe(
        options=options,
        input=CIFAR,
        images=images,
        augmentation=augmentation_for(options.augment, source, CIFAR),
        schedule=SCHEDULES.get("constant"),
        peak=0.01,
        task=Classes(Objective(options.temperature, options.alpha, options.label_smoothing)),
        accelerator=accelerator,
        steps_per_epoch=len(epoch_batches(len(images), options.batch_size, seed=0, epoch=0)),
        progress=silent,
    )


def next_epoch(run) -> None:
    """Take one epoch of the real loop."""
    end = run.taken + run.recipe.steps_per_epoch
    train_round(run, end, save=lambda: None, save_seconds=1e9)


class BareStep:
    """Forward, loss, backward, update: nothing else, always on the same batch."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe) -> None:
        device = recipe.accelerator.device
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        images, self.labels = next(recipe.images.iterate(recipe.options.batch_size))
        self.pixels = normalise(images.to(device), recipe.input)
        self.labels = self.labels.to(device)
        self.accelerator = recipe.accelerator

    def take(self, steps: int) -> None:
        """Take some steps."""
        for _ in range(steps):
            with self.accelerator.autocast():
                logits = self.model(self.pixels)
            loss = torch.nn.functional.cross_entropy(logits.float(), self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


def timed(work, recipe: Recipe) -> float:
    """Return the seconds that some work takes, all of it on the device included."""
    started = time.perf_counter()
    work()
    if recipe.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
