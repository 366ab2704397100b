"""A record that goes on: the epochs of one run behind those of another."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.data import identity
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from prunecli.learnability.record import Record

CONTINUED = "continued"
"""The facts of the runs behind the first, under this name among those of the first."""

IDENTITY = ("start", "seed", "epochs")
"""Facts that tell one run from another: the file that it started from, its seed and its length."""


def continued(first: Record, second: Record, *, where: Path) -> Record:
    """Return a record with the epochs of `second` behind those of `first`, images as in `first`.

    Raises `InputError` (`RECORD_MISMATCH`) unless both are of the same images with the same labels,
    of the same network, and looked at in the same way, and for a run that is in it already.
    """
    check_continuation(
        first, facts=second.facts, scored=second.scored, images=second.paths, where=where
    )
    place = {identity(path): at for at, path in enumerate(second.paths)}
    if len(first.paths) != len(second.paths):
        raise _mismatch(f"it has {len(first.paths)} images, the run {len(second.paths)}", where)
    rows = np.array([place[identity(path)] for path in first.paths], np.int64)
    there = [second.classes[label] for label in second.labels[rows].tolist()]
    moved = sum(
        first.classes[label] != name
        for label, name in zip(first.labels.tolist(), there, strict=True)
    )
    if moved:
        raise _mismatch(f"{moved} images are in another class than they were then", where)
    return dataclasses.replace(
        first,
        hits=np.concatenate([first.hits, second.hits[rows]], axis=1),
        facts={
            **first.facts,
            CONTINUED: [*first.facts.get(CONTINUED, ()), dict(second.facts)],
        },
    )


def check_continuation(
    record: Record,
    *,
    facts: Mapping[str, Any],
    scored: str,
    images: Collection[str],
    where: Path,
) -> None:
    """Raise `InputError` (`RECORD_MISMATCH`) where a run with `facts` cannot go on with a record.

    `images` are those that it is going to be trained on, as far as they can be read.
    """
    compared = {
        "network": (record.facts.get("network"), facts.get("network")),
        "way of looking": (record.scored, scored),
    }
    for name, (then, now) in compared.items():
        if then != now:
            raise _mismatch(f"its {name} is {then}, here it is {now}", where)
    runs = [record.facts, *record.facts.get(CONTINUED, ())]
    if any(all(run.get(name) == facts.get(name) for name in IDENTITY) for run in runs):
        raise _mismatch("this run is in it already", where)
    missing = len(set(map(identity, record.paths)) - set(map(identity, images)))
    if missing:
        raise _mismatch(f"{missing} of its {len(record.paths)} images are not trained on", where)


def _mismatch(reason: str, where: Path) -> InputError:
    return InputError(
        f"the record cannot be gone on with: {reason}",
        code="RECORD_MISMATCH",
        where=str(where),
        hint="go on with the same --data, --seed, --limit, --held-out and model, or write "
        "another record",
    )
