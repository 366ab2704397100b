"""What a data set is made of, and how hard its classes are to tell apart."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.complexity.classes import class_map, confusing_images, difficulties
from prunecli.complexity.csg import CsgResult, CsgSettings, RepeatedCsg, csg_by_volume
from prunecli.complexity.devices import device_named
from prunecli.complexity.doubts import crowded_labels, small_classes
from prunecli.complexity.expected import expect
from prunecli.complexity.reduction import (
    HARDEST,
    SUBSET_RULES,
    Candidates,
    check_tolerance,
    reduction,
)
from prunecli.complexity.seen import NetworkFeatures, Seen, see
from prunecli.data import Arrays, Packed, labels_of
from prunecli.data.layout import class_folder_below
from prunecli.data.subset import check_target, write_subset
from prunecli.data.survey import Survey, survey
from prunecli.errors import InputError
from prunecli.learnability import Known, known_images
from prunecli.options import ComplexityOptions
from prunecli.progress import Progress, silent
from prunecli.report import ClassCount, DatasetAnalysis, KeptLearnability, Subset
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.complexity.neighbours import Floats
    from prunecli.data import DataSource
    from prunecli.report import Reduction

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
    records: Sequence[Path] = (),
    progress: Progress = silent,
) -> DatasetAnalysis:
    """Survey all images of a data set and measure how much its classes overlap.

    The complexity is that of at most `options.limit` training images, as evenly over the classes as
    they come, or of all images where nothing is set apart for training; `network` says what the
    embedding `model` looks through, `records` what networks learned (`prunecli.learnability`), for
    the subset of the hardest images. Raises `InputError`: `ONE_CLASS` (fewer than two classes have
    images), `UNREADABLE_IMAGES`, `TOO_FEW_SAMPLES`, and what the options may be wrong about.
    """
    options = options or ComplexityOptions()
    device = device_named(options.device)
    seed %= 2**32
    if options.subset is not None:
        files = not any(isinstance(raw, Arrays | Packed) for raw in source.splits.values())
        check_target(Path(options.subset), data=source.path, files=files)
        _check_rule(options, records)
        if options.per_class is None and not options.reduce:
            raise _no_size(options.subset, reduced=False)
    if options.reduce:
        check_tolerance(options.tolerance)
    counts = _count_classes(source)
    features = any(isinstance(raw, Arrays) and raw.are_features for raw in source.splits.values())
    found = None if features else survey(source, limit=options.survey, seed=seed, progress=progress)
    seen = see(source, found, options=options, seed=seed, network=network, progress=progress)
    settings = CsgSettings(
        samples=options.samples,
        neighbours=options.neighbours,
        volume=options.volume,
        variant=options.variant,
        seed=seed,
    )
    workspace = max(options.memory // ARRAYS, 2**20)
    found_by = csg_by_volume(
        seen.points,
        seen.labels,
        volumes=(options.volume, "none"),
        repeats=options.repeats,
        settings=settings,
        workspace=workspace,
        device=device,
        progress=progress,
    )
    boxed, votes = found_by[options.volume], found_by["none"]
    present = [source.classes[int(label)] for label in np.unique(seen.labels)]
    smaller = (
        reduction(
            seen.points,
            seen.labels,
            settings=replace(settings, volume="none"),
            tolerance=options.tolerance,
            workspace=workspace,
            device=device,
            progress=progress,
        )
        if options.reduce
        else None
    )
    known = _known(source, seen, records, options)
    places = class_map(votes.similarity)
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
        listed={} if found is None else found.listed,
        looked_at=None if found is None else found.looked_at,
        csg=boxed.mean,
        csg_interval=boxed.interval,
        csg_settings={
            **asdict(settings),
            "repeats": options.repeats,
            "device": str(device),
            "embedding": seen.embedding,
            "cached": seen.cached,
            **({"epochs": options.epochs} if "autoencoder" in seen.embedding else {}),
            "split": seen.split,
            "images": len(seen.labels),
            "image_shape": list(seen.shape),
            "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
        },
        eigenvalues=tuple(np.mean([run.eigenvalues for run in boxed.runs], axis=0).tolist()),
        similarity=tuple(tuple(row) for row in boxed.similarity.tolist()),
        confused_pairs=_confused(votes.similarity, present),
        csg_votes=votes.mean,
        csg_votes_interval=votes.interval,
        csg_deviation=boxed.standard_deviation,
        difficulty=difficulties(votes, present),
        class_map={name: (x, y) for name, (x, y) in zip(present, places.tolist(), strict=True)},
        confusing=confusing_images(votes.runs, present, seen.paths),
        reduction=smaller,
        subset=_write_subset(source, seen, votes, options=options, smaller=smaller, known=known),
        expected=expect(
            source, seen, settings, {volume: each.mean for volume, each in found_by.items()}
        ),
        warnings=(
            *_findings(found),
            *seen.warnings,
            *crowded_labels(len(present), len(seen.labels)),
            *_short_classes(source, seen, options),
            *_by_name(boxed.runs[0], present),
            *(known.warnings if known else ()),
        ),
    )


def _by_name(run: CsgResult, names: list[str]) -> list[str]:
    """Return the doubts of a measure that was given classes as numbers, with their names."""
    counts, neighbours = run.counts, run.settings.neighbours
    numbered = small_classes(run.classes, counts, neighbours)
    named = small_classes(names, counts, neighbours)
    return [*named, *(warning for warning in run.warnings if warning not in numbered)]


def _count_classes(source: DataSource) -> dict[str, int]:
    totals = np.zeros(len(source.classes), dtype=np.int64)
    for raw in source.splits.values():
        totals += np.bincount(labels_of(raw), minlength=len(totals))
    present = [source.classes[at] for at in np.flatnonzero(totals).tolist()]
    if len(present) < 2:
        raise InputError(
            "complexity needs two classes with images or features, there is "
            + (f"one: {present[0]}" if present else "none")
            + "".join(f"; {problem}" for problem in source.problems),
            code="ONE_CLASS",
            where=str(source.path),
            hint=_where_classes_are(source),
        )
    return dict(zip(source.classes, totals.tolist(), strict=True))


def _where_classes_are(source: DataSource) -> str:
    if source.format != "image-folder":
        return "give data with two labels or more"
    below = class_folder_below(source.path)
    if below is not None:
        return f"the classes seem to lie further down: prunecli analyze {below}"
    return "give the folder that holds one folder per class"


def _write_subset(
    source: DataSource,
    seen: Seen,
    votes: RepeatedCsg,
    *,
    options: ComplexityOptions,
    smaller: Reduction | None,
    known: Known | None,
) -> Subset | None:
    if options.subset is None:
        return None
    per_class = options.per_class or (smaller.smallest if smaller else None)
    if per_class is None:
        raise _no_size(options.subset, reduced=True)
    candidates = Candidates(
        seen.labels, votes, votes.runs[0].settings.seed, None if known is None else known.easiness
    )
    rows = SUBSET_RULES.get(options.subset_rule)(candidates, per_class)
    chosen = [(seen.paths[at], source.classes[int(seen.labels[at])]) for at in rows.tolist()]
    target = Path(options.subset)
    write_subset(chosen, target)
    return Subset(
        target,
        len(rows),
        per_class,
        options.subset_rule,
        None if known is None else _kept(known, rows),
    )


def _no_size(subset: str, *, reduced: bool) -> InputError:
    return InputError(
        "no smaller set keeps the complexity, so there is none to write"
        if reduced
        else "it is not said how many images of each class the subset has",
        code="NO_SUBSET_SIZE",
        where=subset,
        hint="say how many: --per-class 500"
        + ("" if reduced else ", or let --reduce find the number"),
    )


def _check_rule(options: ComplexityOptions, records: Sequence[Path]) -> None:
    """Raise `InputError` before any work for a rule that is unknown or lacks its records."""
    SUBSET_RULES.get(options.subset_rule)
    if options.subset_rule == HARDEST and not records:
        raise InputError(
            "the hardest images are those that networks learned latest, and no record is named",
            code="NO_RECORD",
            hint="add --learnability run.parquet, of finetune --record-learnability",
        )


def _known(
    source: DataSource, seen: Seen, records: Sequence[Path], options: ComplexityOptions
) -> Known | None:
    """Return what records say about the images; None where no subset asks for it."""
    if options.subset is None or options.subset_rule != HARDEST:
        return None
    return known_images(records, seen.paths, seen.labels, source.classes)


def _kept(known: Known, rows: NDArray[np.int64]) -> KeptLearnability:
    kept = known.easiness[rows]
    dropped = np.delete(known.easiness, rows)
    return KeptLearnability(
        kept=_mean(kept), dropped=_mean(dropped), unknown=int(np.isnan(kept).sum())
    )


def _mean(easiness: NDArray[np.float64]) -> float | None:
    found = easiness[~np.isnan(easiness)]
    return float(found.mean()) if len(found) else None


def _short_classes(source: DataSource, seen: Seen, options: ComplexityOptions) -> list[str]:
    """Say which classes have fewer images than a subset was asked to have of each."""
    per_class = options.per_class
    if per_class is None or options.subset is None:
        return []
    counts = np.bincount(seen.labels, minlength=len(source.classes))
    short = [
        f"{name} ({count})"
        for name, count in zip(source.classes, counts.tolist(), strict=True)
        if 0 < count < per_class
    ]
    sentence = (
        f"{counted(len(short), 'class', 'classes')} {verb(len(short), 'has', 'have')} fewer than "
        f"the {per_class:,} images of --per-class, and {verb(len(short), 'gives', 'give')} all: "
        f"{some(short)}"
    )
    return [sentence] if short else []


def _sizes(found: Survey) -> dict[str, int]:
    return {f"{width}x{height}": count for (width, height), count in found.sizes.items()}


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
    """Return what there is to say about the images, as sentences with numbers."""
    if found is None:
        return []
    broken, near = len(found.unreadable), len(found.near_duplicates)
    counts = {
        f"{found.looked_at:,} of {found.total:,} images were looked at for broken, odd and equal "
        "ones, drawn at random: --survey all looks at every one": found.total - found.looked_at,
        f"{counted(broken, 'image')} cannot be read": broken,
        f"{_groups(found.mislabelled)} in more than one class": found.mislabelled,
        f"{_groups(found.leaked)} in more than one split": found.leaked,
        counted(near, "group of nearly equal images", "groups of nearly equal images"): near,
    }
    kinds = [
        f"{counted(count, 'image')} {verb(count, 'is', 'are')} {kind}, such as "
        f"{found.listed[kind][0]}"
        for kind, count in found.kinds.items()
    ]
    return [*(finding for finding, count in counts.items() if count), *kinds]


def _groups(count: int) -> str:
    noun = counted(count, "group of equal images", "groups of equal images")
    return f"{noun} {verb(count, 'is', 'are')}"
