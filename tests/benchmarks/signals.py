"""Time all first-order signals together against a plain forward and backward on the same images.

Usage: python tests/benchmarks/signals.py [--images 256] [--repeats 3] [--model resnet20|resnet18]
Prints one line per set of signals: seconds, the ratio to the plain pass, and peak memory. The plain
pass computes the gradients of all weights, as training does. Runs are interleaved.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import TYPE_CHECKING

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.network.traced import Network, read_network
from prunecli.signals import METRICS, distinct_grid, score_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

BATCH = 64
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: cifar_resnet(depth=20), 32),
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), 128),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(weights=None), 128),
}


def batches(images: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random images with labels, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    for at in range(0, images, BATCH):
        count = min(BATCH, images - at)
        yield (
            torch.randn(count, 3, size, size, generator=generator),
            torch.randint(10, (count,), generator=generator),
        )


def plain(network: Network, images: int, size: int) -> None:
    """Run forward and backward as training does, with batch norm in evaluation mode."""
    network.model.eval()
    for x, labels in batches(images, size):
        loss = functional.cross_entropy(network.model(x), labels)
        torch.autograd.grad(loss, list(network.model.parameters()))


def sets() -> dict[str, list[str]]:
    """Return the sets of signals that are timed."""
    needs = {entry.name: entry.value.needs_curvature for entry in METRICS}
    first = [str(signal) for signal in distinct_grid() if not needs[signal.pointwise_metric]]
    activation = [name for name in first if name.startswith("activation")]
    return {
        "taylor alone": ["taylor"],
        f"first order, activations ({len(activation)})": activation,
        f"first order, all ({len(first)})": first,
        "all 396": [str(signal) for signal in distinct_grid()],
    }


def timed(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one run, which other load on the machine hardly changes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    arguments = parser.parse_args()
    make, size = MODELS[arguments.model]
    torch.manual_seed(0)
    network = read_network(make().eval(), [torch.zeros(1, 3, size, size)])
    removed = network.weights_removed()

    def score(names: list[str]) -> dict[str, np.ndarray]:
        return score_many(
            names,
            network.trace,
            network.coupling,
            network.tensors,
            weights_removed=removed,
            batches=lambda: batches(arguments.images, size),
        )

    runs: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(network, arguments.images, size),
        **{label: lambda names=names: score(names) for label, names in sets().items()},
    }
    seconds: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(arguments.repeats):
        for label, run in runs.items():
            seconds[label].append(timed(run))
    base = statistics.median(seconds["plain"])
    for label, found in seconds.items():
        middle = statistics.median(found)
        print(f"{label:40} {middle:7.2f} s  {middle / base:5.2f} x plain")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, {arguments.images} images, {arguments.model}")


if __name__ == "__main__":
    main()
