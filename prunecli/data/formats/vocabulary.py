"""What people call the splits and the columns of their data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What people call the folders of their splits, in lower case, and what we call them."""

PATHS = ("path", "image", "file", "filename", "file_name", "image_path")
CLASSES = ("label", "class", "target", "class_name", "category")
SPLITS = ("split", "subset", "set")
"""What people call the columns of tables."""
