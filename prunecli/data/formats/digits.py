"""The handwritten digits that come with scikit-learn: 1,797 real images of 8 by 8."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from prunecli.data.source import BUILT_IN, Arrays, DataSource
from prunecli.data.splits import TEST_SHARE, stratified_split


def read() -> DataSource:
    """Return the digits with a test split that no seed changes.

    Pixels of 0 to 16 are scaled to 0 to 255. Source: E. Alpaydin, C. Kaynak, "Optical Recognition
    of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    table = np.loadtxt(_file(), delimiter=",")
    pixels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8)[:, None]
    train, test = stratified_split(labels, TEST_SHARE, seed=0)
    splits = {
        name: Arrays(images[indices], labels[indices])
        for name, indices in (("train", train), ("test", test))
    }
    return DataSource(Path("digits"), "digits", tuple("0123456789"), splits)


def _file() -> Path:
    """Return the file of scikit-learn's own `load_digits`, which takes two seconds to import."""
    package = find_spec("sklearn")
    assert package is not None  # a dependency
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


BUILT_IN["digits"] = read
