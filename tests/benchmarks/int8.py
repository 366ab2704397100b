"""Dense and pruned models in float and INT8: size, milliseconds, accuracy or agreement.

    python tests/benchmarks/int8.py --data DATA CHECKPOINT [CHECKPOINT ...] [--arch NAME]

Every checkpoint is pruned to `--flops` with the default choice for images (reconstruction, and
repaired without training). Dense and pruned model are exported in float and in INT8. All files are
timed in turns on one thread, by processor time, at batch 1 and 8, and scored on the same test
images: accuracy where the labels are the classes of the model, and agreement with the dense float
file. `--max-drop` leaves sensitive layers in float, in one more file of each. Rows of other
checkpoints in `int8.csv` beside this script are kept.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.budget import make_budget
from prunecli.exporting import read_metadata
from prunecli.exporting.timing.engines import Contestant
from prunecli.exporting.timing.race import Racer, race
from prunecli.options import CompareOptions, ExportOptions, LoadOptions, PruneOptions

TABLE = Path(__file__).with_suffix(".csv")
BATCHES = (1, 8)
FIELDS = (
    "checkpoint", "kept", "model", "precision", "bytes", "ms_1", "ms_8", "ratio_1", "ratio_8",
    "accuracy", "agreement", "images", "layers", "in_float", "calibration", "threads", "load",
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One exported file, and what its export said of INT8."""

    model: str
    precision: str
    path: Path
    layers: int = 0
    in_float: int = 0
    calibration: str = ""


def main() -> None:
    """Measure every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--arch", default=None)
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("--images", type=int, default=512, help="training images to choose on")
    parser.add_argument("--test", type=int, default=2000, help="test images to score")
    parser.add_argument("--max-drop", type=float, default=None)
    asked = parser.parse_args()
    for checkpoint in asked.checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(checkpoint, Path(folder), asked)
        write(rows)


def measure(checkpoint: Path, folder: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per file of a checkpoint."""
    load = LoadOptions(architecture=asked.arch)
    pruned = folder / "pruned.pt"
    cut = verbs.prune(
        checkpoint,
        output=pruned,
        budget=make_budget(flops=asked.flops),
        options=PruneOptions(limit=asked.images),
        load=load,
        data=asked.data,
    )
    models = {"dense": (checkpoint, load), "pruned": (pruned, LoadOptions())}
    files = [
        file
        for model, (path, how) in models.items()
        for file in exported(model, path, how, folder, asked)
    ]
    compared = verbs.compare(
        [file.path for file in files],
        data=asked.data,
        options=CompareOptions(limit=asked.test, no_latency=True),
    )
    spec = read_metadata(files[0].path).input
    assert isinstance(spec, InputSpec)
    timings = race(
        [Racer(file.path.name, Contestant(file.path), spec) for file in files],
        batches=BATCHES,
        threads=1,
    )
    rows = []
    for at, (file, found) in enumerate(zip(files, compared.models, strict=True)):
        times = {f"ms_{row.batch}": f"{row.models[at].median:.3f}" for row in timings}
        ratios = {f"ratio_{row.batch}": row.models[at].ratio for row in timings}
        agreement = found.agreement.same_class if found.agreement is not None else None
        rows.append(
            {
                "checkpoint": checkpoint.name,
                "kept": f"{cut.cost.kept['flops']:.4f}" if file.model == "pruned" else "1",
                "model": file.model,
                "precision": file.precision,
                "bytes": file.path.stat().st_size,
                **times,
                **{name: "" if one is None else f"{one:.3f}" for name, one in ratios.items()},
                "accuracy": "" if found.scores is None else f"{found.scores.accuracy:.4f}",
                "agreement": "" if agreement is None else f"{agreement:.4f}",
                "images": compared.images,
                "layers": file.layers,
                "in_float": file.in_float,
                "calibration": file.calibration,
                "threads": 1,
                "load": f"{os.getloadavg()[0]:.1f}",
            }
        )
    return rows


def exported(
    model: str, path: Path, load: LoadOptions, folder: Path, asked: argparse.Namespace
) -> list[File]:
    """Export a model in float, in INT8, and with `--max-drop` with some layers in float."""
    plain = folder / f"{model}.onnx"
    verbs.export(path, output=plain, load=load, options=ExportOptions(benchmark=False))
    files = [File(model, "float", plain)]
    for name, drop in (("INT8", None), ("mixed", asked.max_drop)):
        if name == "mixed" and drop is None:
            continue
        target = folder / f"{model}.{name}.onnx"
        options = ExportOptions(int8=True, benchmark=False, max_drop=drop, limit=asked.images)
        found = verbs.export(path, output=target, load=load, data=asked.data, options=options)
        assert found.conversion is not None
        told = found.conversion
        files.append(File(model, name, target, told.layers, len(told.in_float), told.calibration))
    return files


def write(rows: list[dict[str, Any]]) -> None:
    """Put the rows of a checkpoint into the table."""
    kept = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.exists() else []
    kept = [row for row in kept if row["checkpoint"] != rows[0]["checkpoint"]]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


if __name__ == "__main__":
    main()
