"""What a run has to remember to go on as if it had never stopped, on disk."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.atomic import atomic_write
from prunecli.checkpoint.torch_files import read_zip
from prunecli.checkpoint.writing import save_torch
from prunecli.errors import InputError, LoadRefusedError
from prunecli.files import reading
from prunecli.processes import ALONE, Processes
from prunecli.report import EpochReport, Evaluation, OutputAgreement, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance
    from torch import Tensor

SCHEMA = 1
STATE_FILE = "state.pt"
LOG_FILES = ("log.jsonl", "log.csv")


@dataclass(frozen=True)
class Best:
    """The best epoch so far by held-out accuracy, then loss; its tensors are on the CPU.

    0 is the network before training.
    """

    epoch: int
    evaluation: Evaluation
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Totals:
    """Sums over the images of the current epoch, and the seconds spent on them."""

    loss: float = 0.0
    hits: float = 0
    images: float = 0
    seconds: float = 0.0

    def times(self, factor: float) -> Totals:
        """Return the sums of `factor` processes that did alike in the same time."""
        return Totals(
            factor * self.loss, factor * self.hits, factor * self.images, seconds=self.seconds
        )


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps: `epoch` epochs are done, and `step` steps of the next one.

    There is no random state: every draw is derived from the seed, the epoch and the step.
    `settings` are those that must not change when the run is resumed, `method` is what the method
    of pruning remembers, `steps` those of the whole run (None: as its options say), and
    `steps_per_epoch` those that `epoch` and `step` count in (None: from before that was kept).
    `totals` are those of all processes, as far as the first one knows.
    """

    settings: Mapping[str, Any]
    epoch: int
    step: int
    totals: Totals
    before: Evaluation
    reports: tuple[EpochReport, ...]
    best: Best | None
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    average: Mapping[str, Tensor] | None
    scaler: Mapping[str, Any] | None
    method: Mapping[str, Any]
    steps: int | None = None
    steps_per_epoch: int | None = None
    hits: Tensor | None = None
    seen: Tensor | None = None


def save_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write the snapshot to the run's folder, atomically."""
    names = [field.name for field in dataclasses.fields(snapshot)]
    fields = {name: getattr(snapshot, name) for name in names}
    fields["before"] = dataclasses.asdict(snapshot.before)
    fields["totals"] = dataclasses.asdict(snapshot.totals)
    fields["reports"] = [dataclasses.asdict(report) for report in snapshot.reports]
    if snapshot.best is not None:
        fields["best"] = dataclasses.asdict(snapshot.best)
    with atomic_write(folder / STATE_FILE) as path:
        save_torch({"schema": SCHEMA, **fields}, path)


def has_state(folder: Path) -> bool:
    """Tell whether a run left a state to go on from in `folder`."""
    return (folder / STATE_FILE).exists()


def load_snapshot(
    folder: Path, *, settings: Mapping[str, Any], processes: Processes = ALONE
) -> Snapshot | None:
    """Read a run's snapshot; None when there is none yet.

    Of several `processes`, which may be on several machines, the first one reads it for all.
    Raises `InputError`: `RESUME_MISMATCH` when the run was started with other settings,
    `CORRUPT_STATE` when the file is not one of ours.
    """
    path = folder / STATE_FILE
    if not processes.agreed(path.exists()):
        return None
    saved = path.read_bytes() if processes.is_main else b""
    fields = read_fields(path, processes.told_bytes(saved))
    # How many processes it was is none: a run goes on in any number of them.
    earlier = {name: value for name, value in fields["settings"].items() if name != "processes"}
    check_settings(earlier, settings, path)
    best = fields["best"]
    if best is not None:
        best = Best(best["epoch"], evaluation_from(best["evaluation"]), best["tensors"])
    method = fields.pop("zeros", None)  # what masked weights were called, before other methods
    return Snapshot(
        **{
            "method": method or {},
            **fields,
            "before": evaluation_from(fields["before"]),
            "totals": Totals(**fields["totals"]),
            "reports": tuple(_epoch_from(report) for report in fields["reports"]),
            "best": best,
        }
    )


def _epoch_from(fields: Mapping[str, Any]) -> EpochReport:
    """Read an epoch that was saved as its fields; sparsity was one before methods had facts."""
    known = dict(fields)
    sparsity = known.pop("sparsity", None)
    facts = {} if sparsity is None else {"sparsity": sparsity}
    return EpochReport(**{"facts": facts, **known})


def write_logs(reports: Sequence[DataclassInstance], folder: Path) -> Path:
    """Write one line per report as JSON lines and as CSV; return the former's path.

    Both are written anew each time, so that a resumed run holds every epoch once. In CSV every
    entry of a mapping has a column: `widths.layer1.0.conv1`.
    """
    rows = [to_json(report) for report in reports]
    with atomic_write(folder / LOG_FILES[0]) as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with (
        atomic_write(folder / LOG_FILES[1]) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        flat = [_flat(row) for row in rows]
        names = dict.fromkeys(name for row in flat for name in row)
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(flat)
    return folder / LOG_FILES[0]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose mappings are told entry by entry, behind all that are none.

    >>> _flat({"alive": 7, "widths": {"conv1": 3, "conv2": 4}, "loss": 0.5})
    {'alive': 7, 'loss': 0.5, 'widths.conv1': 3, 'widths.conv2': 4}
    """
    nested = {name: value for name, value in row.items() if isinstance(value, dict)}
    plain = {name: value for name, value in row.items() if name not in nested}
    for name, entries in nested.items():
        plain |= {f"{name}.{key}": value for key, value in entries.items()}
    return plain


def read_fields(path: Path, saved: bytes) -> dict[str, Any]:
    """Read what a run saved at `path`; raise `LoadRefusedError` (`CORRUPT_STATE`) for damage."""
    with reading(path, _corrupt_state):
        fields = read_zip(path, io.BytesIO(saved))
        schema = fields.pop("schema")
    if schema != SCHEMA:
        raise InputError(
            f"the saved state has schema {schema}, this version reads {SCHEMA}",
            code="CORRUPT_STATE",
            where=str(path),
            hint="finish the run with the version that started it",
        )
    return dict(fields)


def _corrupt_state(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the saved state of the run cannot be read: {reason}",
        code="CORRUPT_STATE",
        where=str(path),
        hint="remove the file and start again without --resume",
    )


def evaluation_from(fields: Mapping[str, Any]) -> Evaluation:
    """Read an evaluation that was saved as its fields."""
    outputs = tuple(OutputAgreement(**output) for output in fields.get("outputs", ()))
    return Evaluation(**{**fields, "warnings": tuple(fields["warnings"]), "outputs": outputs})


def check_settings(saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` (`RESUME_MISMATCH`) where a run would go on with other settings."""
    names = sorted({*saved, *wanted})
    changed = [
        f"{name} was {saved.get(name)}, is {wanted.get(name)}"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
    if changed:
        raise InputError(
            f"the run cannot be resumed with other settings: {'; '.join(changed)}",
            code="RESUME_MISMATCH",
            where=str(path),
            hint="give the settings that it was started with, or start again without --resume",
        )
