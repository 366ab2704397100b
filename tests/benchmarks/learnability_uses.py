"""Whether knowing what other networks learned late helps a small VGG, at equal updates.

    python tests/benchmarks/learnability_uses.py --work DIR [--seeds 0 1 2]

DIR is that of `learnability.py`, whose images and record of a ResNet-20 are used; the VGG sees the
images at half their size, which is a quarter of the time. Every row starts from the same random
weights as the others of its seed, and takes as many updates of as many images. Rows are appended to
`learnability_uses.csv` beside this script; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import learnability as records
import numpy as np
from resumed import Rows

from prunecli import verbs
from prunecli.architectures.reference import ArchitectureRef
from prunecli.complexity import SUBSET_RULES, Candidates
from prunecli.data import labels_of, names_of, open_source
from prunecli.learnability import known_images, read_record, write_record
from prunecli.options import FinetuneOptions

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = ("row", "seed", "images", "updates", "held_out", "test_accuracy")
RESULTS = Rows(TABLE, FIELDS, 2)
KNOWN = (records.Run("ResNet-20", 0),)
"""Whose records are used: another network's, as a user would have them."""

TRAINED = ArchitectureRef("learnability_networks:small_vgg", {"num_classes": 10, "side": 16})
INPUT = dataclasses.replace(records.INPUT, height=16, width=16)
EPOCHS, BATCH = 6, 125
"""A batch size that divides the images, so that half of them for twice as long is as many steps."""


@dataclass(frozen=True)
class Row:
    """A way to train: what the options get from the records, and which half of the images, if any.

    `shuffled` gives every image what was recorded of another: the control.
    """

    name: str
    option: str | None = None
    shuffled: bool = False
    half: str | None = None


ROWS = (
    Row("plain"),
    Row("curriculum", "curriculum"),
    Row("curriculum, shuffled", "curriculum", shuffled=True),
    Row("importance sampling", "importance_sampling"),
    Row("hardest half", half="hardest"),
    Row("random half", half="random"),
)


def main() -> None:
    """Run the rows that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for row in ROWS:
            if (row.name, str(seed)) not in RESULTS.done():
                RESULTS.append(run(row, arguments.work, seed))


def run(row: Row, work: Path, seed: int) -> dict[str, str]:
    """Train once; the accuracy is that of the epoch chosen on held-out images, on test images."""
    files = [records.record_of(each, work) for each in KNOWN]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if row.shuffled:
            files = [shuffled(file, folder / file.name, seed=seed) for file in files]
        images = work / "images.csv"
        if row.half is not None:
            images = write_half(images, folder / "half.csv", files, rule=row.half, seed=seed)
        start = records.untrained(TRAINED, folder / "start.pt", seed=100 + seed, spec=INPUT)
        options = FinetuneOptions(
            epochs=EPOCHS if row.half is None else 2 * EPOCHS, batch_size=BATCH, seed=seed
        )
        if row.option is not None:
            options = dataclasses.replace(options, **{row.option: tuple(files)})
        report = verbs.finetune(
            start,
            data=str(images),
            output=folder / "out.pt",
            load=records.trusted(TRAINED),
            options=options,
        )
        trained = len(labels_of(open_source(images).splits["train"]))
    return {
        "row": row.name,
        "seed": str(seed),
        "images": str(trained),
        "updates": str(options.epochs * trained // BATCH),
        "held_out": f"{report.held_out.after:.4f}",
        "test_accuracy": f"{report.accuracy.after:.4f}",
    }


def shuffled(file: Path, target: Path, *, seed: int) -> Path:
    """Write a record with the hits of other images."""
    record = read_record(file)
    order = np.random.default_rng(seed).permutation(len(record.paths))
    write_record(dataclasses.replace(record, hits=record.hits[order]), target)
    return target


def write_half(images: Path, target: Path, files: list[Path], *, rule: str, seed: int) -> Path:
    """Write the table of images with half of those of training, chosen by a rule of the library."""
    source = open_source(images)
    train = source.splits["train"]
    labels, paths = labels_of(train), names_of(train)
    known = known_images(files, paths, labels, source.classes)
    candidates = Candidates(labels, None, seed, known.easiness)  # no rule here looks at votes
    rows = SUBSET_RULES.get(rule)(candidates, len(labels) // len(source.classes) // 2)
    kept = {str(paths[at]) for at in rows.tolist()}
    with images.open(newline="") as file, target.open("w", newline="") as half:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(half, reader.fieldnames)
        writer.writeheader()
        writer.writerows(
            each for each in reader if each["split"] != "train" or each["path"] in kept
        )
    return target


if __name__ == "__main__":
    main()
