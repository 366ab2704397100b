"""A CSV file with one image per line: its path, its class, perhaps its split."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from prunecli.data.files import Sample
from prunecli.data.source import FORMATS, DataFormat, DataSource
from prunecli.data.vocabulary import CLASSES, PATHS, SPLIT_NAMES, SPLITS
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIXES = frozenset({".csv", ".tsv", ".txt"})


def recognises(path: Path) -> bool:
    """Say whether `path` is a file that is called like a table."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path) -> DataSource:
    """Read a table of images; relative paths start at the table's own folder.

    The classes are the labels over all splits, sorted: as numbers where all of them are, so that
    gaps and a start at 1 do no harm. A file that is not there is a problem, not an error, unless
    all are missing. Raises `InputError`: `CORRUPT_DATA`, `NO_IMAGES`.
    """
    rows = _rows(path)
    columns, body = _columns(path, rows)
    labels = sorted({row[columns[1]].strip() for row in body}, key=_numbers_first)
    number = {name: at for at, name in enumerate(labels)}
    splits: dict[str, list[Sample]] = {}
    missing: list[str] = []
    for row in body:
        place = path.parent / row[columns[0]].strip()
        if not _is_file(place):
            missing.append(str(place))
            continue
        sample = Sample(place, number[row[columns[1]].strip()])
        splits.setdefault(_split(path, row, columns), []).append(sample)
    if not splits:
        raise InputError(
            f"none of the {len(body)} files in the table is there",
            code="NO_IMAGES",
            where=str(path),
            hint=f"such as {missing[0]}; paths are relative to the table's folder"
            if missing
            else "a line is a path and a class, with a comma between",
        )
    problems = [f"{len(missing)} files are not there, such as {missing[0]}"] if missing else []
    found = {name: tuple(samples) for name, samples in splits.items()}
    return DataSource(path, "csv", tuple(labels), found, tuple(problems))


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        sample = text[:4096]
        delimiter = next((sign for sign in "\t,;" if sign in sample), ",")
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _corrupt(path, str(error)) from error
    short = next((at for at, row in enumerate(rows, 1) if len(row) < 2), None)
    if not rows or short is not None:
        raise _corrupt(path, "it is empty" if not rows else f"line {short} has one column alone")
    return rows


def _columns(
    path: Path, rows: Sequence[list[str]]
) -> tuple[tuple[int, int, int | None], Sequence[list[str]]]:
    """Return the columns of path, class and split, and the lines below the header, if any."""
    header = [name.strip().lower() for name in rows[0]]
    places = [_named(header, names) for names in (PATHS, CLASSES, SPLITS)]
    if places[0] is None and places[1] is None:
        width = min(len(row) for row in rows)
        return (0, 1, 2 if width > 2 else None), rows
    if places[0] is None or places[1] is None:
        raise _corrupt(path, f"its header names {', '.join(header)}: a path or a class is missing")
    highest = max(place for place in places if place is not None)
    short = next((at for at, row in enumerate(rows, 1) if len(row) <= highest), None)
    if short is not None:
        raise _corrupt(path, f"line {short} has {len(rows[short - 1])} columns")
    return (places[0], places[1], places[2]), rows[1:]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _named(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _split(path: Path, row: Sequence[str], columns: tuple[int, int, int | None]) -> str:
    if columns[2] is None:
        return "all"
    name = SPLIT_NAMES.get(row[columns[2]].strip().lower())
    if name is None:
        raise _corrupt(path, f"{row[columns[2]]!r} is no split (train, val, test)")
    return name


def _numbers_first(label: str) -> tuple[bool, float, str]:
    number = label.removeprefix("-").isdecimal()
    return (not number, float(label) if number else 0.0, label)


def _corrupt(path: Path, reason: str) -> InputError:
    return InputError(
        f"the table of images cannot be read: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="a line is a path and a class, with a comma between; a header may name them "
        "(path,label,split)",
    )


FORMATS.add(
    "csv",
    DataFormat(recognises, read),
    summary="a table (.csv, .tsv, .txt) of path and label, perhaps with a split",
)
