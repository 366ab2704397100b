"""What a data set is made of, and how hard its classes are to tell apart."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.complexity.classes import class_map, confusing_images, difficulties
from prunecli.complexity.csg import CsgSettings, RepeatedCsg, csg_repeated
from prunecli.complexity.expected import Asked, expected_error
from prunecli.complexity.reduction import SUBSET_RULES, reduction
from prunecli.complexity.seen import NetworkFeatures, Seen, see
from prunecli.data import Arrays, labels_of
from prunecli.data.subset import check_target, write_subset
from prunecli.data.survey import Survey, survey
from prunecli.errors import InputError
from prunecli.options import ComplexityOptions
from prunecli.progress import Progress, silent
from prunecli.report import ClassCount, DatasetAnalysis, Subset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.complexity.neighbours import Floats
    from prunecli.data import DataSource
    from prunecli.report import ExpectedError, Reduction

PAIRS = 10
"""Confused pairs of classes that are reported."""

ARRAYS = 8
"""Temporary arrays that live at a time, at most; the memory that may be used is shared by them."""


def analyze_dataset(
    source: DataSource,
    *,
    options: ComplexityOptions | None = None,
    seed: int = 0,
    network: NetworkFeatures | None = None,
    progress: Progress = silent,
) -> DatasetAnalysis:
    """Survey all images of a data set and measure how much its classes overlap.

    The complexity is that of at most `options.limit` training images, as evenly over the classes as
    they come, or of all images where nothing is set apart for training; `network` says what the
    embedding `model` looks through. Raises `InputError`: `ONE_CLASS` (fewer than two classes have
    images), `UNREADABLE_IMAGES`, `TOO_FEW_SAMPLES`, and what the options may be wrong about.
    """
    options = options or ComplexityOptions()
    seed %= 2**32
    if options.subset is not None:
        check_target(Path(options.subset), data=source.path)
    counts = _count_classes(source)
    features = any(isinstance(raw, Arrays) and raw.are_features for raw in source.splits.values())
    found = None if features else survey(source, progress=progress)
    seen = see(source, found, options=options, seed=seed, network=network, progress=progress)
    settings = CsgSettings(
        samples=options.samples,
        neighbours=options.neighbours,
        volume=options.volume,
        variant=options.variant,
        seed=seed,
    )
    plain = replace(settings, volume="none")
    boxed, votes = (
        csg_repeated(
            seen.points,
            seen.labels,
            repeats=options.repeats,
            settings=each,
            workspace=max(options.memory // ARRAYS, 2**20),
            progress=progress,
        )
        for each in (settings, plain)
    )
    present = [source.classes[int(label)] for label in np.unique(seen.labels)]
    smaller = (
        reduction(
            seen.points,
            seen.labels,
            settings=plain,
            tolerance=options.tolerance,
            progress=progress,
        )
        if options.reduce
        else None
    )
    places = class_map(_similarity(votes))
    return DatasetAnalysis(
        path=str(source.path),
        format=source.format,
        images=sum(counts.values()),
        classes=tuple(ClassCount(name, count) for name, count in counts.items()),
        sizes={} if found is None else _sizes(found),
        balance=min(counts.values()) / max(counts.values()),
        unreadable=() if found is None else found.unreadable,
        duplicates=() if found is None else found.duplicates,
        near_duplicates=() if found is None else found.near_duplicates,
        kinds={} if found is None else found.kinds,
        csg=boxed.mean,
        csg_interval=boxed.interval,
        csg_settings={
            **asdict(settings),
            "repeats": options.repeats,
            "embedding": seen.embedding,
            "cached": seen.cached,
            **({"epochs": options.epochs} if "autoencoder" in seen.embedding else {}),
            "split": seen.split,
            "images": len(seen.labels),
            "image_shape": list(seen.shape),
            "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
        },
        eigenvalues=tuple(np.mean([run.eigenvalues for run in boxed.runs], axis=0).tolist()),
        similarity=tuple(tuple(row) for row in _similarity(boxed).tolist()),
        confused_pairs=_confused(_similarity(votes), present),
        csg_votes=votes.mean,
        csg_votes_interval=votes.interval,
        csg_deviation=boxed.standard_deviation,
        difficulty=difficulties(votes.runs, present),
        class_map={name: (x, y) for name, (x, y) in zip(present, places.tolist(), strict=True)},
        confusing=confusing_images(votes.runs, present, seen.paths),
        reduction=smaller,
        subset=_write_subset(source, seen, votes, options, smaller),
        expected=_expected(source, seen, settings, {options.volume: boxed, "none": votes}),
        warnings=(*_findings(found), *seen.warnings, *boxed.runs[0].warnings),
    )


def _count_classes(source: DataSource) -> dict[str, int]:
    totals = np.zeros(len(source.classes), dtype=np.int64)
    for raw in source.splits.values():
        totals += np.bincount(labels_of(raw), minlength=len(totals))
    if np.count_nonzero(totals) < 2:
        raise InputError(
            f"complexity needs two classes with images, there is {np.count_nonzero(totals)}",
            code="ONE_CLASS",
            where=str(source.path),
            hint="give the folder that holds one folder per class",
        )
    return dict(zip(source.classes, totals.tolist(), strict=True))


def _expected(
    source: DataSource, seen: Seen, settings: CsgSettings, scores: Mapping[str, RepeatedCsg]
) -> ExpectedError:
    parts = [raw for name, raw in source.splits.items() if seen.split in {name, "all"}]
    counts = np.bincount(np.concatenate([labels_of(raw) for raw in parts]))
    present = counts[counts > 0]
    asked = Asked(
        embedding=seen.embedding,
        samples=settings.samples,
        neighbours=settings.neighbours,
        variant=settings.variant,
        classes=len(present),
        images=int(present.sum()),
        seen=len(seen.labels),
        balance=float(present.min() / present.max()),
        shape=seen.shape,
    )
    return expected_error(asked, {volume: each.mean for volume, each in scores.items()})


def _write_subset(
    source: DataSource,
    seen: Seen,
    votes: RepeatedCsg,
    options: ComplexityOptions,
    smaller: Reduction | None,
) -> Subset | None:
    if options.subset is None:
        return None
    per_class = options.per_class or (smaller.smallest if smaller else None)
    if per_class is None:
        raise InputError(
            "no smaller set keeps the complexity, so there is none to write"
            if smaller
            else "it is not said how many images of each class the subset has",
            code="NO_SUBSET_SIZE",
            where=options.subset,
            hint="say how many: --per-class 500"
            + ("" if smaller else ", or let --reduce find the number"),
        )
    seed = votes.runs[0].settings.seed
    rows = SUBSET_RULES.get(options.subset_rule)(seen.labels, votes, per_class, seed)
    chosen = [(seen.paths[at], source.classes[int(seen.labels[at])]) for at in rows.tolist()]
    target = Path(options.subset)
    write_subset(chosen, target)
    return Subset(target, len(rows), per_class, options.subset_rule)


def _sizes(found: Survey) -> dict[str, int]:
    return {f"{width}x{height}": count for (width, height), count in found.sizes.items()}


def _similarity(repeated: RepeatedCsg) -> Floats:
    mean: Floats = np.mean([run.similarity for run in repeated.runs], axis=0)
    return mean


def _confused(similarity: Floats, names: list[str]) -> tuple[tuple[str, str, float], ...]:
    rows, columns = np.triu_indices(len(names), k=1)
    values = similarity[rows, columns]
    order = np.argsort(-values, kind="stable")[:PAIRS]
    return tuple(
        (names[rows[pair]], names[columns[pair]], float(values[pair]))
        for pair in order
        if values[pair] > 0
    )


def _findings(found: Survey | None) -> list[str]:
    if found is None:
        return []
    counts = {
        "images cannot be read": len(found.unreadable),
        "groups of equal images are in more than one class": found.mislabelled,
        "groups of equal images are in more than one split": found.leaked,
        "groups of nearly equal images": len(found.near_duplicates),
    }
    kinds = [f"{count} images are {kind}" for kind, count in found.kinds.items()]
    return [f"{count} {finding}" for finding, count in counts.items() if count] + kinds
