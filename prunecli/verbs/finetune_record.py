"""The record of `finetune`: which training images were right after which epoch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from prunecli.artefacts.origin import dense_architecture
from prunecli.artefacts.provenance import versions
from prunecli.data import choose, names_of
from prunecli.learnability import check_continuation, continued, read_record, write_record

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.checkpoint import Loaded
    from prunecli.data import DataSource
    from prunecli.learnability import Record
    from prunecli.options import FinetuneOptions


def write_learned(
    path: Path, record: Record, *, earlier: Record | None, facts: dict[str, Any]
) -> None:
    """Write what was learned when, behind the epochs of an `earlier` record where there is one."""
    told = {**record.facts, **facts, "versions": versions()}
    found = dataclasses.replace(record, facts=told)
    write_record(found if earlier is None else continued(earlier, found, where=path), path)


def earlier_record(
    record: Path | None, loaded: Loaded, source: DataSource, options: FinetuneOptions
) -> Record | None:
    """Return the record that a run goes on with, checked before any work; None for none yet."""
    if record is None or not record.exists():
        return None
    earlier = read_record(record)
    images = choose(
        source, "train", seed=options.seed, held_out=options.held_out, limit=options.limit
    )
    check_continuation(
        earlier,
        facts=facts_of(loaded, options),
        scored=options.record_learnability_mode,
        images=names_of(images),
        where=record,
    )
    return earlier


def facts_of(loaded: Loaded, options: FinetuneOptions) -> dict[str, Any]:
    """Return what tells a run from others in a record."""
    return {
        "network": str(dense_architecture(loaded.checkpoint)),
        "start": loaded.sha256,
        "seed": options.seed,
        "epochs": options.epochs,
    }
