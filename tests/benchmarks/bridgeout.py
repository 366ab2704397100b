"""How far a network can be pruned without retraining, by the regulariser that it was trained with.

    python tests/benchmarks/bridgeout.py --data DIR [--seeds 0 1 2] [--regularizers bridgeout ...]

A small VGG with batch norm is trained from scratch, with Batch Bridgeout, with dropout, or with
weight decay alone. Then the filters with the smallest L2 norm are zeroed in every convolution, bias
and batch norm included, and the network is scored on test images right away: the protocol of Khan,
Stavness 2020, arXiv 2009.10893. The best epoch is that on held-out training images (theirs is that
on test images). Rows that `bridgeout.csv` has are not measured again.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path

import torch
from resumed import Rows
from torch import nn

from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions
from prunecli.training import finetune

TABLE = Path(__file__).with_suffix(".csv")
WIDTHS = (32, 32, 64, 64, 128, 128)
"""Channels of the convolutions. The first has stride 2, 2x2 max pooling follows every other one."""

FRACTIONS = tuple(tenth / 10 for tenth in range(8))
SETTING = ("regularizer", "p", "q", "target_fraction", "weight_decay", "lr", "epochs", "images",
           "side", "seed")  # fmt: skip
FIELDS = (*SETTING, "seconds", *(f"{fraction:g}" for fraction in FRACTIONS))
RESULTS = Rows(TABLE, FIELDS, len(SETTING))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure what the table lacks, one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--regularizers", nargs="+", default=["bridgeout", "none", "dropout"])
    parser.add_argument("--p", type=float, default=0.3)
    parser.add_argument("--q", type=float, default=1.5)
    parser.add_argument("--target-fraction", type=float, default=0.75)
    parser.add_argument("--weight-decay", type=float, default=0.0125)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--images", type=int, default=6_000)
    parser.add_argument("--side", type=int, default=16, help="pixels that images are scaled to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for name in arguments.regularizers:
            options = options_of(arguments, name, seed)
            setting = row_of(options, arguments.side)
            if setting not in RESULTS.done():
                start = time.process_time()
                found = accuracies(options, arguments.data, side=arguments.side)
                seconds = f"{time.process_time() - start:.0f}"
                RESULTS.append((*setting, seconds, *(f"{accuracy:.4f}" for accuracy in found)))


def options_of(arguments: argparse.Namespace, name: str, seed: int) -> FinetuneOptions:
    """Return how one network is trained; what its regulariser has no use for is as ever."""
    noise = {"p": arguments.p}
    if name.startswith("bridgeout"):
        noise |= {"q": arguments.q, "target_fraction": arguments.target_fraction}
    return FinetuneOptions(
        regularizer=None if name == "none" else name,
        epochs=arguments.epochs,
        batch_size=64,
        lr=arguments.lr,
        weight_decay=arguments.weight_decay,
        limit=arguments.images,
        seed=seed,
        **({} if name == "none" else noise),
    )


def row_of(options: FinetuneOptions, side: int) -> tuple[str, ...]:
    """Return the columns `SETTING` of a row."""
    name = options.regularizer or "none"
    noise = {
        "none": ("", "", ""),
        "dropout": (f"{options.p:g}", "", ""),
    }.get(name, (f"{options.p:g}", f"{options.q:g}", f"{options.target_fraction:g}"))
    return (name, *noise, f"{options.weight_decay:g}", f"{options.lr:g}", str(options.epochs),
            str(options.limit), str(side), str(options.seed))  # fmt: skip


def accuracies(options: FinetuneOptions, data: str, *, side: int) -> list[float]:
    """Return the accuracy on test images for each of `FRACTIONS`, after training from scratch."""
    source, looks = open_source(data), InputSpec(3, side, side, MEAN, STD)
    trained = finetune(vgg(options.seed), source, input=looks, options=options).model
    test = load_split(source, "test", input=looks)
    found = []
    for fraction in FRACTIONS:
        zero_filters_(trained, fraction)  # those of a smaller fraction are among the smallest
        found.append(evaluate(trained, test, input=looks).accuracy)
    return found


def vgg(seed: int, classes: int = 10) -> nn.Sequential:
    """Return the network with fresh weights, drawn as the authors do: 10 million multiply-adds."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs = 3
    for at, width in enumerate(WIDTHS):
        convolution = nn.Conv2d(inputs, width, 3, stride=1 if at else 2, padding=1)
        nn.init.xavier_uniform_(convolution.weight, gain=math.sqrt(2))
        nn.init.zeros_(convolution.bias)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at % 2 and at < 5 else []
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


@torch.no_grad()
def zero_filters_(network: nn.Sequential, fraction: float) -> None:
    """Zero the `int(fraction * filters)` filters with the smallest L2 norm of every convolution."""
    for layer, norm in pairwise(network):
        if isinstance(layer, nn.Conv2d):
            count = int(fraction * layer.out_channels + 1e-9)
            smallest = layer.weight.flatten(1).norm(dim=1).argsort()[:count]
            for tensor in (layer.weight, layer.bias, norm.weight, norm.bias):
                tensor[smallest] = 0.0


if __name__ == "__main__":
    main()
