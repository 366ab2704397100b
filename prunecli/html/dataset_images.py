"""Images of a data set worth checking, on its page: confusing, equal, unusual ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prunecli.html.parts import Folded, Grid, Part, Section, Thumbnails, Tile
from prunecli.pictures.datasets import hardest
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prunecli.report import ConfusingImage, DatasetAnalysis

PAIRS = 40
"""Confusing images that are shown."""

OF_A_CLASS = 4
"""Confusing images of one class that are shown."""

TWINS = 10
"""Groups of equal images that are shown, and of nearly equal ones."""

ODD = 8
"""Images of one unusual kind that are shown."""

TOGETHER = 3
"""Images of such a group that are shown."""

ROWS = 1000
"""Files that a table lists."""


def dataset_images(dataset: DatasetAnalysis) -> list[str]:
    """Return the names of the images that this page shows."""
    confusing = [name for image in _chosen(dataset) for name in (image.path, image.neighbour)]
    odd = [name for names in _odd(dataset).values() for name in names[:ODD]]
    return [*confusing, *(name for group in _twins(dataset) for name in group), *odd]


def place(name: str, folder: str) -> str:
    """Return the path of an image as seen from the folder of its data set."""
    return name.removeprefix(folder.rstrip("/") + "/")


def confusing_sections(dataset: DatasetAnalysis, images: Mapping[str, str]) -> list[Section]:
    """Return the images that look like another class, or a table where none can be shown."""
    chosen = _chosen(dataset)
    if not chosen:
        return []
    among = len({image.name for image in dataset.confusing})
    shown = len({image.name for image in chosen})
    of = f"the {shown} hardest of {among:,} classes" if shown < among else "every class"
    text = (
        f"These are the most confusing images of {of}, the hardest class first. Each image is "
        "shown with its class, beside its nearest neighbour from the class that it looks like. "
        "Images with a wrong label appear here too."
    )
    groups = tuple(
        (
            _tile(image.path, images, dataset, title=image.name, alternative=_said(image)),
            _tile(
                image.neighbour,
                images,
                dataset,
                title=f"looks like {image.looks_like}",
                alternative=f"its nearest neighbour from {image.looks_like}",
            ),
        )
        for image in chosen
    )
    if not images.keys() & {image.path for image in chosen}:
        rows = tuple(
            (place(image.path, dataset.path), image.name, image.looks_like, f"{image.share:.0%}")
            for image in chosen
        )
        header = ("image", "class", "looks like", ">share of its neighbours")
        return [Section("Confusing images", text, (Grid(header, rows),))]
    return [Section("Confusing images", text, (Thumbnails(groups),))]


def _chosen(dataset: DatasetAnalysis) -> list[ConfusingImage]:
    """Return the most confusing images of every class, of the hardest where there are many."""
    each = max(1, min(OF_A_CLASS, PAIRS // max(len(dataset.difficulty), 1)))
    rank = {entry.name: at for at, entry in enumerate(hardest(dataset))}
    seen: Counter[str] = Counter()
    found = []
    for image in sorted(dataset.confusing, key=lambda image: rank.get(image.name, len(rank))):
        seen[image.name] += 1
        if seen[image.name] <= each:
            found.append(image)
    return found[:PAIRS]


def _said(image: ConfusingImage) -> str:
    return f"an image of {image.name}, {image.share:.0%} of whose neighbours are {image.looks_like}"


def _tile(
    name: str,
    images: Mapping[str, str],
    dataset: DatasetAnalysis,
    *,
    title: str = "",
    alternative: str = "",
) -> Tile:
    said = alternative or f"the image {place(name, dataset.path)}"
    return Tile(images.get(name, ""), said, title, place(name, dataset.path))


def odd_sections(dataset: DatasetAnalysis, images: Mapping[str, str]) -> list[Section]:
    """Return images that come twice, unusual ones, and files that cannot be read, if any."""
    parts: list[Part] = [
        *_twin_part("equal", dataset.duplicates, dataset, images),
        *_twin_part("nearly equal", dataset.near_duplicates, dataset, images),
    ]
    for kind, names in _odd(dataset).items():
        tiles = tuple((_tile(name, images, dataset),) for name in names[:ODD])
        first = f", the first {ODD}" if dataset.kinds[kind] > ODD else ""
        parts.append(Thumbnails(tiles, f"{kind}: {dataset.kinds[kind]:,} images{first}"))
    if dataset.unreadable:
        why = {name: kind for kind, names in dataset.listed.items() for name in names}
        rows = tuple(
            (place(name, dataset.path), why.get(name, "")) for name in dataset.unreadable[:ROWS]
        )
        title = f"{counted(len(dataset.unreadable), 'file')} that cannot be read"
        more = f"the first {ROWS:,}" if len(dataset.unreadable) > ROWS else ""
        parts.append(Folded(title, (Grid(("file", "why"), rows, more),)))
    if not parts:
        return []
    text = (
        "A duplicate counts twice in training. If one copy is a test image, the measured accuracy "
        "is too high."
        if dataset.duplicates or dataset.near_duplicates
        else ""
    )
    return [Section("Images to check", text, tuple(parts), rank=3)]


def _odd(dataset: DatasetAnalysis) -> dict[str, tuple[str, ...]]:
    """Return the images of unusual kinds that can be seen, by kind."""
    lost = set(dataset.unreadable)
    kinds = {kind: set(names) & lost for kind, names in dataset.listed.items()}
    return {kind: dataset.listed[kind] for kind, unseen in kinds.items() if not unseen}


def _twins(dataset: DatasetAnalysis) -> list[tuple[str, ...]]:
    groups = (*dataset.duplicates[:TWINS], *dataset.near_duplicates[:TWINS])
    return [group[:TOGETHER] for group in groups]


def _twin_part(
    kind: str,
    groups: Sequence[tuple[str, ...]],
    dataset: DatasetAnalysis,
    images: Mapping[str, str],
) -> Iterable[Part]:
    if not groups:
        return []
    shown = tuple(
        tuple(_tile(name, images, dataset) for name in group[:TOGETHER]) for group in groups[:TWINS]
    )
    first = f"; the first {TWINS} groups are shown" if len(groups) > TWINS else ""
    largest = max(map(len, groups))
    many = f"; {TOGETHER} images of each are shown" if largest > TOGETHER else ""
    count = counted(len(groups), "group")
    caption = f"{count} of {kind} images, at most {largest} in one group{first}{many}"
    return [Thumbnails(shown, caption)]
