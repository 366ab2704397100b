"""Data sets that the Hugging Face library `datasets` saved to disk: Arrow files beside JSON.

Read with pyarrow alone, which maps the files into memory: nothing is downloaded, no loading script
is run, and the library need not be installed.
"""

from __future__ import annotations

from glob import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from prunecli.data.formats.arrow_rows import Pictures, read_columns
from prunecli.data.formats.vocabulary import CLASSES, SPLIT_NAMES
from prunecli.data.source import FORMATS, DataFormat, DataSource, Packed
from prunecli.errors import InputError, LoadRefusedError
from prunecli.files import read_json, reading
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES = ("image", "img", "picture", "pixel_values", "jpg", "png")
LABELS = (*CLASSES, "labels", "fine_label")
"""What people call the two columns, where the types of a data set's columns do not tell."""

_Part: TypeAlias = tuple[str, "Path", tuple[str, ...]]
"""A split: its name, its folder, and its Arrow files; none: those that its state names."""

DICTIONARY, INFO, STATE = "dataset_dict.json", "dataset_info.json", "state.json"


def recognises(folder: Path) -> bool:
    """Say whether a folder was written by `save_to_disk`, or is a part of the library's cache."""
    if not folder.is_dir():
        return False
    saved = (folder / DICTIONARY).is_file() or (folder / STATE).is_file()
    return saved or ((folder / INFO).is_file() and any(folder.glob("*.arrow"))) or _parquet(folder)


def read(folder: Path) -> DataSource:
    """Read the labels of a data set; the images stay where they are until they are asked for.

    The image is the column of type `Image`, the label that of type `ClassLabel`; where there are
    several, or none, it is the one that is called so (`IMAGES`, `LABELS`). Rows without a label are
    a problem, not an error. Raises `InputError`: `CORRUPT_DATA`, `NO_IMAGES`, `NO_CLASSES`,
    `AMBIGUOUS_COLUMNS`, `DATA_NOT_RECOGNISED`.
    """
    if _parquet(folder):
        raise InputError(
            "the folder holds Parquet files, as data sets are published in, none saved to disk",
            code="DATA_NOT_RECOGNISED",
            where=str(folder),
            hint="save it once: datasets.load_dataset(FOLDER).save_to_disk(OTHER_FOLDER)",
        )
    problems: list[str] = []
    found: dict[str, tuple[Pictures, NDArray[Any]]] = {}
    named: tuple[str, ...] | None = None
    for name, place, files in _parts(folder, problems):
        features = _features(place)
        image, label = _image_column(place, features), _label_column(place, features)
        names = features[label].get("names")
        if found and names != (None if named is None else list(named)):
            raise _corrupt(place, "its classes are not those of the other splits")
        named = None if names is None else tuple(str(entry) for entry in names)
        found[name] = read_columns(place, files, image=image, label=label)
    classes, numbers = _numbered(folder, named, [labels for _, labels in found.values()])
    splits = {
        name: _labelled(name, pictures, own, problems)
        for (name, (pictures, _)), own in zip(found.items(), numbers, strict=True)
    }
    kept = {name: split for name, split in splits.items() if len(split)}
    if not kept:
        raise InputError(
            "no image of the data set has a label",
            code="NO_CLASSES",
            where=str(folder),
            hint="labels are numbers from 0, or names",
        )
    return DataSource(folder, "hugging-face", classes, kept, tuple(problems))


def _parts(folder: Path, problems: list[str]) -> list[_Part]:
    """Return the splits by our names for them."""
    if (folder / DICTIONARY).is_file():
        names = _json(folder / DICTIONARY).get("splits")
        if not isinstance(names, list) or not names:
            raise _corrupt(folder / DICTIONARY, "it names no splits")
        if elsewhere := [name for name in names if name != PurePath(str(name)).name]:
            raise _corrupt(folder / DICTIONARY, f"{elsewhere[0]!r} is no name of a split")
        places: list[_Part] = [(str(name), folder / str(name), ()) for name in names]
    elif (folder / STATE).is_file():
        split = _json(folder / STATE).get("_split")
        return [(SPLIT_NAMES.get(str(split).lower(), "all"), folder, ())]
    else:
        splits = _json(folder / INFO).get("splits") or {}
        if not isinstance(splits, dict):
            raise _corrupt(folder / INFO, "its splits go by no names")
        plain = {name: escape(name) for name in splits}
        patterns = {name: (f"*-{it}.arrow", f"*-{it}-*-of-*.arrow") for name, it in plain.items()}
        places = [
            (name, folder, tuple(sorted(file.name for end in ends for file in folder.glob(end))))
            for name, ends in patterns.items()
        ]
    return _our_names(folder, places, problems)


def _our_names(
    folder: Path,
    places: Sequence[_Part],
    problems: list[str],
) -> list[_Part]:
    known = [
        (SPLIT_NAMES[name.lower()], place, files)
        for name, place, files in places
        if name.lower() in SPLIT_NAMES
    ]
    if not known and len(places) == 1:
        return [("all", places[0][1], places[0][2])]
    ours = [name for name, _, _ in known]
    if not ours or len(set(ours)) < len(ours):
        raise InputError(
            f"its splits are {some([name for name, _, _ in places])}: none is called train or test"
            if not ours
            else f"two of its splits go by the same name: {some([name for name, _, _ in places])}",
            code="DATA_NOT_RECOGNISED",
            where=str(folder),
            hint="rename them to train, validation and test",
        )
    others = [name for name, _, _ in places if name.lower() not in SPLIT_NAMES]
    if others:
        count = len(others)
        problems.append(
            f"{counted(count, 'split')} {verb(count, 'is', 'are')} neither for training nor for "
            f"testing and left out: {some(others)}"
        )
    return sorted(known, key=lambda part: ("train", "val", "test").index(part[0]))


def _features(place: Path) -> dict[str, dict[str, Any]]:
    features = _json(place / INFO).get("features")
    if not isinstance(features, dict) or not features:
        raise _corrupt(place / INFO, "it names no columns")
    return {name: kind if isinstance(kind, dict) else {} for name, kind in features.items()}


def _image_column(place: Path, features: Mapping[str, dict[str, Any]]) -> str:
    kinds = ("Image",)
    typed = [name for name, kind in features.items() if kind.get("_type") in kinds]
    plain = [name for name, kind in features.items() if kind.get("dtype") == "binary"]
    return _column(place, "image", features, typed, [name for name in IMAGES if name in plain])


def _label_column(place: Path, features: Mapping[str, dict[str, Any]]) -> str:
    typed = [name for name, kind in features.items() if kind.get("_type") == "ClassLabel"]
    plain = [
        name
        for name in LABELS
        if name in features
        and str(features[name].get("dtype")).startswith(("int", "uint", "string", "bool"))
    ]
    return _column(place, "label", features, typed, plain)


def _column(
    place: Path,
    what: str,
    features: Mapping[str, dict[str, Any]],
    typed: Sequence[str],
    plain: Sequence[str],
) -> str:
    """Return the only column of the type; of several, or none, the one that is called so."""
    usual = [name for name in (*IMAGES, *LABELS) if name in typed]
    candidates = list(typed) if len(typed) == 1 else usual or ([] if typed else list(plain))
    if len(candidates) == 1:
        return candidates[0]
    several = candidates or typed
    raise InputError(
        f"several columns may be the {what}: {some(several)}"
        if several
        else f"no column is the {what}: it has {some(list(features))}",
        code="AMBIGUOUS_COLUMNS" if several else "NO_IMAGES" if what == "image" else "NO_CLASSES",
        where=str(place),
        hint="keep one image and one label: "
        "dataset.select_columns(['image', 'label']).save_to_disk(FOLDER)",
    )


def _numbered(
    folder: Path, names: tuple[str, ...] | None, labels: Sequence[NDArray[Any]]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Return the classes, and labels as positions in them, -1 where there is none."""
    if names is not None:
        if any(own.dtype == object for own in labels):
            raise _corrupt(folder, "its labels have names and are no numbers of them")
        highest = max((int(own.max(initial=-1)) for own in labels), default=-1)
        if highest >= len(names):
            raise _corrupt(folder, f"label {highest} goes beyond its {len(names)} classes")
        return names, [own.astype(np.int64) for own in labels]
    given = [np.array([value is not None for value in own], dtype=np.bool_) for own in labels]
    there = [own[mask] for own, mask in zip(labels, given, strict=True)]
    classes = np.unique(np.concatenate([own.astype(there[0].dtype) for own in there]))
    numbers = []
    for own, mask in zip(labels, given, strict=True):
        found = np.full(len(own), -1, dtype=np.int64)
        found[mask] = np.searchsorted(classes, own[mask])
        numbers.append(found)
    return tuple(str(value) for value in classes.tolist()), numbers


def _labelled(
    name: str, pictures: Pictures, labels: NDArray[np.int64], problems: list[str]
) -> Packed:
    """Return the images that have a label; data sets often hide those of their test images."""
    places = np.flatnonzero(labels >= 0)
    lost = len(labels) - len(places)
    if lost:
        problems.append(
            f"{counted(lost, 'image')} of {name} {verb(lost, 'has', 'have')} no label and "
            f"{verb(lost, 'is', 'are')} left out"
        )
    return Packed(pictures.content, labels[places], places)


def _parquet(folder: Path) -> bool:
    """Say whether a folder is a data set as it is published, not as the library saves it."""
    return any(any(place.glob("*.parquet")) for place in (folder, folder / "data"))


def _json(path: Path) -> dict[str, Any]:
    with reading(path, _corrupt):
        content = read_json(path)
    if not isinstance(content, dict):
        raise _corrupt(path, "it holds no object")
    return content


def _corrupt(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the saved data set cannot be read: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="save it again: dataset.save_to_disk(FOLDER)",
    )


FORMATS.add(
    "hugging-face",
    DataFormat(recognises, read),
    summary="a folder of the Hugging Face library: dataset.save_to_disk(FOLDER)",
    source="github.com/huggingface/datasets",
)
