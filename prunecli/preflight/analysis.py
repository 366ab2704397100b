"""What no model and no data set can be analyzed by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.files import nearest_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prunecli.options import AnalyzeOptions, ComplexityOptions

HARDEST = "hardest"
"""The subset rule that looks at records of what models learned."""


def check_analysis(options: AnalyzeOptions, *, images: bool) -> None:
    """Raise `InputError` for what needs images, or more than was said."""
    check_device_name(options.complexity.device)
    check_records(options.learnability)
    if options.oracle and not images:
        raise no_oracle_images()
    if options.importance and not images:
        raise no_images_to_measure()
    if options.complexity.subset is not None:
        check_size_of_subset(options.complexity, records=options.learnability)


DEVICE_TYPES = ("auto", "cpu", "cuda", "hpu", "meta", "mps", "mtia", "xla", "xpu")
"""What the name of a device begins with, before a colon and a number."""


def check_device_name(name: str) -> None:
    """Raise `InputError` (`BAD_DEVICE`) for a name that no device has."""
    if name.partition(":")[0] not in DEVICE_TYPES:
        raise bad_device(name)


def bad_device(name: str) -> InputError:
    """Return the error of a name that no device has."""
    return InputError(
        f"no device is called {name!r}", code="BAD_DEVICE", hint="write auto, cpu or cuda"
    )


def check_records(records: Iterable[Path]) -> None:
    """Raise `InputError` (`NO_RECORD`) for a record that is not there."""
    for path in records:
        if not path.exists():
            raise missing_record(path)


def missing_record(path: Path) -> InputError:
    """Return the error of a record of what a model learned that is not there."""
    return InputError(
        "there is no such record of what a model learned",
        code="NO_RECORD",
        where=str(path),
        hint=f"{nearest_path(path)}check the path, or make one: prunecli finetune ... "
        "--record-learnability run.parquet",
    )


def no_oracle_images() -> InputError:
    """Return the error of an oracle without images."""
    return InputError(
        "the oracle measures a loss, and no images were given",
        code="ORACLE_NEEDS_DATA",
        hint="add --data DIR",
    )


def no_images_to_measure() -> InputError:
    """Return the error of measured importances without images."""
    return InputError(
        "the importance of layers is measured on images, and none were given",
        code="IMPORTANCE_NEEDS_DATA",
        hint="add --data DIR",
    )


def check_size_of_subset(options: ComplexityOptions, *, records: Iterable[Path]) -> None:
    """Raise `InputError` for a rule that lacks its records, and for a size that nothing says."""
    if options.subset_rule == HARDEST and not tuple(records):
        raise InputError(
            "the hardest images are those that models learned latest, and no record is named",
            code="NO_RECORD",
            hint="add --learnability run.parquet, of finetune --record-learnability",
        )
    if options.per_class is None and not options.reduce:
        raise InputError(
            "it is not said how many images of each class the subset has",
            code="NO_SUBSET_SIZE",
            where=options.subset,
            hint="say how many: --per-class 500, or let --reduce find the number",
        )
