"""A cut that looks at labelled images asks first whether the network has an output for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.errors import InputError
from prunecli.options import PruneOptions

if TYPE_CHECKING:
    from pathlib import Path

WAYS = {
    "channels": PruneOptions(signal="taylor", align=1),
    "single weights": PruneOptions(signal="snip", granularity="weight"),
}


def images(folder: Path, *, classes: int, each: int = 6) -> str:
    """Write a folder per class, each with a few images of noise."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        own = folder / "data" / f"class{label:02}"
        own.mkdir(parents=True)
        for at in range(each):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(own / f"{at}.png")
    return str(folder / "data")


def prune(model: Path, data: str, options: PruneOptions):
    return verbs.prune(
        model, budget=make_budget(sparsity=0.3), options=options, data=data, dry_run=True
    )


@pytest.mark.parametrize("way", WAYS)
def test_labels_that_the_network_has_no_output_for_are_refused(
    way: str, digits_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="10 outputs but the data has 12") as caught:
        prune(digits_checkpoint, images(tmp_path, classes=12), WAYS[way])
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("classes", [3, 10])
def test_labels_that_all_have_an_output_are_taken_though_they_are_fewer(
    way: str, classes: int, digits_checkpoint: Path, tmp_path: Path
) -> None:
    report = prune(digits_checkpoint, images(tmp_path, classes=classes), WAYS[way])
    assert report.output is None
