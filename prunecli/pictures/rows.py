"""Many layers in few rows: neighbours are put together until a picture can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.pictures.style import beside, short

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS = 60
"""Rows that a picture has at most; longer lists are for tables."""


LONGEST_PAIR = 44
"""Characters of the two names that a row of several layers is called by."""

NARROW_PAIR = 14
"""The same, in a picture for a phone."""


@dataclass(frozen=True)
class Row:
    """Consecutive entries of a list that share a row: those of `at`."""

    label: str
    at: slice

    @property
    def count(self) -> int:
        """The number of entries."""
        return int(self.at.stop - self.at.start)


def rows_of(
    names: Sequence[str], *, most: int = MOST_ROWS, narrow: bool = False, noun: str = "layers"
) -> list[Row]:
    """Return at most `most` rows of consecutive layers, if that can be: all of a row in one block.

    Blocks are named by the longest common beginnings (`layer3.5`) of which there are few enough;
    where those are many fewer, each is divided into equal parts. `narrow` cuts labels shorter,
    `noun` is what the names are those of.

    >>> [row.label for row in rows_of(["a.0.x", "a.0.y", "a.1.x", "b.0.x", "b.0.y"], most=3)]
    ['a.0 (2 layers)', 'a.1.x', 'b.0 (2 layers)']
    """
    if len(names) <= most:
        return [
            Row(beside(name, narrow=narrow), slice(at, at + 1)) for at, name in enumerate(names)
        ]
    depth = max(name.count(".") for name in names)
    blocks = _blocks(names, depth)
    while depth > 0 and len(blocks) > most:
        depth -= 1
        blocks = _blocks(names, depth)
    size = 1
    while len(_divided(blocks, size)) > most and size < len(names):
        size += 1
    found = _divided(blocks, size)
    return [_row(names, block, depth, narrow=narrow, noun=noun) for block in found]


def _blocks(names: Sequence[str], depth: int) -> list[slice]:
    """Return the runs of names with the same first `depth` parts."""
    heads = [tuple(name.split(".")[:depth]) for name in names]
    starts = [at for at, head in enumerate(heads) if at == 0 or head != heads[at - 1]]
    return [slice(*pair) for pair in zip(starts, [*starts[1:], len(names)], strict=True)]


def _divided(blocks: Sequence[slice], size: int) -> list[slice]:
    return [
        slice(start, min(start + size, block.stop))
        for block in blocks
        for start in range(block.start, block.stop, size)
    ]


def _row(names: Sequence[str], block: slice, depth: int, *, narrow: bool, noun: str) -> Row:
    own = names[block]
    if len(own) == 1:
        return Row(beside(own[0], narrow=narrow), block)
    parts = [name.split(".") for name in own]
    common = 0
    while common < len(parts[0]) and len({tuple(name[: common + 1]) for name in parts}) == 1:
        common += 1
    head = ".".join(parts[0][:common])
    if not depth or common < depth or not _is_whole(names, block, common):
        # The end of the common beginning is enough to find the layers in a table.
        ends = [name[common] if common < len(name) else "" for name in (parts[0], parts[-1])]
        head = ".".join([*parts[0][max(common - 1, 0) : common], ends[0]]) + f" .. {ends[1]}"
    name = short(head, NARROW_PAIR if narrow else LONGEST_PAIR)
    return Row(f"{name} ({len(own)} {noun})", block)


def _is_whole(names: Sequence[str], block: slice, common: int) -> bool:
    """Tell whether no neighbour of a block begins as all of it does."""
    head = names[block.start].split(".")[:common]
    neighbours = (at for at in (block.start - 1, block.stop) if 0 <= at < len(names))
    return all(names[at].split(".")[:common] != head for at in neighbours)
