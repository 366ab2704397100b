"""Prune models of other packages to half of their FLOPs, save and export them, compare all outputs.

    python -m tests.benchmarks.packages [NAME ...]

Random weights, batch-norm statistics randomised; one thread. Takes up again where it was stopped
(`packages.csv` beside this script); a name runs its model anew.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import prunecli
from prunecli.errors import PruneError
from prunecli.graph.tracing.record import tensors_in
from tests.benchmarks.resumed import Rows
from tests.support.onnx_outputs import relative_differences
from tests.support.package_models import MODELS, PackageModel

if TYPE_CHECKING:
    from torch import nn

FIELDS = (
    "model", "package", "parameters", "mode", "kept_flops", "kept_params", "verified", "scope",
    "limits", "trains", "whole_flops", "saved", "outputs", "compared", "error", "prune_s",
    "export_s", "note",
)  # fmt: skip
ROWS = Rows(Path(__file__).with_suffix(".csv"), FIELDS, keys=1)
NAMES = {"segmentation_models_pytorch": "segmentation-models-pytorch"}
BATCHES = (1, 3)


def row_of(name: str, entry: PackageModel) -> dict[str, object]:
    """Return everything about one model."""
    package = NAMES.get(entry.package, entry.package)
    row: dict[str, object] = dict.fromkeys(FIELDS, "")
    row |= {"model": name, "package": f"{package} {version(package)}"}
    model = entry.build()
    row["parameters"] = sum(value.numel() for value in model.parameters())
    start = time.perf_counter()
    try:
        result = prunecli.prune(model, entry.example(), flops=0.5)
    except PruneError as error:
        return row | {"note": f"{error.code}: {error.message}"}
    report = result.report
    whole = sum(item.flops_share for item in report.frozen)
    row |= {
        "prune_s": f"{time.perf_counter() - start:.1f}",
        "mode": report.mode,
        "kept_flops": f"{report.cost.kept['flops']:.3f}",
        "kept_params": f"{report.cost.kept['params']:.3f}",
        "verified": ("structure, " if report.verified.by_structure else "")
        + f"{report.verified.max_rel_error:.1e}",
        "scope": report.verified.scope,
        "limits": "; ".join(report.verified.limits),
        "trains": "yes" if trains(result.model, entry) else "no",
        "whole_flops": f"{whole:.3f}",
    }
    with tempfile.TemporaryDirectory() as place:
        row |= exported(result, entry, Path(place))
    return row


def trains(model: nn.Module, entry: PackageModel) -> bool:
    """Tell whether a step of training gives every weight that its own package trains a gradient."""
    counts = []
    for one in (model, entry.build()):
        one.train()
        outputs = [value for value in tensors_in(one(entry.example(2))) if value.requires_grad]
        sum(value.square().mean() for value in outputs).backward()
        counts.append(sum(value.grad is None for value in one.parameters()))
        one.eval()
        one.zero_grad()
    return counts[0] == counts[1]


def saved(result: prunecli.PruneResult, entry: PackageModel, path: Path) -> str:
    """Tell whether what is loaded again gives the same."""
    try:
        prunecli.save(result, path)
    except PruneError as error:
        return error.code
    images = entry.example(3)
    with torch.no_grad():
        pair = (tensors_in(one(images)) for one in (prunecli.load(path), result.model))
        close = [torch.allclose(*two, rtol=1e-4, atol=1e-5) for two in zip(*pair, strict=True)]
    return "equal" if all(close) else "differs"


def exported(result: prunecli.PruneResult, entry: PackageModel, place: Path) -> dict[str, object]:
    """Save, load and export a pruned model; compare every output at several batches and sizes."""
    found: dict[str, object] = {"saved": saved(result, entry, place / "model.pt")}
    start = time.perf_counter()
    path = place / "model.onnx"
    others = entry.sizes if entry.one_file else ()
    sizes = (entry.shape, *others)
    prunecli.export(result, path, dynamic_size=bool(others))
    found["export_s"] = f"{time.perf_counter() - start:.1f}"
    errors = [
        relative_differences(result.model, path, entry.example(batch, size))
        for size in sizes
        for batch in BATCHES
    ]
    found["outputs"] = len(errors[0])
    shown = ", ".join(" x ".join(map(str, size[1:])) for size in sizes)
    found["compared"] = f"batch {' and '.join(map(str, BATCHES))}, {shown}"
    found["error"] = f"{max(map(max, errors)):.1e}"
    return found


def main() -> None:
    """Run the named models, or those that have no row yet."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    if wanted and ROWS.path.exists():
        with ROWS.path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["model"] not in wanted]
        with ROWS.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(kept)
    done = ROWS.done()
    for name, entry in MODELS.items():
        if (name,) in done or (wanted and name not in wanted):
            continue
        if find_spec(entry.package) is None:
            print(f"{name}: {entry.package} is not installed (pip install '.[zoo-test]')")
            continue
        ROWS.append(row_of(name, entry))


if __name__ == "__main__":
    main()
