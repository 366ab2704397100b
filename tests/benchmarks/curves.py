"""Loss and accuracy without training against the FLOPs that are kept, by signal.

    python tests/benchmarks/curves.py --data DATA CHECKPOINT

The signals are the five of the published grid that did best in `taxonomy.csv` (same checkpoint, 0.7
of the FLOPs, held-out training images), the presets of the literature, and random draws. They look
at training images; what is reported is measured on test images, as the cut is and with
batch-norm statistics estimated anew on the same training images. Writes `curves.csv` and
`curves.png` beside this script; a run that is started again goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from cuts import Candidate, read_bench, read_rows, saliencies, write_dense, write_missing
from PIL import Image
from ranks import FAMOUS, best

from prunecli.signals import PRESETS

TABLE = Path(__file__).with_suffix(".csv")
PICTURE = Path(__file__).with_suffix(".png")
TAXONOMY = Path(__file__).with_name("taxonomy.csv")
FRACTIONS = (0.7, 0.5, 0.3, 0.9, 0.8, 0.6, 0.4)
"""In the order in which they are measured."""
NAMED = {"l1": "C5", "bn-gamma": "C6", "geometric-median": "C8", "taylor": "C9", "fisher": "k"}
"""Presets that the picture names, with their colours; the others are grey."""


def main() -> None:
    """Measure what is missing and draw the picture anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=256, help="training images to look at")
    parser.add_argument("--test", type=int, default=1000, help="test images to measure on")
    parser.add_argument("--allocation", nargs="+", default=["greedy"])
    parser.add_argument("--seeds", type=int, default=3, help="draws of the random signal")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = read_bench(
        arguments.checkpoint,
        arguments.data,
        images=arguments.images,
        split="test",
        measured=arguments.test,
    )
    write_dense(TABLE, bench)
    chosen = candidates(arguments.checkpoint.name, arguments.seeds)
    found = saliencies(bench, chosen)
    first = {each: found[each] for each in chosen if each.kind != "preset" or each.signal in FAMOUS}
    for allocation in arguments.allocation:
        for some in (first, found):
            write_missing(TABLE, bench, some, allocation=allocation, fractions=FRACTIONS)
    draw(PICTURE, arguments.allocation[0])


def candidates(checkpoint: str, seeds: int) -> list[Candidate]:
    """Return the best five of the grid, the presets that have a source, and random draws."""
    chosen_at = (checkpoint, str(FRACTIONS[0]))
    own = [row for row in read_rows(TAXONOMY) if (row["checkpoint"], row["kept"]) == chosen_at]
    return [
        *(Candidate("grid", signal) for signal in best(own, 5)),
        *(
            Candidate("preset", entry.name)
            for entry in PRESETS
            if not entry.source.startswith("prunecli")
        ),
        *(Candidate("random", "random", seed) for seed in range(seeds)),
    ]


def draw(path: Path, allocation: str) -> None:
    """Draw loss and accuracy against the FLOPs that are kept, with batch norm estimated anew."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines: dict[tuple[str, str], dict[float, list[dict[str, str]]]] = defaultdict(dict)
    for row in read_rows(TABLE):
        if row["allocation"] == allocation:
            line = lines[row["kind"], row["signal"]]
            line.setdefault(float(row["kept"]), []).append(row)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for (kind, signal), points in lines.items():
        for axis, of in zip(axes, ("loss_bn", "accuracy_bn"), strict=True):
            at = sorted(points)
            values = [mean(float(row[of]) for row in points[kept]) for kept in at]
            axis.plot(at, values, **_style(kind, signal))
    for axis, title in zip(axes, ("loss", "accuracy"), strict=True):
        axis.set(xlabel="FLOPs kept", title=f"{title}, batch norm estimated anew")
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").quantize(200, method=Image.Quantize.MAXCOVERAGE).save(
        path, optimize=True
    )


def _style(kind: str, signal: str) -> dict[str, object]:
    if kind == "random":
        return {"color": "red", "linestyle": ":", "label": "random, mean of the draws"}
    if kind == "grid":
        return {"linewidth": 1.8, "marker": ".", "label": signal}
    if signal in NAMED:
        return {"color": NAMED[signal], "linestyle": "--", "linewidth": 1, "label": signal}
    return {"color": "0.8", "linewidth": 0.8, "zorder": 0}


if __name__ == "__main__":
    main()
