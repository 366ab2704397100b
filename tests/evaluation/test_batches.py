"""The images of a run: which of them judge, and what reports call them."""

from __future__ import annotations

import pytest
import torch

from prunecli.evaluation.batches import NO_IMAGES, Images, count_images, first_images


def batches(*sizes: int):
    """Return a source of batches whose images count on."""
    parts, first = [], 0
    for size in sizes:
        parts.append((torch.arange(first, first + size), torch.arange(first, first + size) % 3))
        first += size
    return lambda: iter(parts)


LOOKED_AT, HELD_OUT = batches(2), batches(3)


@pytest.mark.parametrize(
    ("images", "judged_on", "measured"),
    [
        (Images(LOOKED_AT, HELD_OUT), HELD_OUT, "held_out"),
        (Images(LOOKED_AT), LOOKED_AT, "calibration"),
        (Images(measured_on=HELD_OUT), HELD_OUT, "held_out"),
        (NO_IMAGES, None, "calibration"),
    ],
)
def test_images_that_no_choice_was_made_on_judge_where_there_are_any(images, judged_on, measured):
    assert images.judged_on is judged_on
    assert images.measured == measured


def test_images_are_counted_over_all_batches():
    assert count_images(batches(4, 4, 1)) == 9
    assert count_images(batches()) == 0


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 12])
def test_the_first_images_are_as_many_as_asked_for_and_in_order(count):
    found = [*first_images(batches(4, 4, 1), count)]
    assert torch.cat([images for images, _ in found]).tolist() == list(range(min(count, 9)))
    assert torch.cat([labels for _, labels in found]).tolist() == [
        at % 3 for at in range(min(count, 9))
    ]


def test_no_batch_is_read_beyond_the_first_images():
    read = []

    def source():
        for at, batch in enumerate(batches(4, 4, 4)()):
            read.append(at)
            yield batch

    assert len([*first_images(source, 8)]) == 2
    assert read == [0, 1]
