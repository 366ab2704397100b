"""Segmentation: images with a mask each, in the layouts that people keep them in.

- `images/` beside `masks/` (or `labels/`, `annotations/`, ...), perhaps with `train/`, `val/` and
  `test/` above or below them;
- `JPEGImages/` and `SegmentationClass/` as in Pascal VOC, with the lists of its `ImageSets/`;
- `leftImg8bit/` and `gtFine/` as in Cityscapes (`labelTrainIds`);
- `train/` beside `trainannot/` as in CamVid.

Image and mask are of the same name but for what stands behind it (`_mask`, `_leftImg8bit`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.data.formats.vocabulary import SPLIT_NAMES
from prunecli.data.image_files import Run, files_of
from prunecli.data.masks import is_binary
from prunecli.data.source import FORMATS, UNLABELLED, DataFormat, DataSource, Pairs
from prunecli.data.walk import Findings, images_below, subfolders
from prunecli.errors import InputError
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IMAGES = ("images", "imgs", "image", "img", "jpegimages", "leftimg8bit")
MASKS = (
    "masks", "mask", "labels", "annotations", "annotation", "segmentations", "segmentation",
    "segmentationclass", "gtfine",
)  # fmt: skip
"""What the folders of images and of masks are called, in lower case."""

BEHIND = (
    "_leftimg8bit", "_gtfine_labeltrainids", "_mask", "_masks", "_label", "_labels", "_seg",
    "_segmentation", "_annotation", "_gt", "_image", "_img", "_sat",
)  # fmt: skip
"""What may stand behind the common name of an image and its mask."""

OTHER_MASKS = ("_gtfine_color", "_gtfine_instanceids", "_gtfine_labelids")
"""Files beside masks that are none: colours and instances of Cityscapes."""

NAMES = ("classes.txt", "class_names.txt", "labels.txt")
"""Files that name the classes, a line each, from id 0."""

Places = dict[str, tuple[Path, Path]]
"""The folders of images and of masks by our names for their splits."""


def recognises(folder: Path) -> bool:
    """Say whether a folder holds one of images beside one of masks."""
    return folder.is_dir() and bool(_places(folder))


def read(folder: Path) -> DataSource:
    """List images with their masks, decoding a few masks to tell how they are written.

    Raises `InputError`: `MISSING_MASK` (names images without one), `NO_IMAGES`, `BAD_MASK`.
    """
    problems: list[str] = []
    splits: dict[str, Pairs] = {}
    lists = _voc_lists(folder)
    for split, (images, masks) in _places(folder).items():
        findings = Findings(str(folder))
        own, theirs = (dict(_by_name(place, findings)) for place in (images, masks))
        missing = [path for name, path in own.items() if name not in theirs]
        wanted = None if lists is None else set().union(*lists.values())
        if wanted is not None:
            own = {name: path for name, path in own.items() if name in wanted}
            missing = [own[name] for name in own if name not in theirs]
        if missing:
            raise _missing(missing, masks)
        extra = [path for name, path in theirs.items() if name not in own]
        if extra and lists is None:
            problems.append(
                f"{counted(len(extra), 'mask')} {verb(len(extra), 'has', 'have')} no image and "
                f"{verb(len(extra), 'is', 'are')} left out: {some(extra)}"
            )
        chosen = {split: list(own)} if lists is None else lists
        for name, members in chosen.items():
            there = [member for member in members if member in own]
            if there:
                splits[name] = _pairs([own[one] for one in there], [theirs[one] for one in there])
    if not splits:
        raise InputError(
            "there is no image beside the masks",
            code="NO_IMAGES",
            where=str(folder),
            hint="images and masks are files of the same name in folders beside each other",
        )
    binary = is_binary(next(iter(splits.values())))
    return DataSource(
        folder,
        "segmentation",
        _class_names(folder, binary=binary),
        {name: Pairs(pairs.images, pairs.masks, binary) for name, pairs in splits.items()},
        tuple(problems),
    )


def read_images(folder: Path) -> DataSource:
    """List the images alone."""
    source = read(folder)
    splits = {
        name: pairs.images for name, pairs in source.splits.items() if isinstance(pairs, Pairs)
    }
    return DataSource(folder, "images", UNLABELLED, splits, source.problems)


def _places(folder: Path) -> Places:
    """Return where images and masks lie, by split; none for another layout."""
    inside = {child.name.lower(): child for child in subfolders(folder)}
    pair = _pair(inside)
    if pair is not None:
        images, masks = pair
        by_split = _splits_of(images), _splits_of(masks)
        shared = [name for name in by_split[0] if name in by_split[1]]
        if shared:
            return {name: (by_split[0][name], by_split[1][name]) for name in shared}
        return {"all": pair}
    found: Places = {}
    for name, child in inside.items():
        split = SPLIT_NAMES.get(name)
        if split is None:
            continue
        below = _pair({each.name.lower(): each for each in subfolders(child)})
        if below is not None:
            found[split] = below
        elif f"{name}annot" in inside:
            found[split] = (child, inside[f"{name}annot"])
    if not found and len(inside) == 1:  # archives unpack to such a folder: VOCdevkit/VOC2012
        return _places(next(iter(inside.values())))
    return found


def _pair(inside: Mapping[str, Path]) -> tuple[Path, Path] | None:
    images = next((inside[name] for name in IMAGES if name in inside), None)
    masks = next((inside[name] for name in MASKS if name in inside), None)
    return None if images is None or masks is None else (images, masks)


def _splits_of(folder: Path) -> dict[str, Path]:
    named = {SPLIT_NAMES.get(child.name.lower(), ""): child for child in subfolders(folder)}
    return {name: child for name, child in named.items() if name}


def _by_name(folder: Path, findings: Findings) -> Iterator[tuple[str, str]]:
    """Yield the images of a folder with the name that image and mask share."""
    for below, names in images_below(folder, findings):
        inner = str(Path(below).relative_to(folder))
        for name in names:
            stem = Path(name).stem
            if stem.lower().endswith(OTHER_MASKS):
                continue
            ending = next((end for end in BEHIND if stem.lower().endswith(end)), "")
            yield f"{inner}/{stem[: len(stem) - len(ending)]}", str(Path(below) / name)


def _voc_lists(folder: Path) -> dict[str, list[str]] | None:
    """Return the names of every split, where lists beside the images say them; None without."""
    place = next(iter(sorted(folder.glob("**/ImageSets/Segmentation"))), None)
    if place is None:
        return None
    found = {}
    for split in ("train", "val", "test"):
        listed = place / f"{split}.txt"
        if listed.is_file():
            found[split] = [f"./{name}" for name in listed.read_text("utf-8").split()]
    return {name: members for name, members in found.items() if members} or None


def _pairs(images: list[str], masks: list[str]) -> Pairs:
    own, theirs = (
        files_of(Run(str(Path(path).parent), [Path(path).name], 0) for path in paths)
        for paths in (images, masks)
    )
    return Pairs(own, theirs)


def _missing(paths: list[str], masks: Path) -> InputError:
    count = len(paths)
    return InputError(
        f"{counted(count, 'image')} {verb(count, 'has', 'have')} no mask: {some(paths)}",
        code="MISSING_MASK",
        where=str(masks),
        hint="give each a mask of its name, or take the images out",
    )


def _class_names(folder: Path, *, binary: bool) -> tuple[str, ...]:
    for name in NAMES:
        listed = folder / name
        if listed.is_file():
            lines = (line.strip() for line in listed.read_text("utf-8").splitlines())
            return tuple(line for line in lines if line)
    return ("background", "object") if binary else ()


FORMATS.add(
    "segmentation",
    DataFormat(recognises, read, read_images),
    summary="images with masks: images/ beside masks/, Pascal VOC, Cityscapes, CamVid",
)
