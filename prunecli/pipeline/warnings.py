"""Warnings of several parts of a verb, brought together."""

from __future__ import annotations


def merged(*warnings: tuple[str, ...]) -> tuple[str, ...]:
    """Return every warning once, in order."""
    return tuple(dict.fromkeys(item for group in warnings for item in group))
