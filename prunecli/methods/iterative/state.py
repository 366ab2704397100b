"""What an iterative run has to remember to go on as if it had never stopped, on disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.atomic import atomic_write
from prunecli.checkpoint.writing import save_torch
from prunecli.pruning.selection import Selection
from prunecli.report import Evaluation, FrozenReport, RemovalReport
from prunecli.training.state import (
    SCHEMA,
    STATE_FILE,
    check_settings,
    evaluation_from,
    read_fields,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """A run right after a removal, where nothing is accumulated.

    `keep` has one boolean per atom of the dense network, `selection` the widths to end at (None
    before the first removal). Every draw is derived from the seed, `epoch` and `step`.
    """

    settings: Mapping[str, Any]
    keep: Tensor
    selection: Selection | None
    epoch: int
    step: int
    before: Evaluation
    removals: tuple[RemovalReport, ...]
    first_seconds: float
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


def save_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write the snapshot to the run's folder, atomically."""
    fields = {
        field.name: getattr(snapshot, field.name) for field in dataclasses.fields(snapshot)
    } | {
        "before": dataclasses.asdict(snapshot.before),
        "selection": None if snapshot.selection is None else _to_fields(snapshot.selection),
        "removals": [dataclasses.asdict(removal) for removal in snapshot.removals],
    }
    with atomic_write(folder / STATE_FILE) as path:
        save_torch({"schema": SCHEMA, **fields}, path)


def load_snapshot(folder: Path, *, settings: Mapping[str, Any]) -> Snapshot | None:
    """Read a run's snapshot; None when there is none yet.

    Raises `InputError`: `RESUME_MISMATCH` when the run was started with other settings,
    `CORRUPT_STATE` when the file is not one of ours.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    fields = read_fields(path)
    check_settings(fields["settings"], settings, path)
    return Snapshot(
        **{
            **fields,
            "selection": fields["selection"] and _selection_from(fields["selection"]),
            "before": evaluation_from(fields["before"]),
            "removals": tuple(RemovalReport(**removal) for removal in fields["removals"]),
        }
    )


def _to_fields(selection: Selection) -> dict[str, Any]:
    return {**dataclasses.asdict(selection), "widths": selection.widths.tolist()}


def _selection_from(fields: Mapping[str, Any]) -> Selection:
    return Selection(
        widths=np.asarray(fields["widths"], np.int64),
        whole=tuple(FrozenReport(**item) for item in fields["whole"]),
        warnings=tuple(fields["warnings"]),
    )
