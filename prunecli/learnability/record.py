"""Hits and misses of one run: which training images were right after which epoch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunecli.atomic import atomic_write
from prunecli.errors import LoadRefusedError
from prunecli.files import check_memory, check_plain, reading
from prunecli.preflight.analysis import missing_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

Hits: TypeAlias = NDArray[np.bool_]
"""[images, epochs]: whether an image was classified rightly at an epoch."""

SCHEMA = 1
_TEXT = 256
"""Bytes of memory that the path of an image may take."""

KEY = b"prunecli.learnability"

SCORED = ("evaluation", "training")
"""When images are looked at: in a pass of its own after every epoch, in evaluation mode and without
augmentation, or as they are trained on, augmented and each by the network of its step.

The paper does not say which.
"""


@dataclass(frozen=True, eq=False)
class Record:
    """What was learned when: `paths` [N], `labels` [N], `hits` [N, T].

    `scored` says when an image was looked at: `evaluation` (a pass after each epoch, in evaluation
    mode, without augmentation) or `training` (as it was trained on). `facts` say where the record
    comes from: network, seed, data, versions.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    hits: Hits
    scored: str
    facts: Mapping[str, Any]


def class_names(record: Record, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return the classes that some images of a record are in."""
    return np.array(record.classes, object)[record.labels[rows]]


def learnability(hits: Hits) -> NDArray[np.float64]:
    """Return L [N]: the share of epochs at which an image was right.

    "Aggregate the hits and misses over the entire training epochs" (abstract); the mean instead of
    the sum is ours, and changes no correlation.
    """
    found: NDArray[np.float64] = hits.mean(axis=1, dtype=np.float64)
    return found


def forgetting_events(hits: Hits) -> NDArray[np.int64]:
    """Return how often [N] an image was right at an epoch and wrong at the next."""
    found: NDArray[np.int64] = np.count_nonzero(hits[:, :-1] & ~hits[:, 1:], axis=1)
    return found


def write_record(record: Record, path: Path) -> None:
    """Write a record as Parquet, atomically: a row per image, its hits packed as bits."""
    import pyarrow as pa
    from pyarrow import parquet

    packed = np.packbits(record.hits, axis=1)
    facts = {
        "schema": SCHEMA,
        "epochs": record.hits.shape[1],
        "classes": list(record.classes),
        "scored": record.scored,
        "facts": dict(record.facts),
    }
    table = pa.table(
        {
            "path": _column(record.paths),
            "label": record.labels,
            "hits": pa.array([row.tobytes() for row in packed], pa.binary(packed.shape[1])),
            "learnability": learnability(record.hits),
        }
    ).replace_schema_metadata({KEY: json.dumps(facts, sort_keys=True).encode()})
    with atomic_write(path) as place:
        parquet.write_table(table, place, compression="zstd")


def read_record(path: Path) -> Record:
    """Read a record; raises `InputError` (`NO_RECORD`) for a file that is not one of ours."""
    from pyarrow import parquet

    if not path.exists():
        raise missing_record(path)
    with reading(path, _no_record):
        check_plain(path)
        told = parquet.read_metadata(path)
        columns = told.schema.to_arrow_schema()
        widths = (getattr(field.type, "byte_width", 0) for field in columns if _is_fixed(field))
        check_memory(told.num_rows * (_TEXT + sum(widths)), path, what="unpacking the record")
        table = parquet.read_table(path)
        facts = json.loads((table.schema.metadata or {})[KEY])
        epochs, classes = int(facts["epochs"]), tuple(map(str, facts["classes"]))
        schema, scored, about = facts["schema"], str(facts["scored"]), dict(facts["facts"])
        labels = np.asarray(table["label"].to_numpy(), np.int64)
        rows = [np.frombuffer(row, np.uint8) for row in table["hits"].to_pylist()]
        packed = np.stack(rows) if rows else np.zeros((0, 0), np.uint8)
        paths = tuple(map(os.fsdecode, table["path"].to_pylist()))
    if not rows:
        raise _no_record(path, "it holds no image")
    if schema != SCHEMA or not 0 < epochs <= 8 * packed.shape[1]:
        raise _no_record(path, f"schema {schema}, {epochs} epochs")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise _no_record(path, f"labels beyond its {len(classes)} classes")
    hits = np.unpackbits(packed, axis=1, count=epochs).astype(np.bool_)
    return Record(paths, labels, classes, hits, scored, about)


def _is_fixed(field: pa.Field) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_binary(field.type))


def _column(paths: tuple[str, ...]) -> pa.Array:
    """Return the paths as text, or all as bytes where a file has a name that is no UTF-8."""
    import pyarrow as pa

    try:
        return pa.array(list(paths), pa.string())
    except UnicodeEncodeError:
        return pa.array([os.fsencode(path) for path in paths], pa.binary())


def _no_record(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the file is no record of what a model learned: {reason}",
        code="NO_RECORD",
        where=str(path),
        hint="make one: prunecli finetune ... --record-learnability run.parquet",
    )
