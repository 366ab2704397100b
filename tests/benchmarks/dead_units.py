"""A small network for MNIST cut to a fifth of its size by units, with and without bias propagation.

    python tests/benchmarks/dead_units.py --data FOLDER [--seeds 0 1 2]

After Evci 2018 (arXiv 1806.06068), whose details are not all known: train, then a few times score
the units, remove some, and fine-tune. FOLDER holds the 10,000 test images of MNIST as published
(`t10k-images-idx3-ubyte.gz`, `t10k-labels-idx1-ubyte.gz`): the first 7,000 are trained on, 1,000
choose the best epoch of every training, the last 2,000 are reported. Units go by one threshold on
the saliency of all layers, each layer's scaled to L2 norm 1. Every way of removing trains for the
same epochs; `small` is the network of the final size from random weights and `dense, as long` the
whole one, both trained for all of them. Adds to `dead_units.csv` beside this script.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.allocation import keep_mask
from prunecli.budget import Budget, Limit
from prunecli.cutting.surgery import cut_module, slices_of
from prunecli.data.formats.idx import read_idx
from prunecli.dead.activations import look
from prunecli.dead.compensate import compensated, move, settle
from prunecli.dead.readers import uses_of
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_network
from prunecli.pruning.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "seed", "method", "propagated", "conv1", "conv2", "fc1", "params", "held_out", "after_cut",
    "accuracy", "seconds",
)  # fmt: skip
TIMES = 5
ROUNDS, BETWEEN, LAST, DENSE = 5, 3, 24, 10
"""Removals, epochs after each but the last, epochs after the last, and epochs before the first.

Of 1 and 3 epochs between, 3 were better on the held-out images.
"""

WHOLE = DENSE + (ROUNDS - 1) * BETWEEN + LAST


@dataclass(frozen=True)
class Method:
    """How units are chosen, and whether their means go into the biases of what reads them."""

    name: str
    signal: str
    propagated: bool


METHODS = (
    Method("mean replacement", "activation/mean-replacement/abs-sum/l2", propagated=True),
    Method("mean replacement", "activation/mean-replacement/abs-sum/l2", propagated=False),
    Method("magnitude", "weight/value/l2/l2", propagated=False),
    Method("random", "random", propagated=False),
)


class Net(nn.Module):
    """The network of the thesis' own code: two convolutions with pools, two linear layers."""

    def __init__(self, conv1: int = 8, conv2: int = 16, fc1: int = 64) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, conv1, 5), nn.Conv2d(conv1, conv2, 5)
        self.fc1, self.fc2 = nn.Linear(16 * conv2, fc1), nn.Linear(fc1, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


@dataclass(frozen=True)
class Split:
    """Normalised images `[n, 1, 28, 28]` with labels `[n]`."""

    images: Tensor
    labels: Tensor

    def batches(self, size: int = 250) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images in order."""
        yield from zip(self.images.split(size), self.labels.split(size), strict=True)


def main() -> None:
    """Measure every method for every seed; each row is written as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = read(arguments.data)
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(FIELDS)
        for seed in arguments.seeds:
            for row in measure(seed, splits):
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def read(folder: Path) -> dict[str, Split]:
    """Return the images to train on, to choose on, and to report on."""
    pixels = torch.as_tensor(read_idx(folder / "t10k-images-idx3-ubyte.gz").copy())
    labels = torch.as_tensor(read_idx(folder / "t10k-labels-idx1-ubyte.gz").copy()).long()
    images = (pixels[:, None].float() / 255 - 0.1307) / 0.3081
    places = {"train": slice(0, 7000), "held_out": slice(7000, 8000), "test": slice(8000, 10000)}
    return {name: Split(images[place], labels[place]) for name, place in places.items()}


def measure(seed: int, splits: dict[str, Split]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one seed."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    dense = train(Net(), splits, epochs=DENSE, seed=seed)
    size = params(dense)
    yield row(seed, "dense", "", dense, splits=splits, start=start)
    torch.manual_seed(seed)
    start = time.perf_counter()
    longer = train(Net(), splits, epochs=WHOLE, seed=seed)
    yield row(seed, "dense, as long", "", longer, splits=splits, start=start)
    for method in METHODS:
        start = time.perf_counter()
        slim, cut = copy.deepcopy(dense), 0.0
        for step in range(1, ROUNDS + 1):
            ceiling = size * TIMES ** (-step / ROUNDS)
            slim = remove(slim, method, ceiling, splits["train"], seed=seed)
            cut = accuracy(slim, splits["test"])
            epochs = LAST if step == ROUNDS else BETWEEN
            slim = train(slim, splits, epochs=epochs, seed=100 * seed + step)
        propagated = "yes" if method.propagated else "no"
        yield row(seed, method.name, propagated, slim, splits=splits, start=start, cut=cut)
        if method == METHODS[0]:
            small = Net(slim.conv1.out_channels, slim.conv2.out_channels, slim.fc1.out_features)
            start = time.perf_counter()
            small = train(small, splits, epochs=WHOLE, seed=seed)
            yield row(seed, "small from the start", "", small, splits=splits, start=start)


def remove(model: nn.Module, method: Method, ceiling: float, train: Split, *, seed: int) -> Net:
    """Return the network with its least salient units cut, until it has `ceiling` parameters."""
    some = Split(train.images[:1000], train.labels[:1000])
    network = read_network(model, [some.images[:2]])
    options = PruneOptions(signal=method.signal, allocation="global", align=1, seed=seed)
    budget = Budget((Limit("params", absolute=ceiling),))
    saliency = score_network(network, options, batches=some.batches)
    widths = select(network, saliency, budget, options, held={}).widths
    keep = keep_mask(network.coupling.groups, saliency, widths)
    if method.propagated:
        seen = look(network, ([images] for images, _ in some.batches()))
        uses = uses_of(network, seen)
        settled = settle(network, uses, ~keep, accepted=~keep)
        network = compensated(network, settled.gone, move(network, uses, settled))
    slim = cut_module(network.model, slices_of(network.coupling, keep))
    assert isinstance(slim, Net)
    return slim


def train(model: Net, splits: dict[str, Split], *, epochs: int, seed: int) -> Net:
    """Train in place; return the network of the epoch that is best on the held-out images."""
    data, generator = splits["train"], torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = -(-len(data.labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * steps)
    best, state = -1.0, model.state_dict()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.labels), generator=generator).split(64):
            loss = functional.cross_entropy(model(data.images[batch]), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found = accuracy(model, splits["held_out"])
        if found >= best:
            best, state = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return model


def accuracy(model: nn.Module, split: Split) -> float:
    """Return the share of images that are classified rightly."""
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in split.batches())
    return right / len(split.labels)


def params(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(value.numel() for value in model.parameters())


def row(
    seed: int,
    method: str,
    propagated: str,
    model: Net,
    *,
    splits: dict[str, Split],
    start: float,
    cut: float | None = None,
) -> tuple[object, ...]:
    """Return one row of the table."""
    score = partial(accuracy, model)
    return (
        seed, method, propagated, model.conv1.out_channels, model.conv2.out_channels,
        model.fc1.out_features, params(model), f"{score(splits['held_out']):.4f}",
        "" if cut is None else f"{cut:.4f}", f"{score(splits['test']):.4f}",
        f"{time.perf_counter() - start:.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
