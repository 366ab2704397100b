"""The widths that a run has decided on, as plain data for its state on disk."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.pruning.selection import Selection
from prunecli.report import FrozenReport

if TYPE_CHECKING:
    from collections.abc import Mapping


def selection_fields(selection: Selection) -> dict[str, Any]:
    """Return a selection as numbers, text, and lists and mappings of them."""
    return {**dataclasses.asdict(selection), "widths": selection.widths.tolist()}


def selection_from(fields: Mapping[str, Any]) -> Selection:
    """Read a selection that was saved as its fields."""
    return Selection(
        widths=np.asarray(fields["widths"], np.int64),
        whole=tuple(FrozenReport(**item) for item in fields["whole"]),
        warnings=tuple(fields["warnings"]),
    )
