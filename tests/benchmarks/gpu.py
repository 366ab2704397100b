"""One run on a CUDA device, of at most eight minutes, for all that was never seen on one.

    python tests/benchmarks/gpu.py            # writes gpu.csv; exit code 6 without a CUDA device
    python tests/benchmarks/gpu.py --cpu      # tries what a CPU can do, small; writes nothing

The parts, in turn: the tests that need CUDA; a training step of a ResNet-50 bare and as `finetune`
trains it (bfloat16, channels last, `--compile`); exact neighbours beside those of the CPU; 2:4
kernels beside dense ones; dense and pruned ResNet-50 in float16 at batch 1 and 256, with their peak
memory. A part that fails, or for which no time is left, is a row that says so.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import prunecli
from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.architectures.reference import InputSpec
from prunecli.complexity.neighbours import nearest_neighbours
from prunecli.sparse.semi_structured import to_semi_structured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".csv")
SECONDS = 480.0
NOT_THERE = 6
"""The exit code of a device that is not there, as that of the command."""

FIELDS = ("part", "case", "value", "unit", "note", "device", "torch")
Row = tuple[str, float | str, str, str]
"""A case, its value, the unit, and a note."""


@dataclass(frozen=True)
class Place:
    """Where it runs, and how large: `small` is for trying it on a CPU."""

    device: torch.device
    small: bool

    @property
    def is_cuda(self) -> bool:
        """Whether there are kernels to wait for, and memory to count."""
        return self.device.type == "cuda"

    def seconds(self, once: Callable[[], Any], *, rounds: int) -> float:
        """Return the median time of a call, which is waited for."""
        for _ in range(2 if self.small else 10):
            once()
        times = []
        for _ in range(3 if self.small else rounds):
            self.wait()
            begin = time.perf_counter()
            once()
            self.wait()
            times.append(time.perf_counter() - begin)
        return median(times)

    def wait(self) -> None:
        """Wait for all kernels."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def peak(self, once: Callable[[], Any]) -> float | None:
        """Return the megabytes that a call takes at the most, with what is there already."""
        if not self.is_cuda:
            return None
        torch.cuda.reset_peak_memory_stats()
        once()
        self.wait()
        return torch.cuda.max_memory_allocated() / 1e6


def resnet(place: Place) -> nn.Module:
    """Return the network of the timings."""
    from torchvision.models import resnet18, resnet50

    torch.manual_seed(0)
    return (resnet18 if place.small else resnet50)(weights=None).eval()


def cuda_tests(place: Place) -> Iterator[Row]:
    """Run the tests that need a CUDA device."""
    if not place.is_cuda:
        return
    files = ["tests/complexity/test_exact.py", "tests/exporting/test_benchmark.py",
             "tests/sparse/test_sparse.py", "tests/training/test_where_and_logged.py"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "cuda or gpu or device", *files],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
    yield "pytest", done.returncode, "exit code", last


def training_step(place: Place) -> Iterator[Row]:
    """Time a bare step in float32, and one as `finetune` makes it."""
    batch, side = (4, 32) if place.small else (128, 224)
    images = torch.randn(batch, 3, side, side, device=place.device)
    labels = torch.randint(1000, (batch,), device=place.device)
    for name, half, compiled in (("bare, fp32", False, False), ("bf16 channels last", True, False),
                                 ("bf16 channels last, compiled", True, True)):  # fmt: skip
        if compiled and place.small:
            continue
        model = resnet(place).to(place.device).train()
        layout = torch.channels_last if half else torch.contiguous_format
        model = model.to(memory_format=layout)
        given = images.to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        run = torch.compile(model) if compiled else model

        def step(run=run, given=given, optimizer=optimizer, half=half) -> None:
            with torch.autocast(place.device.type, torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(run(given), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        seconds = place.seconds(step, rounds=20)
        yield name, batch / seconds, "images/s", f"batch {batch}"
        if (peak := place.peak(step)) is not None:
            yield f"{name}, memory", peak, "MB", f"batch {batch}"


def finetuned(place: Place) -> Iterator[Row]:
    """Train a ResNet-56 on made images by `finetune`, in bfloat16, plain and compiled."""
    count = 200 if place.small else 20_000
    made = np.random.default_rng(0)
    spec = InputSpec(3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        pixels = made.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(data, x=pixels, y=np.arange(count) % 10)
        for compiled in (False, True):
            if compiled and place.small:
                continue
            trained = prunecli.finetune(
                cifar_resnet(depth=20 if place.small else 56), data, input=spec,
                epochs=1 if place.small else 2, amp="bf16", compile=compiled,
                batch_size=64 if place.small else 512, device=str(place.device),
            )  # fmt: skip
            last = trained.epochs[-1]
            name = f"finetune {last.precision}{', compiled' if compiled else ''}"
            yield name, last.images_per_second, "images/s", f"epoch {last.epoch}"


def neighbours(place: Place) -> Iterator[Row]:
    """Find exact neighbours on the device, and compare them with those of the CPU."""
    count, wanted = (400, 50) if place.small else (50_000, 2_000)
    features = np.random.default_rng(0).standard_normal((count, 128)).astype(np.float32)
    queries = np.arange(wanted)
    found = {}
    for device in ("cpu", str(place.device)):
        begin = time.perf_counter()
        found[device] = nearest_neighbours(features, queries, neighbours=10, device=device)
        yield f"{count} x 128, {device}", time.perf_counter() - begin, "s", f"{wanted} queries"
    first, second = found["cpu"], found[str(place.device)]
    same = np.array_equal(first.indices, second.indices)
    yield "the same neighbours as the CPU", float(same), "", ""


def sparse_kernels(place: Place) -> Iterator[Row]:
    """Time linear layers with 2:4 weights, dense and in sparse kernels."""
    if not place.is_cuda:
        return
    width = 4096
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)).eval()
    with torch.no_grad():
        for layer in (dense[0], dense[2]):
            fours = layer.weight.view(-1, 4)
            fours.scatter_(1, fours.abs().topk(2, largest=False).indices, 0.0)
    sparse = to_semi_structured(dense).model
    half = dense.half().to(place.device)
    for batch in (64, 4096):
        given = torch.randn(batch, width, device=place.device, dtype=torch.float16)
        with torch.inference_mode():
            times = [
                place.seconds(lambda model=model, given=given: model(given), rounds=50)
                for model in (half, sparse)
            ]
            expected = half(given)
            error = (sparse(given) - expected).abs().max() / expected.abs().max()
        note = f"speed-up {times[0] / times[1]:.2f}, relative error {float(error):.1e}"
        for name, seconds in zip(("dense", "2:4"), times, strict=True):
            yield f"{name}, batch {batch}", 1e3 * seconds, "ms", note


def pruned(place: Place) -> Iterator[Row]:
    """Time a network and what is left of it at half the FLOPs, in half precision."""
    side = 64 if place.small else 224
    dense = resnet(place)
    slim = prunecli.prune(dense, torch.zeros(1, 3, side, side), flops=0.5).model
    assert slim is not None
    kind = torch.float16 if place.is_cuda else torch.float32
    for batch in (1, 4) if place.small else (1, 256):
        given = torch.randn(batch, 3, side, side, device=place.device, dtype=kind)
        given = given.to(memory_format=torch.channels_last)
        for name, network in (("dense", dense), ("pruned", slim)):
            own = network.to(place.device, kind, memory_format=torch.channels_last)

            def once(own=own, given=given) -> None:
                with torch.inference_mode():
                    own(given)

            seconds = place.seconds(once, rounds=100)
            yield f"{name}, batch {batch}", 1e3 * seconds, "ms", str(kind)
            if (peak := place.peak(once)) is not None:
                yield f"{name}, batch {batch}, memory", peak, "MB", str(kind)


PARTS = (
    pruned, sparse_kernels, neighbours, training_step, finetuned, cuda_tests,
)  # fmt: skip


def main() -> int:
    """Run every part, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true")
    asked = parser.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        print("not run: there is no CUDA device here", file=sys.stderr)
        return NOT_THERE
    place = Place(torch.device("cpu" if asked.cpu else "cuda"), small=asked.cpu)
    name = "cpu" if asked.cpu else torch.cuda.get_device_name()
    rows = measured(place, until=time.monotonic() + SECONDS)
    table = [(*row, name, torch.__version__) for row in rows]
    for row in table:
        print(*row, sep="\t")
    if not asked.cpu:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([FIELDS, *table])
    return int(any(row[3] == "failed" for row in rows))


def measured(place: Place, *, until: float) -> list[tuple[Any, ...]]:
    """Return the rows of all parts for which there is time."""
    rows: list[tuple[Any, ...]] = []
    for part in PARTS:
        if time.monotonic() > until:
            rows.append((part.__name__, "", "", "not run", "out of time"))
            continue
        try:
            rows += [(part.__name__, *row) for row in part(place)]
        except Exception as error:
            rows.append((part.__name__, "", "", "failed", f"{type(error).__name__}: {error}"))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
