"""What records say about the images of a data set at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data import identity
from prunecli.errors import InputError
from prunecli.learnability.record import Record, class_names, learnability, read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Known:
    """How learnable images are: `easiness` [N] is the mean L over runs, NaN where no run had it.

    `warnings` are sentences for people, with counts.
    """

    easiness: NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    @property
    def unknown(self) -> int:
        """Number of images that no record holds."""
        return int(np.isnan(self.easiness).sum())

    def filled(self, value: float) -> NDArray[np.float64]:
        """Return the easiness with `value` for images that no record holds."""
        return np.nan_to_num(self.easiness, nan=value)

    @property
    def mean(self) -> float:
        """Mean L of the images that a record holds."""
        return float(np.nanmean(self.easiness))


def known_images(
    files: Sequence[Path],
    paths: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> Known:
    """Return what records say about images with `paths`, `labels` [N] and names of classes.

    Images go by their path, or by their number where they are no files. Raises `InputError`:
    `NO_RECORD`, `NO_COMMON_IMAGES`, and `OTHER_LABELS` where most of the images that go by one name
    are in another class, as images that go by their number are in another data set.
    """
    place = {identity(path): at for at, path in enumerate(paths)}
    total, seen = np.zeros(len(paths)), np.zeros(len(paths))
    warnings = []
    for file in files:
        record = read_record(file)
        named = [(place.get(identity(path), -1), row) for row, path in enumerate(record.paths)]
        found = np.array([pair for pair in named if pair[0] >= 0], np.int64).reshape(-1, 2)
        if not len(found):
            raise _nothing_in_common(file, record, paths)
        here, there = found.T
        moved = _moved(record, there, labels[here], classes)
        if 2 * moved > len(here):
            raise InputError(
                f"{moved} of {len(here)} images are in another class in the record",
                code="OTHER_LABELS",
                where=str(file),
                hint="give a record of training on this data set",
            )
        if moved:
            warnings.append(f"{file}: {moved} images are in another class than they were then")
        total[here] += learnability(record.hits)[there]
        seen[here] += 1
    with np.errstate(invalid="ignore"):
        return Known(total / np.where(seen > 0, seen, np.nan), tuple(warnings))


def _moved(
    record: Record, rows: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]
) -> int:
    then = class_names(record, rows)
    return int((then != np.array(classes, object)[labels]).sum())


def _nothing_in_common(file: Path, record: Record, paths: Sequence[str]) -> InputError:
    then = record.paths[0] if record.paths else "nothing"
    return InputError(
        "the record holds none of the images",
        code="NO_COMMON_IMAGES",
        where=str(file),
        hint=f"it holds {then} and its like, the data {paths[0] if paths else 'nothing'}: give the "
        "data set that was trained on, at the same place",
    )
