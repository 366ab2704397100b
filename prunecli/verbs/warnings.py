"""Warnings of several parts of a verb, brought together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunecli.checkpoint import Checkpoint


def filled_masks(before: Checkpoint, after: Checkpoint, *, by: str) -> tuple[str, ...]:
    """Say how many sparse weights have been made dense by what was done to a network."""
    lost = len(before.masks) - len(after.masks)
    return (f"{lost} of {len(before.masks)} sparse weights are dense after the {by}",) * (lost > 0)


def merged(*warnings: tuple[str, ...]) -> tuple[str, ...]:
    """Return every warning once, in order."""
    return tuple(dict.fromkeys(item for group in warnings for item in group))
