"""A CSV file with one image per line: its path, its class, perhaps its split."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.data.files import Run, files_of
from prunecli.data.layout import class_names, find_splits
from prunecli.data.source import FORMATS, DataFormat, DataSource
from prunecli.data.vocabulary import CLASSES, PATHS, SPLIT_NAMES, SPLITS
from prunecli.data.walk import entries, is_folder
from prunecli.errors import InputError
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUFFIXES = frozenset({".csv", ".tsv", ".txt"})


@dataclass(frozen=True)
class _Line:
    """One image of a table: where it is, what it shows (empty: not said), and its split."""

    path: str
    label: str
    split: str


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
    lines = [line for split, table in tables.items() for line in _lines(table, split, problems)]
    there = [line for line in lines if _is_file(line.path)]
    missing = [line.path for line in lines if not _is_file(line.path)]
    labelled = [line for line in there if line.label]
    if not labelled:
        raise _nothing(path, len(lines), len(there), missing)
    if missing:
        count = len(missing)
        problems.append(
            f"{counted(count, 'file')} of the table {verb(count, 'is', 'are')} not there, such as "
            f"{missing[0]}"
        )
    if lost := len(there) - len(labelled):
        problems.append(
            f"{counted(lost, 'image')} of the table {verb(lost, 'has', 'have')} no label and "
            f"{verb(lost, 'is', 'are')} left out"
        )
    labels = sorted({line.label for line in lines if line.label}, key=_numbers_first)
    number = {name: at for at, name in enumerate(labels)}
    splits = {}
    for split in dict.fromkeys(line.split for line in labelled):
        own = [line for line in labelled if line.split == split]
        run = Run("", [line.path for line in own], [number[line.label] for line in own])
        splits[split] = files_of([run])
    return DataSource(path, "csv", tuple(labels), splits, tuple(problems))


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


def _lines(table: Path, split: str, problems: list[str]) -> Iterator[_Line]:
    rows = _rows(table)
    (path, label, named), body = _columns(table, rows)
    if _is_header(table, body, path, label):
        problems.append(f"the first line of {table.name} is taken for a header: {some(body[0])}")
        body = body[1:]
    for row in body:
        place = os.path.join(table.parent, row[path].strip())  # noqa: PTH118 - may be a million
        own = split or ("all" if named is None else _split(table, row[named]))
        yield _Line(place, row[label].strip(), own)


def _is_header(table: Path, body: Sequence[list[str]], path: int, label: int) -> bool:
    """Say whether a first line names columns in words of its own: no file, no other's class."""
    if len(body) < 3 or _is_file(str(table.parent / body[0][path].strip())):
        return False
    again = any(row[label] == body[0][label] for row in body[1:])
    return not again and all(_is_file(str(table.parent / row[path].strip())) for row in body[1:3])


def _nothing(path: Path, lines: int, there: int, missing: Sequence[str]) -> InputError:
    if there:
        return InputError(
            f"none of the {counted(there, 'image')} in the table has a label",
            code="NO_CLASSES",
            where=str(path),
            hint="a line is a path and a class, with a comma between",
        )
    return InputError(
        f"none of the {counted(lines, 'file')} in the table is there",
        code="NO_IMAGES",
        where=str(path),
        hint=f"such as {missing[0]}; paths are relative to the table's folder"
        if missing
        else "a line is a path and a class, with a comma between",
    )


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        sample = text[:4096]
        delimiter = next((sign for sign in "\t,;" if sign in sample), ",")
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [row for row in table if any(row)]
    except UnicodeDecodeError as error:
        raise _corrupt(path, f"it is no UTF-8 text (byte {error.start})") from error
    except (OSError, csv.Error) as error:
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
    summary="a table (.csv, .tsv, .txt) of path and label, or a folder of images that holds one",
)
