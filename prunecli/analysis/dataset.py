"""What a data set is made of, and how hard its classes are to tell apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.complexity.caveats import crowded_labels, small_classes
from prunecli.complexity.classes import class_map, confusing_images, difficulties
from prunecli.complexity.csg import csg_by_volume
from prunecli.complexity.devices import device_named
from prunecli.complexity.embedding import described
from prunecli.complexity.estimates import CsgResult, CsgSettings
from prunecli.complexity.expected import expect
from prunecli.complexity.points import NetworkFeatures, Seen, see
from prunecli.complexity.reduction import check_tolerance, reduction
from prunecli.complexity.subsets import check_subset, chosen_subset, known_for, short_classes
from prunecli.data import Arrays, labels_of
from prunecli.data.formats.layout import class_folder_below
from prunecli.data.survey.survey import Survey, survey
from prunecli.errors import InputError
from prunecli.options import ComplexityOptions
from prunecli.progress import Progress, silent
from prunecli.report import ClassCount, DatasetAnalysis
from prunecli.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from prunecli.complexity.estimates import RepeatedCsg
    from prunecli.complexity.neighbours import Floats
    from prunecli.data import DataSource
    from prunecli.report import Reduction

PAIRS = 10
"""Confused pairs of classes that are reported."""

VOTES = "none"
"""The volume at which every neighbour has one vote: no box around it weighs it."""

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
        check_subset(source, records, options)
    if options.reduce:
        check_tolerance(options.tolerance)
    counts = _count_classes(source)
    features = any(isinstance(raw, Arrays) and raw.are_features for raw in source.splits.values())
    found = None if features else survey(source, limit=options.survey, seed=seed, progress=progress)
    seen = see(source, found, options=options, seed=seed, network=network, progress=progress)
    overlap = _measured(seen, options, seed=seed, device=device, progress=progress)
    present = [source.classes[int(label)] for label in np.unique(seen.labels)]
    known = known_for(source, seen, records, options)
    votes = overlap.by_volume[VOTES]
    return DatasetAnalysis(
        path=str(source.path),
        format=source.format,
        images=sum(counts.values()),
        classes=tuple(ClassCount(name, count) for name, count in counts.items()),
        balance=min(counts.values()) / max(counts.values()),
        **_surveyed(found),
        **_overlapping(overlap, seen, options, present),
        subset=chosen_subset(
            source, seen, votes, options=options, smaller=overlap.smaller, known=known
        ),
        expected=expect(
            source,
            seen,
            overlap.settings,
            {volume: each.mean for volume, each in overlap.by_volume.items()},
        ),
        warnings=(
            *_findings(found),
            *seen.warnings,
            *crowded_labels(len(present), len(seen.labels)),
            *short_classes(source, seen, options),
            *_by_name(overlap.by_volume[options.volume].runs[0], present),
            *(known.warnings if known else ()),
        ),
    )


@dataclass(frozen=True)
class _Overlap:
    """How much the classes overlap, by how neighbourhoods are weighted, and for fewer images."""

    settings: CsgSettings
    device: torch.device
    by_volume: Mapping[str, RepeatedCsg]
    smaller: Reduction | None


def _measured(
    seen: Seen, options: ComplexityOptions, *, seed: int, device: torch.device, progress: Progress
) -> _Overlap:
    """Measure the overlap of the classes, and down to how many images it holds where asked."""
    settings = CsgSettings(
        samples=options.samples,
        neighbours=options.neighbours,
        volume=options.volume,
        variant=options.variant,
        seed=seed,
    )
    workspace = max(options.memory // ARRAYS, 2**20)
    by_volume = csg_by_volume(
        seen.points,
        seen.labels,
        volumes=(options.volume, VOTES),
        repeats=options.repeats,
        settings=settings,
        workspace=workspace,
        device=device,
        progress=progress,
    )
    smaller = None
    if options.reduce:
        smaller = reduction(
            seen.points,
            seen.labels,
            settings=replace(settings, volume=VOTES),
            tolerance=options.tolerance,
            workspace=workspace,
            device=device,
            progress=progress,
        )
    return _Overlap(settings, device, by_volume, smaller)


def _overlapping(
    overlap: _Overlap, seen: Seen, options: ComplexityOptions, present: list[str]
) -> dict[str, Any]:
    """Return how much the classes overlap, as the report has it."""
    boxed, votes = overlap.by_volume[options.volume], overlap.by_volume[VOTES]
    places = class_map(votes.similarity)
    return {
        "csg": boxed.mean,
        "csg_interval": boxed.interval,
        "csg_settings": {
            **_told(overlap.settings, options, seen),
            "device": str(overlap.device),
        },
        "eigenvalues": tuple(np.mean([run.eigenvalues for run in boxed.runs], axis=0).tolist()),
        "similarity": tuple(tuple(row) for row in boxed.similarity.tolist()),
        "confused_pairs": _confused(votes.similarity, present),
        "csg_votes": votes.mean,
        "csg_votes_interval": votes.interval,
        "csg_deviation": boxed.standard_deviation,
        "difficulty": difficulties(votes, present),
        "class_map": {name: (x, y) for name, (x, y) in zip(present, places.tolist(), strict=True)},
        "confusing": confusing_images(votes.runs, present, seen.paths),
        "reduction": overlap.smaller,
    }


def _told(settings: CsgSettings, options: ComplexityOptions, seen: Seen) -> dict[str, Any]:
    """Return how the measure was taken, for whoever wants to take it again."""
    return {
        **asdict(settings),
        "repeats": options.repeats,
        "embedding": seen.embedding,
        "embedding_steps": "the features as they are"
        if seen.embedding == "features"
        else described(seen.embedding, epochs=options.epochs),
        "cached": seen.cached,
        **({"epochs": options.epochs} if "autoencoder" in seen.embedding else {}),
        "split": seen.split,
        "images": len(seen.labels),
        "image_shape": list(seen.shape),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
    }


def _surveyed(found: Survey | None) -> dict[str, Any]:
    """Return what a look at the images found, as the report has it; features have no images."""
    if found is None:
        return {"sizes": {}, "unreadable": (), "duplicates": ()}
    return {
        "sizes": {f"{width}x{height}": count for (width, height), count in found.sizes.items()},
        "unreadable": found.unreadable,
        "duplicates": found.duplicates,
        "near_duplicates": found.near_duplicates,
        "kinds": found.kinds,
        "listed": found.listed,
        "looked_at": found.looked_at,
    }


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
    near = len(found.near_duplicates)
    counts = {
        f"{found.looked_at:,} of {found.total:,} images were looked at for broken, odd and equal "
        "ones, drawn at random: --survey all looks at every one": found.total - found.looked_at,
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
