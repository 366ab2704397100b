"""A small vision transformer and a DenseNet through trained gates: proven, exported, checked.

    python tests/benchmarks/learned_networks.py --data DIR [--networks ViT] [--images 6000]

Each network is trained on CIFAR images for some epochs, then pruned to half of its FLOPs with
`--method gates` and `--method exact-gates` in as many epochs more, with itself as the teacher;
beside it stands the dense network trained equally long. Accuracy is that of test images. Rows go to
`learned_networks.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
import torchvision

import prunecli
from prunecli import exporting
from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate

if TYPE_CHECKING:
    from torch import nn

    from prunecli.data import ImageSet
    from prunecli.pruning.road import PruneResult

TABLE = Path(__file__).with_suffix(".csv")
INPUT = InputSpec(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FIELDS = (
    "network", "method", "epochs", "images", "kept_flops", "kept_params", "gates", "groups_ungated",
    "proof", "accuracy", "onnx_parity",
)  # fmt: skip


def transformer() -> nn.Module:
    """Return a vision transformer of four blocks on patches of 4 x 4 pixels."""
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=4,
        embed_dim=96,
        depth=4,
        num_heads=4,
        num_classes=10,
    )


def densenet() -> nn.Module:
    """Return a DenseNet of three dense blocks."""
    return torchvision.models.DenseNet(12, (4, 4, 4), 24, num_classes=10)


NETWORKS = {"ViT": transformer, "DenseNet": densenet}
RECIPES = {"ViT": {"optimizer": "adamw", "lr": 1e-3}, "DenseNet": {"optimizer": "sgd", "lr": 0.1}}


def main() -> None:
    """Train, prune and export both networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=sorted(NETWORKS))
    parser.add_argument("--test-images", type=int, default=0, help="to score on; 0 for all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source, limit = open_source(arguments.data), arguments.test_images or None
    test = load_split(source, "test", input=INPUT, limit=limit, seed=0)
    settings = {"epochs": arguments.epochs, "limit": arguments.images, "batch_size": 64}
    new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        for name in arguments.networks:
            make = NETWORKS[name]
            torch.manual_seed(0)
            recipe = {**settings, **RECIPES[name]}
            dense = prunecli.finetune(make(), arguments.data, input=INPUT, **recipe).model
            longer = prunecli.finetune(
                dense, arguments.data, input=INPUT, teacher=dense, **recipe
            ).model
            score = evaluate(longer, test, input=INPUT).accuracy
            row = (name, "dense", arguments.epochs, arguments.images, 1.0, 1.0, 0, 0, "", score, "")
            writer.writerow(row)
            print(*row, flush=True)
            for method in ("gates", "exact-gates"):
                found = prunecli.prune(
                    dense, torch.randn(2, 3, 32, 32), flops=0.5, method=method, teacher=dense,
                    data=arguments.data, input=INPUT, **recipe,
                )  # fmt: skip
                row = (name, method, arguments.epochs, arguments.images, *described(found, test))
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def described(found: PruneResult, test: ImageSet) -> tuple[object, ...]:
    """Return what the report says, the accuracy on test images, and the parity of the export."""
    report, model = found.report, found.model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.onnx"
        exporting.to_onnx(model, path, input=INPUT)
        parity = exporting.check_parity(model, path, input=INPUT).max_rel_error
    return (
        round(report.cost.kept["flops"], 4),
        round(report.cost.kept["params"], 4),
        report.learning.gates,
        len(report.learning.ungated),
        f"{report.verified.max_rel_error:.1e}",
        round(evaluate(model, test, input=INPUT).accuracy, 4),
        f"{parity:.1e}",
    )


if __name__ == "__main__":
    main()
