"""A CSV file with one image per line: its path, its class, perhaps its split."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data.formats.layout import class_names, find_splits
from prunecli.data.formats.vocabulary import CLASSES, PATHS, SPLIT_NAMES, SPLITS
from prunecli.data.image_files import Run, files_of
from prunecli.data.source import FORMATS, DataFormat, DataSource
from prunecli.data.walk import entries, is_folder, leads_out
from prunecli.errors import InputError, LoadRefusedError
from prunecli.files import check_plain, reading
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUFFIXES = frozenset({".csv", ".tsv", ".txt"})


@dataclass
class _Gathered:
    """Images of tables, line by line: names and numbers of classes by (split, folder of the table).

    `numbers` says which class has which number, in the order of appearance. Of `lines`, `missing`
    names those whose file is not there, `outside` those whose file lies outside of the folder
    `root` of the data, and `unlabelled` counts files without a class.
    """

    root: str

    names: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    labels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unlabelled: int = 0
    lines: int = 0


def recognises(path: Path) -> bool:
    """Say whether `path` is called like a table, or a folder of images with a table of them.

    In such a folder images are not sorted into class folders; it has one table, or one that is
    called `train`, `val` or `test` for each split, or one in the folder of each split.
    """
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and bool(_tables_in(path)) and len(class_names(path)) < 2


def read(path: Path) -> DataSource:
    """Read a table of images; relative paths start at the table's own folder.

    The classes are the labels over all splits, sorted: as numbers where all of them are, so that
    gaps and a start at 1 do no harm. A file that is not there, or has no label, is a problem, not
    an error, unless there is none else. Raises `InputError`: `CORRUPT_DATA`, `NO_IMAGES`,
    `NO_CLASSES`.
    """
    tables = {"": path} if path.is_file() else _tables_in(path)
    problems: list[str] = []
    found = _Gathered(str(path.parent if path.is_file() else path))
    for split, table in tables.items():
        _gather_(found, table, split, problems)
    if not found.names:
        raise _nothing(path, found)
    if count := len(found.missing):
        problems.append(
            f"{counted(count, 'file')} of the table {verb(count, 'is', 'are')} not there, such as "
            f"{found.missing[0]}"
        )
    if count := len(found.outside):
        problems.append(
            f"{counted(count, 'file')} of the table {verb(count, 'lies', 'lie')} outside of its "
            f"folder and {verb(count, 'is', 'are')} left out (--allow-outside takes them), such as "
            f"{found.outside[0]}"
        )
    if lost := found.unlabelled:
        problems.append(
            f"{counted(lost, 'image')} of the table {verb(lost, 'has', 'have')} no label and "
            f"{verb(lost, 'is', 'are')} left out"
        )
    classes = sorted(found.numbers, key=_numbers_first)
    order = np.empty(len(classes), np.int64)
    order[[found.numbers[name] for name in classes]] = np.arange(len(classes))
    splits = {
        split: files_of(
            Run(folder, names, order[found.labels[own, folder]].tolist())
            for (own, folder), names in found.names.items()
            if own == split
        )
        for split in dict.fromkeys(split for split, _ in found.names)
    }
    return DataSource(path, "csv", tuple(classes), splits, tuple(problems))


def _tables_in(folder: Path) -> dict[str, Path]:
    """Return the tables in a folder by our names for their splits; "" where there is one alone."""
    tables = _named_tables(folder)
    if len(tables) == 1:
        return {"": tables[0]}
    by_split = {SPLIT_NAMES.get(table.stem.lower(), ""): table for table in tables}
    if tables and len(by_split) == len(tables):
        return {} if "" in by_split else by_split
    inside = {split: _named_tables(place) for split, place in find_splits(folder).items()}
    one_each = inside and all(len(found) == 1 for found in inside.values())
    return {split: found[0] for split, found in inside.items()} if one_each else {}


def _named_tables(folder: Path) -> list[Path]:
    return sorted(
        Path(entry.path)
        for entry in entries(folder)
        if entry.name.lower().endswith((".csv", ".tsv")) and not is_folder(entry)
    )


def _gather_(found: _Gathered, table: Path, split: str, problems: list[str]) -> None:
    """Add the images of one table."""
    sheet = _sheet(table)
    (path, label, named), skipped = _columns(sheet)
    body = islice(sheet.rows(), skipped, None)
    if _is_header(sheet, skipped, path, label):
        first = next(body)
        problems.append(f"the first line of {table.name} is taken for a header: {some(first)}")
    folder = str(table.parent)
    away: dict[str, bool] = {}
    for row in body:
        found.lines += 1
        name, text = row[path].strip(), row[label].strip()
        if text:
            found.numbers.setdefault(text, len(found.numbers))
        place = os.path.join(folder, name)  # noqa: PTH118 - there may be a million
        if not _is_file(place):
            found.missing.append(place)
        elif _is_outside(place, found.root, away):
            found.outside.append(place)
        elif text:
            own = split or ("all" if named is None else _split(table, row[named]))
            found.names.setdefault((own, folder), []).append(name)
            found.labels.setdefault((own, folder), []).append(found.numbers[text])
        else:
            found.unlabelled += 1


def _is_outside(place: str, root: str, known: dict[str, bool]) -> bool:
    """Tell whether a file may not be read where it is; `known` says it of folders."""
    folder = os.path.dirname(place)  # noqa: PTH120
    if folder not in known:
        known[folder] = leads_out(folder, root)
    return known[folder] or (os.path.islink(place) and leads_out(place, root))  # noqa: PTH114


def _is_header(sheet: _Sheet, skipped: int, path: int, label: int) -> bool:
    """Say whether a first line names columns in words of its own: no file, no other's class."""
    beginning = list(islice(sheet.rows(), skipped, skipped + 3))
    there = [_is_file(str(sheet.path.parent / row[path].strip())) for row in beginning]
    if there != [False, True, True]:
        return False
    word = beginning[0][label]
    return all(row[label] != word for row in islice(sheet.rows(), skipped + 1, None))


def _nothing(path: Path, found: _Gathered) -> InputError:
    hint = "a line is a path and a class, with a comma between"
    if found.unlabelled:
        return InputError(
            f"none of the {counted(found.unlabelled, 'image')} in the table has a label",
            code="NO_CLASSES",
            where=str(path),
            hint=hint,
        )
    if found.outside:
        return InputError(
            f"all of the {counted(len(found.outside), 'file')} of the table that are there lie "
            "outside of its folder",
            code="NO_IMAGES",
            where=str(path),
            hint=f"such as {found.outside[0]}; if you want them: --allow-outside",
        )
    return InputError(
        f"none of the {counted(found.lines, 'file')} in the table is there",
        code="NO_IMAGES",
        where=str(path),
        hint=f"such as {found.missing[0]}; paths are relative to the table's folder"
        if found.missing
        else hint,
    )


@dataclass(frozen=True)
class _Sheet:
    """A table whose rows are read anew whenever they are asked for, never all at once."""

    path: Path
    delimiter: str

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows that hold anything; raises `InputError` for what is no table."""
        with (
            reading(self.path, _corrupt),
            self.path.open(encoding="utf-8-sig", newline="") as file,
        ):
            yield from (row for row in csv.reader(file, delimiter=self.delimiter) if any(row))


def _sheet(path: Path) -> _Sheet:
    with reading(path, _corrupt):
        check_plain(path)
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            sample = file.read(4096)
    return _Sheet(path, next((sign for sign in "\t,;" if sign in sample), ","))


def _columns(sheet: _Sheet) -> tuple[tuple[int, int, int | None], int]:
    """Return the columns of path, class and split, and how many lines are a header: 0 or 1."""
    header = [name.strip().lower() for name in next(sheet.rows(), [])]
    if not header:
        raise _corrupt(sheet.path, "it is empty")
    narrowest, width = min(
        ((at, len(row)) for at, row in enumerate(sheet.rows(), 1)), key=itemgetter(1)
    )
    if width < 2:
        raise _corrupt(sheet.path, f"line {narrowest} has one column alone")
    path, label, split = (_named(header, names) for names in (PATHS, CLASSES, SPLITS))
    if path is None and label is None:
        return (0, 1, 2 if width > 2 else None), 0
    if path is None or label is None:
        given = ", ".join(header)
        raise _corrupt(sheet.path, f"its header names {given}: a path or a class is missing")
    if width <= max(path, label, split or 0):
        raise _corrupt(sheet.path, f"line {narrowest} has {width} columns")
    return (path, label, split), 1


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - also False for names that no file can have


def _named(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _split(table: Path, word: str) -> str:
    name = SPLIT_NAMES.get(word.strip().lower())
    if name is None:
        raise _corrupt(table, f"{word!r} is no split (train, val, test)")
    return name


def _numbers_first(label: str) -> tuple[bool, float, str]:
    number = label.removeprefix("-").isdecimal()
    return (not number, float(label) if number else 0.0, label)


def _corrupt(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the table of images cannot be read: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="a line is a path and a class, with a comma between; a header may name them "
        "(path,label,split)",
    )


FORMATS.add(
    "csv",
    DataFormat(recognises, read),
    summary="a table (.csv, .tsv, .txt) of path and label, or a folder of images that holds one",
)
