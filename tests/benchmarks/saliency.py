"""Fisher pruning with distillation of a saliency network, without any label.

In kind what Theis et al. 2018 (arXiv 1801.05787) do for gaze maps: a fully convolutional network
predicts where people look, as a distribution over places. Here it is taught where the most unusual
colours of an image are, which can be computed; that trained network is the teacher. Channels are
removed by Fisher information of log-likelihoods of places drawn from the teacher's own maps, with
the cost of FLOPs in the allocation, or at random; then the outputs are distilled on plain images.

    python -m tests.benchmarks.saliency IMAGES --images 1500 --epochs 6

writes `saliency.csv`: the agreement of maps with the teacher's on test images (R^2 of the maps, the
correlation of every image, and the divergence of the distributions) after pruning and after
distillation. `--limit N` takes fewer images, for a try.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_images
from prunecli.data.pixels import normalise
from prunecli.errors import PruneError
from prunecli.evaluation.agreement import Agreements
from prunecli.evaluation.output_kinds import kinds_of

SIDE = 32
SPEC = InputSpec(3, SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
WIDTHS = (24, 32, 32, 24)
TABLE = Path(__file__).with_suffix(".csv")


class Saliency(nn.Module):
    """Predicts logits of where people look, [n, places]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        inputs = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU()]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.map = nn.Conv2d(inputs, 1, 5, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, places] for images [n, 3, h, w]."""
        return self.map(self.features(images)).flatten(1)


def unusual(pixels: Tensor) -> Tensor:
    """Return a distribution over places [n, places]: how unusual colours are, smoothed."""
    smooth = functional.avg_pool2d(pixels, 5, stride=1, padding=2)
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    apart = (smooth - mean).square().sum(1).flatten(1)
    return functional.softmax(apart / apart.std(1, keepdim=True), dim=1)


def trained(images: Tensor, epochs: int) -> nn.Module:
    """Return a network that has learned where unusual colours are."""
    model = Saliency()
    steps = epochs * (len(images) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        at = torch.randint(len(images), (32,), generator=generator)
        pixels = normalise(images[at], SPEC)
        loss = functional.kl_div(
            functional.log_softmax(model(pixels), 1), unusual(pixels), reduction="batchmean"
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"teacher {step}/{steps}: {float(loss.detach()):.4f}", flush=True)
    return model.eval()


def looked_at(teacher: nn.Module, images: Tensor):
    """Yield images with a place each, drawn from the teacher's own map: labels for nobody."""
    generator = torch.Generator().manual_seed(0)
    for part in images.split(32):
        pixels = normalise(part, SPEC)
        with torch.no_grad():
            places = functional.softmax(teacher(pixels), 1)
        yield pixels, torch.multinomial(places, 1, generator=generator)[:, 0]


@torch.no_grad()
def figures(model: nn.Module, teacher: nn.Module, images: Tensor) -> dict[str, float]:
    """Return how far maps agree with the teacher's on images."""
    pixels = normalise(images, SPEC)
    own, its = (torch.cat([net(part) for part in pixels.split(64)]) for net in (model, teacher))
    found = Agreements(kinds_of([(len(its), {"map": its.reshape(-1, 1, SIDE, SIDE)})]))
    found.add(*({"map": value.reshape(-1, 1, SIDE, SIDE)} for value in (own, its)))
    centred = [value - value.mean(1, keepdim=True) for value in (own, its)]
    apart = functional.kl_div(
        functional.log_softmax(own, 1), functional.softmax(its, 1), reduction="batchmean"
    )
    return {
        "agreement": found.outputs()[0].agreement,
        "correlation": float(functional.cosine_similarity(*centred).mean()),
        "divergence": float(apart),
    }


def main() -> None:
    """Prune by Fisher information and at random, distil, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--faster", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    source = open_images(given.images)
    train = load_split(source, "train", input=SPEC, limit=given.limit).images
    test = load_split(source, "test", input=SPEC, limit=given.limit // 3).images
    teacher = trained(train, given.epochs)
    rows = []
    with TemporaryDirectory() as folder:
        for factor in given.faster:
            for signal in ("fisher", "random"):
                start = time.process_time()
                kept = prunecli.prune(
                    teacher, normalise(train[:2], SPEC), flops=1 / factor, signal=signal,
                    allocation="greedy", align=1,
                    batches=lambda: looked_at(teacher, train[:256]),
                )  # fmt: skip
                before = figures(kept.model, teacher, test)
                try:
                    result = prunecli.finetune(
                        kept.model, given.images, input=SPEC, teacher=teacher, loss="outputs",
                        epochs=given.epochs, limit=given.limit, optimizer="adamw", lr=3e-3,
                        batch_size=32, augment="none", run_dir=Path(folder) / f"{factor}{signal}",
                    )  # fmt: skip
                except PruneError as error:
                    print(f"{signal} at {factor}: {error}")
                    continue
                after = figures(result.model, teacher, test)
                rows.append(
                    {
                        "fewer_flops": factor,
                        "signal": signal,
                        "kept_flops": round(kept.report.cost.kept["flops"], 4),
                        "agreement_pruned": round(before["agreement"], 4),
                        **{name: round(value, 4) for name, value in after.items()},
                        "seconds": round(time.process_time() - start, 1),
                    }
                )
                print(rows[-1], flush=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
