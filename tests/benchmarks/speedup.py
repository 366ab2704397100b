"""How much of a cut in FLOPs becomes time: seven networks at half the FLOPs, beside Torch-Pruning.

    pip install --no-deps torch-pruning==1.6.1
    python tests/benchmarks/speedup.py [NAME ...] [--again]

Random weights: speed does not depend on them. *prunecli* is `prune --flops 0.5` with its defaults;
Torch-Pruning (magnitude, the same share of every layer) is plain and rounded to 8, 16 and 32. It
aims at half the FLOPs and keeps what the column `kept` says. All versions of a network take turns
in ONNX Runtime on one thread; `ms` is the median of the thread's processor time, which other
programs do not lengthen. The realised share is the speed-up times the share of the FLOPs that is
kept: 1 is half the FLOPs in half the time. Rows go to `speedup.csv` network by network, and one
that is there is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
import torchvision
from torch import nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.cost.flops import count_flops
from prunecli.exporting import to_onnx
from prunecli.exporting.timing.benchmark import Contestant, Setting, find_cpu

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = ("network", "version", "batch", "kept", "ms", "dense_ms", "speedup", "share", "rounds")
SPEC = InputSpec(3, 224, 224, (0.5,) * 3, (0.5,) * 3)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "resnet18": torchvision.models.resnet18,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "resnet50": torchvision.models.resnet50,
    "densenet121": torchvision.models.densenet121,
    "vit_small": lambda: timm.create_model("vit_small_patch16_224"),
    "vgg16_bn": torchvision.models.vgg16_bn,
}
ROUNDING = (None, 8, 16, 32)
HALF = 1 - 0.5**0.5
"""What Torch-Pruning removes of every layer: half of the products of two widths are left."""

BATCHES = (1, 8)
LEAST, ROUNDS, SECONDS = 9, 60, 60.0


def main() -> None:
    """Measure the networks that the command line names and the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--again", action="store_true", help="replace rows that are there")
    parser.add_argument("--ours", action="store_true", help="leave Torch-Pruning out")
    arguments = parser.parse_args()
    for name in arguments.names:
        if arguments.again or not any(row["network"] == name for row in known()):
            rows = measured(name, peer=not arguments.ours)
            for row in rows:
                print(*row.values(), flush=True)
            if not arguments.ours:
                write([row for row in known() if row["network"] != name] + rows)


def measured(name: str, *, peer: bool = True) -> list[dict[str, Any]]:
    """Return the rows of one network: every version at every batch size."""
    model = randomize_(NETWORKS[name](), seed=0).eval()
    example = torch.randn(1, 3, 224, 224)
    versions: dict[str, nn.Module] = {"dense": model}
    versions["prunecli"] = prunecli.prune(model, example, flops=0.5).model
    for rounding in ROUNDING if peer else ():
        label = "Torch-Pruning" + (f" {rounding}" if rounding else "")
        try:
            versions[label] = other(copy.deepcopy(model), example, rounding)
        except Exception as error:
            print(f"{name}: {label} fails: {type(error).__name__}: {error}", flush=True)
    flops = {label: count_flops(each, (example,)) for label, each in versions.items()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for at, (label, each) in enumerate(versions.items()):
            paths[label] = to_onnx(each, Path(folder) / f"{at}.onnx", input=SPEC).path
        del versions, model
        for batch in BATCHES:
            runners = [
                find_cpu(()).prepare(Contestant(path), Setting(SPEC, batch, 1, 0))
                for path in paths.values()
            ]
            times = np.asarray(timed(runners))
            for label, middle in zip(paths, np.median(times, axis=0), strict=True):
                kept, dense = flops[label] / flops["dense"], float(np.median(times[:, 0]))
                rows.append(
                    {
                        "network": name,
                        "version": label,
                        "batch": batch,
                        "kept": f"{kept:.4f}",
                        "ms": f"{middle * 1e3:.3f}",
                        "dense_ms": f"{dense * 1e3:.3f}",
                        "speedup": f"{dense / middle:.3f}",
                        "share": f"{dense / middle * kept:.3f}",
                        "rounds": len(times),
                    }
                )
            del runners
    return rows


def other(model: nn.Module, example: torch.Tensor, rounding: int | None) -> nn.Module:
    """Return the network as Torch-Pruning cuts it, by the example of its manual."""
    import torch_pruning

    attention = [each for each in model.modules() if hasattr(each, "qkv")]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=HALF,
        round_to=rounding,
        ignored_layers=[last_layer(model)],
        num_heads={each.qkv: each.num_heads for each in attention},
        prune_head_dims=True,
    )
    pruner.step()
    for each in attention:
        each.num_heads = pruner.num_heads[each.qkv]
        each.head_dim = each.qkv.out_features // (3 * each.num_heads)
        each.attn_dim = each.head_dim * each.num_heads
        each.scale = each.head_dim**-0.5
    with torch.inference_mode():
        model(example)
    return model.eval()


def last_layer(model: nn.Module) -> nn.Module:
    """Return the classifier."""
    return [each for each in model.modules() if isinstance(each, nn.Linear)][-1]


def timed(runners: list[Any]) -> list[list[float]]:
    """Return the processor seconds of this thread `[rounds, runners]`, each run in turn."""
    for runner in runners:
        runner()
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < LEAST or (len(rounds) < ROUNDS and time.perf_counter() - begin < SECONDS):
        row = []
        for runner in runners:
            start = time.thread_time()
            runner()
            row.append(time.thread_time() - start)
        rounds.append(row)
    return rounds


def known() -> list[dict[str, Any]]:
    """Return the rows that the table has."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table whole."""
    partial = TABLE.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, TABLE)  # noqa: PTH105 - atomic


if __name__ == "__main__":
    main()
