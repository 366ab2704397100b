"""How latency in ONNX Runtime on the CPU depends on the number that channel counts are aligned to.

    python tests/benchmarks/alignment.py [--networks cifar_resnet20,resnet18] [--seeds 2]

Two experiments go into `alignment.csv`, and a table is printed:

- *layers*: a chain of equal convolutions, for every width: where the steps are;
- *networks*: random widths that are multiples of 1, 2, 4, 8 or 16 and together keep half of the
  FLOPs; and two rules that look at the dense width. All versions of a network take turns.

With one thread the thread's CPU time is taken (median), so that other work on the machine does not
count; with two threads the wall clock (10th percentile, the least disturbed rounds).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from prunecli.architectures.reference import InputSpec
from prunecli.exporting import to_onnx
from prunecli.exporting.onnx.runtime import open_session

RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = ("experiment", "network", "align", "seed", "threads", "batch", "kept", "dense_ms", "ms")
TARGET = 0.5
Widths = Sequence[int]


@dataclass(frozen=True)
class Design:
    """A network as a function of its free widths; `dense` are those of the published network."""

    build: Callable[[Widths], nn.Module]
    dense: tuple[int, ...]
    size: int


def stepwise(from_width: int) -> Callable[[int], int]:
    """Return the rule: 16 for dense widths from `from_width`, 8 from 16, 4 below."""
    return lambda width: 16 if width >= from_width else 8 if width >= 16 else 4


RULES: Mapping[str, Callable[[int], int]] = {
    **{str(step): (lambda _, step=step: step) for step in (1, 2, 4, 8, 16)},
    "16 from 32": stepwise(32),
    "16 from 64": stepwise(64),
}


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[Any]:
    """Return a convolution with batch norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """A basic block with a free inner width; its shortcut is padded, or projected."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, *, padded: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv(inputs, inner, 3, stride=stride), nn.ReLU(), *conv(inner, outputs, 3)
        )
        self.stride = stride if padded else 1
        self.missing = outputs - inputs if padded else 0
        same = padded or (stride == 1 and inputs == outputs)
        self.shortcut = nn.Sequential(*([] if same else conv(inputs, outputs, 1, stride=stride)))

    def forward(self, x: Tensor) -> Tensor:
        short = self.shortcut(x)[:, :, :: self.stride, :: self.stride]
        left = self.missing // 2
        short = functional.pad(short, (0, 0, 0, 0, left, self.missing - left))
        return functional.relu(self.body(x) + short)


class Inverted(nn.Module):
    """The inverted residual block of MobileNetV2 with a free hidden width."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        expand = [] if hidden == inputs else [*conv(inputs, hidden, 1), nn.ReLU6()]
        depthwise = [*conv(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU6()]
        self.body = nn.Sequential(*expand, *depthwise, *conv(hidden, outputs, 1))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def head(inputs: int, classes: int) -> list[nn.Module]:
    """Return pooling and the classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]


def residual_network(stages: Widths, blocks: int, *, small: bool) -> Design:
    """Return a residual network of basic blocks: the CIFAR kind if `small`, else ImageNet's."""

    def build(widths: Widths) -> nn.Module:
        streams = sorted(widths[: len(stages)]) if small else widths[: len(stages)]
        inner = iter(widths[len(stages) :])
        current = streams[0]
        layers = [*conv(3, current, 3 if small else 7, stride=1 if small else 2), nn.ReLU()]
        layers += [] if small else [nn.MaxPool2d(3, 2, 1)]
        for stage, outputs in enumerate(streams):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Residual(current, next(inner), outputs, stride, padded=small))
                current = outputs
        return nn.Sequential(*layers, *head(current, 10 if small else 1000))

    dense = (*stages, *(width for width in stages for _ in range(blocks)))
    return Design(build, dense, 32 if small else 224)


# Expansion, channels, repeats, stride: table 2 of the MobileNetV2 paper.
MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2() -> Design:
    """Return MobileNetV2 with free streams and free hidden widths."""
    streams = [32, *(channels for _, channels, _, _ in MOBILE_STAGES), 1280]
    hidden = []
    current = 32
    for expansion, channels, repeats, _ in MOBILE_STAGES:
        for _ in range(repeats):
            hidden += [current * expansion] if expansion > 1 else []
            current = channels

    def build(widths: Widths) -> nn.Module:
        inner = iter(widths[len(streams) :])
        current = widths[0]
        layers = [*conv(3, current, 3, stride=2), nn.ReLU6()]
        for position, (expansion, _, repeats, stride) in enumerate(MOBILE_STAGES, start=1):
            for block in range(repeats):
                wide = next(inner) if expansion > 1 else current
                step = 1 if block else stride
                layers.append(Inverted(current, wide, widths[position], step))
                current = widths[position]
        last = widths[len(streams) - 1]
        return nn.Sequential(*layers, *conv(current, last, 1), nn.ReLU6(), *head(last, 1000))

    return Design(build, (*streams, *hidden), 224)


NETWORKS: Mapping[str, Design] = {
    "cifar_resnet20": residual_network((16, 32, 64), 3, small=True),
    "resnet18": residual_network((64, 128, 256, 512), 2, small=False),
    "mobilenet_v2": mobilenet_v2(),
}


def chain(kernel: int, width: int, *, depthwise: bool, size: int) -> nn.Module:
    """Return six equal convolutions behind one that widens the image."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 1), nn.ReLU()]
    for _ in range(6):
        groups = width if depthwise else 1
        layers += [nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(size))


LAYERS: Mapping[str, tuple[Callable[[int], nn.Module], int, Widths]] = {
    "conv 3x3 at 32x32": (lambda w: chain(3, w, depthwise=False, size=32), 32, range(4, 34)),
    "conv 1x1 at 32x32": (lambda w: chain(1, w, depthwise=False, size=32), 32, range(4, 34)),
    "depthwise 3x3 at 32x32": (lambda w: chain(3, w, depthwise=True, size=32), 32, range(4, 34)),
    "conv 3x3 at 14x14": (lambda w: chain(3, w, depthwise=False, size=14), 14, range(96, 130, 2)),
}


def flops(design: Design, widths: Widths) -> int:
    """Return the multiply-adds of a network for one image."""
    with torch.device("meta"), torch.no_grad():
        model = design.build(widths).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, design.size, design.size))
    return counter.get_total_flops() // 2


def draw_widths(
    design: Design, rule: Callable[[int], int], *, seed: int
) -> tuple[tuple[int, ...], float]:
    """Return random aligned widths that keep `TARGET` of the FLOPs or just less, and the share."""
    generator = np.random.default_rng(seed)
    jitter = np.exp(generator.normal(0, 0.25, len(design.dense)))
    steps = [rule(width) for width in design.dense]
    full = flops(design, design.dense)

    def scaled(scale: float) -> tuple[int, ...]:
        return tuple(
            int(min(width, max(step, width * scale * factor // step * step)))
            for width, factor, step in zip(design.dense, jitter, steps, strict=True)
        )

    low, high = 0.2, 1.5
    for _ in range(14):
        middle = (low + high) / 2
        fits = flops(design, scaled(middle)) <= TARGET * full
        low, high = (middle, high) if fits else (low, middle)
    widths = list(scaled(low))
    for group in generator.permutation(len(widths)):
        wider = [*widths]
        wider[group] += steps[group]
        if wider[group] <= design.dense[group] and flops(design, wider) <= TARGET * full:
            widths = wider
    return tuple(widths), flops(design, widths) / full


def export(model: nn.Module, path: Path, *, size: int) -> Path:
    """Write the network as ONNX and return where."""
    spec = InputSpec(3, size, size, (0.5,) * 3, (0.5,) * 3)
    return to_onnx(model.eval(), path, input=spec).path


def time_all(
    files: Mapping[Any, Path], *, size: int, threads: int, batch: int, rounds: int
) -> dict[Any, float]:
    """Return milliseconds per file, all files taking turns in every round."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    rank = 50 if threads == 1 else 10
    sessions = {key: open_session(path, threads=threads) for key, path in files.items()}
    generator = np.random.default_rng(0)
    values = generator.standard_normal((batch, 3, size, size)).astype(np.float32)
    times: dict[Any, list[float]] = {key: [] for key in files}
    for count in range(rounds + 2):
        for key, session in sessions.items():
            begin = clock()
            session.run(None, {"input": values})
            if count >= 2:
                times[key].append(clock() - begin)
    return {key: float(np.percentile(values, rank)) * 1e3 for key, values in times.items()}


def measure_network(name: str, *, seeds: int, rounds: int) -> list[tuple[Any, ...]]:
    """Return the CSV rows of one network: every rule, seed, thread count and batch."""
    design = NETWORKS[name]
    kept: dict[tuple[str, int], float] = {("dense", 0): 1.0}
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "dense.onnx"
        files = {("dense", 0): export(design.build(design.dense), dense, size=design.size)}
        for align, rule in RULES.items():
            for seed in range(seeds):
                widths, kept[align, seed] = draw_widths(design, rule, seed=seed)
                path = Path(folder) / f"{align}-{seed}.onnx"
                files[align, seed] = export(design.build(widths), path, size=design.size)
        for threads in (1, 2):
            for batch in (1, 8):
                count = max(6, rounds // batch)
                took = time_all(files, size=design.size, threads=threads, batch=batch, rounds=count)
                rows += [
                    ("network", name, *key, threads, batch, kept[key], took["dense", 0], value)
                    for key, value in took.items()
                ]
    return rows


def measure_layer(name: str, *, rounds: int) -> list[tuple[Any, ...]]:
    """Return the CSV rows of one kind of layer; the width stands in the column `align`."""
    build, size, widths = LAYERS[name]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            width: export(build(width), Path(folder) / f"{width}.onnx", size=size)
            for width in widths
        }
        took = time_all(files, size=size, threads=1, batch=1, rounds=rounds)
    return [("layer", name, width, 0, 1, 1, 1.0, "", value) for width, value in took.items()]


def write_rows(rows: list[tuple[Any, ...]]) -> None:
    """Write the rows, in place of earlier ones of the same networks."""
    fresh = {str(row[1]) for row in rows}
    kept = []
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.reader(file) if row[1] not in {*fresh, "network"}]
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(kept)
        writer.writerows(
            [f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows
        )


def print_rows(rows: list[tuple[Any, ...]]) -> None:
    """Print speed-ups over dense, mean and least over the seeds, or a layer's milliseconds."""
    if rows[0][0] == "layer":
        print(rows[0][1], *(f"{row[2]}:{row[-1]:.3f}" for row in rows), flush=True)
        return
    print(f"\n{rows[0][1]}: speed-up over dense at half the FLOPs, mean (least) of the seeds")
    for threads, batch in sorted({(row[4], row[5]) for row in rows}):
        cells = []
        for align in RULES:
            ratios = [r[7] / r[8] for r in rows if (r[2], r[4], r[5]) == (align, threads, batch)]
            cells.append(f"{align}: {np.mean(ratios):.2f} ({min(ratios):.2f})")
        print(f"threads {threads} batch {batch}  " + "  ".join(cells), flush=True)


def main() -> None:
    """Measure what the command line names and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=24)
    options = parser.parse_args()
    for name in filter(None, options.layers.split(",")):
        rows = measure_layer(name, rounds=options.rounds)
        print_rows(rows)
        write_rows(rows)
    for name in filter(None, options.networks.split(",")):
        rows = measure_network(name, seeds=options.seeds, rounds=options.rounds)
        print_rows(rows)
        write_rows(rows)


if __name__ == "__main__":
    main()
