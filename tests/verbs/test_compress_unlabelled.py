"""`compress` without labels: judged by agreement, stopped and gone on with; and on masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

import prunecli
from prunecli import verbs
from prunecli.data import open_source
from prunecli.errors import InputError
from prunecli.options import CompressOptions, WishOptions
from tests.support.dense_prediction import RGB16, randomised, saliency
from tests.support.samples import VGG
from tests.support.segmentation import write_pairs

QUICK = CompressOptions(epochs=1, limit=64, threads=1)


class StopError(Exception):
    """Stops a run as a kill would."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "images"
    folder.mkdir()
    for at, image in enumerate(np.asarray(open_source("digits").splits["train"].images[:120])):
        Image.fromarray(image[0].astype(np.uint8)).save(folder / f"{at:03d}.png")
    return folder


def test_agreement_takes_the_place_of_accuracy_and_a_stopped_search_goes_on(plain, tmp_path):
    given = {
        "wishes": WishOptions(flops="0.6", max_drop=0.9), "data": str(plain), "options": QUICK,
        "output": tmp_path / "small.pt",
    }  # fmt: skip
    told: list[str] = []

    def stop(step):
        if step.stage == "train":
            raise StopError

    with pytest.raises(StopError):
        verbs.compress(VGG, progress=stop, tell=told.append, **given)
    assert "judged by agreement" in told[0]
    cut = tmp_path / "small.search" / "1.000.pruned.pt"
    made = cut.stat().st_mtime_ns
    report = verbs.compress(VGG, resume=True, **given)
    assert cut.stat().st_mtime_ns == made
    assert report.measure == "agreement"
    assert report.before.accuracy == 1.0
    drop, low, high = report.drop
    assert drop == pytest.approx(1 - report.after.accuracy)
    assert low <= drop <= high
    assert [(wish.wish, wish.ok) for wish in report.met] == [("flops", True), ("max_drop", True)]
    assert any("--loss outputs" in line for line in report.commands)
    assert any("agreement with the original" in note for note in report.warnings)
    alone = verbs.evaluate(report.output, data=str(plain), against=VGG, split="test")
    assert alone.measure == "agreement"


def test_labels_of_other_classes_are_refused_unless_none_is_asked_for(tmp_path):
    data = tmp_path / "data"
    for name in ("a", "b"):
        (data / name).mkdir(parents=True)
        for at in range(6):
            Image.fromarray(np.full((8, 8), 20 * at, np.uint8)).save(data / name / f"{at}.png")
    given = {"wishes": WishOptions(flops="0.6"), "data": str(data), "output": tmp_path / "s.pt"}
    with pytest.raises(InputError, match="2 classes") as caught:
        verbs.compress(VGG, options=QUICK, **given)
    assert "--loss outputs" in caught.value.hint
    assert not (tmp_path / "s.pt").exists()


def test_a_segmentation_model_is_judged_by_its_masks(tmp_path):
    data = write_pairs(tmp_path / "data", count=30)
    dense = tmp_path / "dense.pt"
    prunecli.save(randomised(saliency(8, out=3)), dense, input=RGB16)
    report = verbs.compress(
        dense, wishes=WishOptions(flops="0.7"), data=str(data), output=tmp_path / "small.pt",
        options=dataclasses.replace(QUICK, limit=None),
    )  # fmt: skip
    assert report.measure == "mIoU"
    assert report.ok
    assert any("by the weights" in note for note in report.warnings)
