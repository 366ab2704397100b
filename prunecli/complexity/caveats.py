"""What makes a measured complexity less than it looks, in sentences with numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def small_classes(
    names: Sequence[object], counts: NDArray[np.int64], neighbours: int
) -> tuple[str, ...]:
    """Say which classes, of `counts` [K] samples, have too few for that many neighbours."""
    small = [names[at] for at in np.flatnonzero(counts <= neighbours).tolist()]
    number = len(small)
    sentence = (
        f"{counted(number, 'class', 'classes')} {verb(number, 'has', 'have')} no more than "
        f"{counted(neighbours, 'sample')} and {verb(number, 'looks like its', 'look like their')} "
        f"neighbours for that alone: {some(small)}"
    )
    return (sentence,) if small else ()


def crowded_labels(classes: int, samples: int) -> tuple[str, ...]:
    """Say when there are hardly more samples than classes: labels that number the samples."""
    sentence = (
        f"{classes:,} classes for {counted(samples, 'sample')}: is the label what a sample shows, "
        "or a number of its own?"
    )
    return (sentence,) if classes * 2 > samples else ()
