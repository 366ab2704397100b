"""How well signals rank channels beside the oracle: Spearman per layer, pooled, pooled after L2.

    python tests/benchmarks/oracle.py --data DATA CHECKPOINT [CHECKPOINT ...]

The loss change of removing each channel alone is measured on training images, the same that the
signals look at. Writes `oracle.csv` beside this script, one row per checkpoint, signal and truth.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

from prunecli.analysis.network import analyze_network
from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.network.traced import read_network
from prunecli.options import AnalyzeOptions, PruneOptions
from prunecli.progress import silent
from prunecli.report import SignalAgreement
from prunecli.verbs.images import images_for

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "checkpoint", "images", "channels",
    *(field.name for field in dataclasses.fields(SignalAgreement)),
)  # fmt: skip


def main() -> None:
    """Measure every checkpoint and add its rows to the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=256)
    arguments = parser.parse_args()
    options = AnalyzeOptions(oracle=True, sensitivity=False, limit=arguments.images)
    new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        for path in arguments.checkpoints:
            writer.writerows(rows(path, arguments.data, options))
            file.flush()


def rows(path: Path, data: str, options: AnalyzeOptions) -> list[dict[str, object]]:
    """Return the rows of one checkpoint."""
    checkpoint = provenance.read(path, None).checkpoint
    network = read_network(instantiate(checkpoint), example_arguments(checkpoint.input))
    choice = PruneOptions(limit=options.limit)
    batches = images_for(checkpoint, data, choice, silent, scored=True).scored_on
    model = analyze_network(network, options=options, architecture="", batches=batches).oracle
    assert model is not None
    about = {"checkpoint": path.name, "images": model.images, "channels": model.channels}
    return [{**about, **dataclasses.asdict(row)} for row in model.signals]


if __name__ == "__main__":
    main()
