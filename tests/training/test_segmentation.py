"""Training on masks: the loss and the score by hand, a network that learns, told errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli import verbs
from prunecli.data import load_split, open_source
from prunecli.errors import InputError
from prunecli.evaluation.images import evaluate
from prunecli.evaluation.masks import class_maps, mask_losses
from prunecli.options import FinetuneOptions
from prunecli.training import finetune
from prunecli.training.segmentation import Masks
from tests.support.dense_prediction import RGB16, randomised, saliency
from tests.support.segmentation import write_pairs

QUICK = FinetuneOptions(epochs=6, batch_size=8, lr=0.2, amp="no", held_out=0.25)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), count=36)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks_of(count, classes=3):
    generator = torch.Generator().manual_seed(2)
    masks = torch.randint(0, classes, (count, 6, 6), generator=generator)
    masks[:, 0] = 255
    return masks.to(torch.uint8)


def test_the_loss_is_the_mean_over_pixels_that_count():
    maps, masks = drawn(4, 3, 6, 6), masks_of(4)
    apart = functional.cross_entropy(maps[:, :, 1:], masks[:, 1:].long(), reduction="none")
    torch.testing.assert_close(mask_losses(maps, masks), apart.flatten(1).mean(1))
    assert mask_losses(maps, torch.full((4, 6, 6), 255, dtype=torch.uint8)).tolist() == [0] * 4
    small = drawn(4, 3, 3, 3)
    grown = functional.interpolate(small, size=(6, 6), mode="bilinear")
    torch.testing.assert_close(mask_losses(small, masks), mask_losses(grown, masks))


def test_a_teacher_adds_its_softened_maps():
    maps, taught, masks = drawn(4, 3, 6, 6), drawn(4, 3, 6, 6, seed=1), masks_of(4)
    hard = Masks(2.0, 0.3).judge(maps, masks, None).loss
    both = Masks(2.0, 0.3).judge(maps, masks, taught).loss
    soft = (
        4
        * functional.kl_div(
            functional.log_softmax(maps / 2, 1), functional.softmax(taught / 2, 1), reduction="none"
        )
        .sum(1)
        .mean()
    )
    assert float(both) == pytest.approx(float(0.7 * hard + 0.3 * soft), rel=1e-5)
    with pytest.raises(InputError, match="the teacher has maps of 2x6x6") as caught:
        Masks(2.0, 0.3).judge(maps, masks, drawn(4, 2, 6, 6))
    assert caught.value.code == "TEACHER_MISMATCH"


def test_maps_are_found_in_every_output():
    maps, other = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    for output in (maps, {"out": maps, "aux": other}, (maps, other), {"logits": maps}):
        assert class_maps(output)[0] is maps
    assert len(class_maps({"out": maps, "aux": other})[1]) == 1
    for output in (drawn(2, 3), {"boxes": maps}, drawn(2, 1, 4, 4)):
        with pytest.raises(InputError, match="one map of scores per class"):
            class_maps(output)


def test_a_network_learns_masks_and_its_score_is_that_of_all_pixels(pairs):
    source = open_source(pairs)
    result = finetune(saliency(8, out=3), source, input=RGB16, options=QUICK)
    assert result.held_out_before.accuracy < 0.35
    assert result.held_out_after.accuracy > 0.7
    test = load_split(source, "test", input=RGB16)
    found = evaluate(result.model, test, input=RGB16)
    pixels = (test.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        own = result.model(pixels).argmax(1).numpy()
    true = test.labels.numpy()
    counts = true != 255
    each = [
        ((own == k) & (true == k)).sum() / (((own == k) | (true == k)) & counts).sum()
        for k in range(3)
    ]
    assert found.measure == "mIoU"
    assert found.accuracy == pytest.approx(np.mean(each))
    assert list(found.per_class.values()) == pytest.approx(each)
    assert (found.top5, found.count) == (None, len(test))


def test_files_are_pruned_tuned_and_scored_on_masks(pairs, tmp_path):
    dense, slim = tmp_path / "dense.pt", tmp_path / "slim.pt"
    prunecli.save(randomised(saliency(8, out=3)), dense, input=RGB16)
    from prunecli.budget import make_budget

    verbs.prune(dense, output=slim, budget=make_budget(flops=0.6))
    options = dataclasses.replace(QUICK, epochs=2)
    report = verbs.finetune(slim, data=str(pairs), output=tmp_path / "tuned.pt", options=options)
    assert report.accuracy.measure == report.held_out.measure == "mIoU"
    assert report.taught_by.origin == "history"
    scored = verbs.evaluate(tmp_path / "tuned.pt", data=str(pairs))
    assert scored.accuracy == pytest.approx(report.accuracy.after)
    both = verbs.evaluate(tmp_path / "tuned.pt", data=str(pairs), against=dense)
    assert (both.measure, both.outputs[0].shape) == ("mIoU", (3, 16, 16))


def test_what_cannot_be_learned_is_told_before_training(pairs, tmp_path):
    source = open_source(pairs)
    two = saliency(8, out=2)
    with pytest.raises(InputError, match="holds the class 2; the model has 2 maps"):
        finetune(two, source, input=RGB16, options=QUICK, run_dir=tmp_path)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with pytest.raises(InputError, match="one map of scores per class"):
        finetune(classifier, source, input=RGB16, options=QUICK)
    assert not (tmp_path / "state.pt").exists()


def test_labels_of_pixels_are_smoothed_and_ignored_ones_are_not():
    maps, masks = drawn(4, 3, 6, 6), masks_of(4)
    soft = functional.one_hot(masks[:, 1:].long(), 3).permute(0, 3, 1, 2) * 0.7 + 0.1
    wanted = -(soft * functional.log_softmax(maps[:, :, 1:], 1)).sum(1).mean()
    found = Masks(2.0, 0.3, label_smoothing=0.3).judge(maps, masks, None).loss
    torch.testing.assert_close(found, wanted)


def test_options_of_labels_reach_masks(pairs):
    source, short = open_source(pairs), dataclasses.replace(QUICK, epochs=1)
    smooth = dataclasses.replace(short, label_smoothing=0.5)
    one, two = (
        finetune(saliency(8, out=3), source, input=RGB16, options=each) for each in (short, smooth)
    )
    assert one.epochs[0].train_loss != two.epochs[0].train_loss
