"""What a step with a quarter of the FLOPs takes, of dynamic execution, beside the dense step.

    python tests/benchmarks/dynamic.py [--networks NAME ...] [--turns N] [--amp no|bf16]

Networks for images of 32x32 pixels with random weights, batches of 128 random images. Dense steps
and steps of the search take turns, and processor time is counted, so that whatever else the machine
does falls on both alike; every step of the search has other channels than the one before. Choosing
and moving slices, and the rewards, are counted apart as well. `saved` are the tensors that the
backward pass keeps beside the weights; `peak` is how far the memory of a process grows over two
steps, everything of the network included: weights, gradients, optimiser, and for dynamic execution
the whole network beside the narrow one. There every freed tensor is given back to the system;
`resident` is the same with the C library's own habits, which keep holes of freed memory. Rows of
the networks that are measured are replaced in `dynamic.csv`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prunecli import data
from prunecli.architectures.cifar_resnet import CifarResNet
from prunecli.architectures.reference import InputSpec
from prunecli.budget import make_budget
from prunecli.methods.dynamic import DynamicChannels, DynamicOptions, uniform_widths
from prunecli.network.traced import Network, read_network
from prunecli.options import FinetuneOptions, PruneOptions
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import load_images, make_recipe, trainable_copy
from prunecli.training.loop import train_step
from prunecli.training.placing import start_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.training.method import Batch, TrainingRun

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "network", "precision", "threads", "kept_flops", "dense_ms", "search_ms", "ratio",
    "choose_and_move_ms", "reward_ms", "frozen_ms", "saved_dense_mb", "saved_search_mb",
    "saved_ratio", "peak_dense_mb", "peak_search_mb", "peak_ratio", "resident_dense_mb",
    "resident_search_mb", "resident_ratio",
)  # fmt: skip
COLOUR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)
BATCH, KEPT = 128, 0.25


def vgg16() -> nn.Module:
    """Return VGG-16 with batch norm as it is used for small images: one linear layer."""
    from torchvision.models import vgg16_bn

    network = vgg16_bn(num_classes=10)
    network.avgpool = nn.Identity()
    network.classifier = nn.Linear(512, 10)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: CifarResNet((3, 3, 3)),
    "vgg16_bn": vgg16,
}


class Timed(DynamicChannels):
    """Counts the processor time of what it does beside the step."""

    moving = rewarding = 0.0

    def before_step(self, run: TrainingRun) -> None:
        start = time.process_time()
        super().before_step(run)
        self.moving += time.process_time() - start

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        start = time.process_time()
        super().after_backward(run, batch)
        self.rewarding += time.process_time() - start


def main() -> None:
    """Measure the networks and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--amp", default="no")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "KIND"), help="print that alone")
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(peak_growth(*arguments.peak, amp=arguments.amp)))
        return
    for name in arguments.networks:
        row = measured(name, arguments.turns, arguments.amp)
        print(row, flush=True)
        write(row)


def measured(name: str, turns: int, amp: str) -> dict[str, str]:
    """Return the row of a network."""
    network, method = made(name)
    runs = {"dense": dense_run(network, amp), "search": method_run(method, amp)}
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(method.bandits.warm_steps + turns):
        if turn == method.bandits.warm_steps:
            method.moving = method.rewarding = 0.0
        for kind, run in runs.items():
            spent = stepped(run)
            if turn >= method.bandits.warm_steps:
                times[kind].append(spent)
    ratio = median(b / a for a, b in zip(times["dense"], times["search"], strict=True))
    beside = (method.moving / turns, method.rewarding / turns)
    saved = {kind: saved_bytes(run) for kind, run in runs.items()}
    frozen = frozen_seconds(runs["search"], method, turns)
    peaks, resident_peaks = (
        [in_process(name, kind, amp, environment) for kind in runs]
        for environment in (GIVES_BACK, {})
    )
    numbers = (
        method.share("flops"), *(1e3 * median(times[kind]) for kind in runs), ratio,
        *(1e3 * each for each in beside), 1e3 * frozen,
        *(value / 2**20 for value in saved.values()), saved["search"] / saved["dense"],
        *(value / 2**20 for value in peaks), peaks[1] / peaks[0],
        *(value / 2**20 for value in resident_peaks), resident_peaks[1] / resident_peaks[0],
    )  # fmt: skip
    words = (name, "fp32" if amp == "no" else amp, str(torch.get_num_threads()))
    return dict(zip(FIELDS, (*words, *(f"{number:.4g}" for number in numbers)), strict=True))


def made(name: str) -> tuple[Network, Timed]:
    """Return a network and the method that executes a quarter of its FLOPs."""
    torch.manual_seed(0)
    network = read_network(NETWORKS[name]().eval(), [torch.randn(2, 3, 32, 32)])
    widths = uniform_widths(network, make_budget(flops=KEPT), PruneOptions()).widths
    return network, Timed(network, widths, DynamicOptions(settle=False), 0)


def dense_run(network: Network, amp: str) -> TrainingRun:
    """Return plain training of the model itself."""
    return start_run(trainable_copy(network.model), recipe(amp))


def method_run(method: DynamicChannels, amp: str) -> TrainingRun:
    """Return training with the method."""
    return start_run(method.module, recipe(amp), method)


def recipe(amp: str) -> Any:
    """Return a recipe that is long enough for every measurement."""
    source, options = data.open_source("digits"), FinetuneOptions(epochs=1000, amp=amp, limit=512)
    images, _, _ = load_images(source, COLOUR, options, lambda _: None)
    return make_recipe(
        source, images, input=COLOUR, options=dataclasses.replace(options, augment="none"),
        teacher=None, accelerator=make_accelerator(amp),
    )  # fmt: skip


def stepped(run: TrainingRun) -> float:
    """Take a step on random images; return its processor time."""
    generator = torch.Generator().manual_seed(run.step)
    images = torch.randint(256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (BATCH,), generator=generator)
    run.model.train()
    start = time.process_time()
    train_step(run, images, labels)
    run.step += 1
    return time.process_time() - start


def saved_bytes(run: TrainingRun) -> int:
    """Return the memory of what a step keeps for its backward pass, beside weights and buffers."""
    own = {value.untyped_storage().data_ptr()
           for value in (*run.bare.parameters(), *run.bare.buffers())}  # fmt: skip
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        stepped(run)
    return sum(kept.values())


def frozen_seconds(run: TrainingRun, method: DynamicChannels, turns: int) -> float:
    """Return the processor time of a step after the freeze."""
    method.options = dataclasses.replace(method.options, search=run.taken / run.steps)
    while not method.frozen:
        stepped(run)
    return median(stepped(run) for _ in range(turns))


GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Variables that let the C library give freed tensors back at once."""


def in_process(name: str, kind: str, amp: str, environment: dict[str, str]) -> int:
    """Return the growth of memory in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, kind, "--amp", amp]
    ended = subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **environment}
    )
    return int(json.loads(ended.stdout))


def peak_growth(name: str, kind: str, *, amp: str) -> int:
    """Return by how many bytes this process grows at most, from before a run over two steps."""
    network, method = made(name)
    stepped(start_run(nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten()), recipe(amp)))
    watch = Watch()  # what a first step of anything takes is there
    run = dense_run(network, amp) if kind == "dense" else method_run(method, amp)
    for _ in range(2):
        stepped(run)
    return watch.stop()


class Watch:
    """Looks at the memory of this process every two milliseconds."""

    def __init__(self) -> None:
        self.start, self.most, self.ends = resident(), 0, False
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while not self.ends:
            self.most = max(self.most, resident())
            time.sleep(0.002)

    def stop(self) -> int:
        """Return the growth."""
        self.ends = True
        self.thread.join()
        return self.most - self.start


def resident() -> int:
    """Return the memory of this process in bytes, without files that are mapped into it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 2**10


def write(row: dict[str, str]) -> None:
    """Put a row into the table, in the place of an older one."""
    rows = []
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    rows = [old for old in rows if [old[name] for name in FIELDS[:3]] !=
            [row[name] for name in FIELDS[:3]]]  # fmt: skip
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*rows, row])


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
