"""Several records beside each other, as a report."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.learnability.compare import agreement, common, likely_label_errors
from prunecli.learnability.record import (
    Record,
    forgetting_events,
    learnability,
    read_record,
)
from prunecli.report import HardImage, LearnabilityPair, LearnabilityReport, LearnedRun
from prunecli.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN = 20
"""Images that are named."""

STEPS = 20
"""Steps of learnability that two runs are counted by, at most: one per epoch where fewer."""


def compare_records(paths: Sequence[Path]) -> LearnabilityReport:
    """Read records and compare them.

    Raises `InputError`: `NO_RECORD`, `NO_COMMON_IMAGES`, `OTHER_LABELS`.
    """
    records = [read_record(path) for path in paths]
    names = _distinct(paths)
    return LearnabilityReport(
        runs=tuple(_run(name, record) for name, record in zip(names, records, strict=True)),
        pairs=tuple(
            _pair(names[first], names[second], records[first], records[second])
            for first, second in itertools.combinations(range(len(records)), 2)
        ),
        hardest=_hardest(records),
        label_errors=_label_errors(records),
    )


def unlike_runs(runs: Sequence[LearnedRun]) -> list[str]:
    """Say where runs were recorded in different ways, which moves their correlation."""
    modes = {run.name: f"{run.scored} mode" for run in runs}
    epochs = {run.name: counted(run.epochs, "epoch") for run in runs}
    return [
        f"records {what}: {some([f'{name} {value}' for name, value in by_run.items()])}"
        for what, by_run in (
            ("looked at images in different modes", modes),
            ("are of different length, and learnability is of the epochs run", epochs),
        )
        if len(set(by_run.values())) > 1
    ]


def _distinct(paths: Sequence[Path]) -> list[str]:
    """Return short names of files: with as many folders before them as tell them apart."""
    names = [path.stem for path in paths]
    for folders in range(2, max((len(path.parts) for path in paths), default=1) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(path.with_suffix("").parts[-folders:]) for path in paths]
    return names


def _run(name: str, record: Record) -> LearnedRun:
    found = learnability(record.hits)
    return LearnedRun(
        name=name,
        network=str(record.facts.get("network", "")),
        images=len(found),
        epochs=record.hits.shape[1],
        scored=record.scored,
        learnability=float(found.mean()),
        never=int((found == 0).sum()),
        always=int((found == 1).sum()),
        forgetting=float(forgetting_events(record.hits).mean()),
        levels=tuple(
            np.bincount(record.hits.sum(axis=1), minlength=record.hits.shape[1] + 1).tolist()
        ),
    )


def _pair(first: str, second: str, left: Record, right: Record) -> LearnabilityPair:
    found = agreement(left, right)
    return LearnabilityPair(
        first=first,
        second=second,
        images=found.images,
        pearson=_defined(found.pearson),
        spearman=_defined(found.spearman),
        overlap=found.overlap,
        always_right=found.always_right,
        pearson_wrong=_defined(found.pearson_wrong),
        spearman_wrong=_defined(found.spearman_wrong),
        counts=_counts(left, right),
    )


def _counts(first: Record, second: Record) -> tuple[tuple[int, ...], ...]:
    """Return images by their learnability in both records, which may differ in their epochs."""
    rows = zip((first, second), common(first, second), strict=True)
    places, sizes = [], []
    for record, chosen in rows:
        steps = min(record.hits.shape[1], STEPS)
        places.append(np.rint(learnability(record.hits[chosen]) * steps).astype(np.int64))
        sizes.append(steps + 1)
    counts = np.zeros(sizes, np.int64)
    np.add.at(counts, tuple(places), 1)
    return tuple(tuple(row) for row in counts.tolist())


def _hardest(records: Sequence[Record]) -> tuple[HardImage, ...]:
    first, *others = records
    total, seen = learnability(first.hits), np.ones(len(first.paths))
    for other in others:
        left, right = common(first, other)
        total[left] += learnability(other.hits[right])
        seen[left] += 1
    mean = total / seen
    order = np.argsort(mean, kind="stable")[:SHOWN].tolist()
    return tuple(HardImage(first.paths[at], _class(first, at), float(mean[at])) for at in order)


def _label_errors(records: Sequence[Record]) -> tuple[HardImage, ...]:
    first = records[0]
    place = {path: at for at, path in enumerate(first.paths)}
    return tuple(
        HardImage(path, _class(first, place[path]), mean)
        for path, mean in likely_label_errors(list(records), SHOWN)
    )


def _class(record: Record, row: int) -> str:
    return record.classes[int(record.labels[row])]


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
