"""Which images of a data set are kept where a smaller one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.complexity.reduction import SUBSET_RULES, Candidates
from prunecli.data import Arrays, Packed
from prunecli.data.subset import check_target, write_subset
from prunecli.errors import InputError
from prunecli.learnability import Known, known_images
from prunecli.preflight.analysis import HARDEST, check_size_of_subset
from prunecli.report import KeptLearnability, Subset
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.complexity.estimates import RepeatedCsg
    from prunecli.complexity.points import Seen
    from prunecli.data import DataSource
    from prunecli.options import ComplexityOptions
    from prunecli.report import Reduction


def check_subset(source: DataSource, records: Sequence[Path], options: ComplexityOptions) -> None:
    """Raise `InputError` before any work for a subset that could not be written in the end.

    That is for its place, for a rule that is unknown or lacks its records, and for a size that is
    neither said nor looked for.
    """
    assert options.subset is not None
    files = not any(isinstance(raw, Arrays | Packed) for raw in source.splits.values())
    check_target(Path(options.subset), data=source.path, files=files)
    SUBSET_RULES.get(options.subset_rule)
    check_size_of_subset(options, records=records)


def known_for(
    source: DataSource, seen: Seen, records: Sequence[Path], options: ComplexityOptions
) -> Known | None:
    """Return what records say about the images; None where no subset asks for it."""
    if options.subset is None or options.subset_rule != HARDEST:
        return None
    return known_images(records, seen.paths, seen.labels, source.classes)


def chosen_subset(
    source: DataSource,
    seen: Seen,
    votes: RepeatedCsg,
    *,
    options: ComplexityOptions,
    smaller: Reduction | None,
    known: Known | None,
) -> Subset | None:
    """Choose and write the subset that was asked for; None where none was.

    Raises `InputError` `NO_SUBSET_SIZE` where no size was said and none was found.
    """
    if options.subset is None:
        return None
    per_class = options.per_class or (smaller.smallest if smaller else None)
    if per_class is None:
        raise InputError(
            "no smaller set keeps the complexity, so there is none to write",
            code="NO_SUBSET_SIZE",
            where=options.subset,
            hint="say how many: --per-class 500",
        )
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


def short_classes(source: DataSource, seen: Seen, options: ComplexityOptions) -> list[str]:
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


def _kept(known: Known, rows: NDArray[np.int64]) -> KeptLearnability:
    kept = known.easiness[rows]
    dropped = np.delete(known.easiness, rows)
    return KeptLearnability(
        kept=_mean(kept), dropped=_mean(dropped), unknown=int(np.isnan(kept).sum())
    )


def _mean(easiness: NDArray[np.float64]) -> float | None:
    found = easiness[~np.isnan(easiness)]
    return float(found.mean()) if len(found) else None
