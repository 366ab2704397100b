"""Augmentations of real photographs: what they do, where they are done, and that they repeat."""

from __future__ import annotations

import dataclasses
import re
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.data import Change, changed, plan_batches
from prunecli.errors import InputError
from prunecli.options import FinetuneOptions
from prunecli.training import check_options, finetune
from prunecli.training.augment import Setting, augmentation_for, make_augmentation
from prunecli.training.losses import Objective
from prunecli.training.task import Classes
from tests.support.training import StopError, same, stop_at

RGB = InputSpec(channels=3, height=24, width=24, mean=(0.5,) * 3, std=(0.25,) * 3)
LARGE = (90, 60)
"""Width and height of the pictures in their files."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Return a folder of JPEGs in two classes: the left half is bright, or the right one."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for at in range(48):
        side = "left" if at % 2 else "right"
        pixels = generator.integers(0, 90, (LARGE[1], LARGE[0], 3), dtype=np.uint8)
        half = slice(None, 45) if side == "left" else slice(45, None)
        pixels[:, half] += 120
        place = folder / "train" / side
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{at:02}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def source(photographs):
    return data.open_source(str(photographs))


@pytest.fixture(scope="module")
def train(source):
    return data.load_split(source, "train", input=RGB)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip


def change_of(name: str, source, seed: int = 0) -> Change:
    augmentation = augmentation_for(name, source, RGB)
    return Change(augmentation.picture, lambda at: 1000 * seed + at, whole=augmentation.whole)


def all_of(train, change: Change, workers: int, size: int = 16) -> torch.Tensor:
    batches = plan_batches(len(train), size)
    return torch.cat([images for images, _ in changed(train, batches, change, workers=workers)])


def test_a_picture_is_given_whole_and_is_what_pillow_decodes(train, photographs):
    for position in (0, 5):
        picture = train.picture(position)
        with Image.open(photographs / train.paths[position]) as image:
            assert picture.shape == (3, LARGE[1], LARGE[0])
            assert np.array_equal(picture.numpy(), np.asarray(image).transpose(2, 0, 1))
        assert train.example(position).shape == RGB.shape


def test_a_crop_is_one_of_the_whole_picture(source, train):
    found = all_of(train, change_of("imagenet", source), 0)
    assert found.shape == (len(train), *RGB.shape)
    assert found.dtype == torch.uint8
    again = [
        augmentation_for("imagenet", source, RGB).picture(
            (torch.manual_seed(at), train.picture(at))[1]
        )
        for at in range(len(train))
    ]
    assert torch.equal(found, torch.stack(again))
    # The middle of a picture of 90 x 60 shows 60 of its columns; crops reach beyond them.
    assert (found.float() - train.images.float()).abs().mean() > 10


@pytest.mark.parametrize("name", ["imagenet", "randaugment", "imagenet+randaugment"])
def test_processes_give_what_threads_give_whatever_the_batches(source, train, name):
    change = change_of(name, source)
    here = all_of(train, change, 0)
    assert torch.equal(here, all_of(train, change, 2))
    assert torch.equal(here, all_of(train, change, 0, size=5))
    assert not torch.equal(here, all_of(train, change_of(name, source, seed=1), 0))


def test_a_picture_that_cannot_be_read_is_left_out_by_processes_too(photographs, source, tmp_path):
    streamed = data.load_split(source, "train", input=RGB, memory_limit=0)
    torn = dataclasses.replace(
        streamed, whole=lambda at: None if at == 3 else streamed.whole(at), unreadable=set()
    )
    torn = dataclasses.replace(torn, decode=lambda at: None if at == 3 else streamed.decode(at))
    batches = plan_batches(6, 3)
    for workers in (0, 1):
        torn.unreadable.clear()
        got = list(changed(torn, batches, change_of("imagenet", source), workers=workers))
        assert [len(images) for images, _ in got] == [3, 2]
        assert torch.equal(got[1][1], torn.labels[[4, 5]])
        assert torn.unreadable == {torn.paths[3]}


def test_stages_act_on_pictures_then_batches_then_between_images(source):
    augmentation = augmentation_for("mixup+crop+imagenet+randaugment", source, RGB)
    words = re.findall(r"[A-Z]\w+(?=\()", augmentation.text)
    assert words == [
        "RandomResizedCrop", "RandomHorizontalFlip", "RandAugment", "RandomCrop", "MixUp",
    ]  # fmt: skip
    assert "scale=(0.08, 1.0)" in augmentation.text


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_images_and_labels_have_the_same_shares(source, name):
    black, white = torch.zeros(2, 3, 24, 24), torch.full((2, 3, 24, 24), 255)
    images = torch.cat([black, white]).to(torch.uint8)[[0, 2, 1, 3]]
    labels = torch.tensor([0, 1, 0, 1])
    augmentation = augmentation_for(name, source, RGB)
    for seed in range(5):
        torch.manual_seed(seed)
        mixed, shares = augmentation.mixed(images, labels)
        assert mixed.dtype == torch.uint8
        assert torch.allclose(shares.sum(1), torch.ones(4))
        bright = mixed.float().mean((1, 2, 3)) / 255
        assert torch.allclose(bright, shares[:, 1], atol=2e-3)


def test_the_loss_of_mixed_labels_is_the_mix_of_the_losses():
    torch.manual_seed(0)
    logits, taught = torch.randn(6, 3), torch.randn(6, 3)
    first, second = torch.arange(6) % 3, (torch.arange(6) + 1) % 3
    shares = 0.3 * nn.functional.one_hot(first, 3) + 0.7 * nn.functional.one_hot(second, 3)
    task = Classes(Objective(4.0, 0.5, 0.1))
    for teacher, weights in ((None, None), (taught, None), (taught, torch.rand(6))):
        losses = [
            float(task.judge(logits, labels, teacher, weights).loss)
            for labels in (first, second, shares)
        ]
        assert losses[2] == pytest.approx(0.3 * losses[0] + 0.7 * losses[1], rel=1e-5)
    right = task.judge(logits, shares, None).right
    assert torch.equal(right, logits.argmax(1) == second)  # the larger share


@pytest.mark.parametrize(
    "choices",
    [
        {"augment": "imagenet+randaugment+cutmix", "workers": 1},
        {"augment": "imagenet+mixup", "accumulate": 2, "batch_size": 6},
    ],
)
def test_a_stopped_run_goes_on_exactly_and_any_workers_do(source, tmp_path, monkeypatch, choices):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    options = FinetuneOptions(epochs=2, amp="no", lr=0.05, **{"batch_size": 12, **choices})
    straight = finetune(net(), source, input=RGB, options=options)
    arguments = {"input": RGB, "run_dir": tmp_path}
    with pytest.raises(StopError):
        finetune(net(), source, options=options, progress=stop_at(2, StopError), **arguments)
    other = dataclasses.replace(options, workers=0)
    resumed = finetune(net(), source, options=other, resume=True, **arguments)
    assert same(resumed.model, straight.model)
    assert straight.augmentation.startswith("RandomResizedCrop(size=(24, 24)")


def test_images_that_are_streamed_are_decoded_by_processes_if_asked_for(source, monkeypatch):
    load = data.load_split

    def streamed(*arguments, **choices):
        return load(*arguments, **choices, memory_limit=0)

    monkeypatch.setattr(sys.modules["prunecli.training.finetune"], "load_split", streamed)
    asked = []
    monkeypatch.setattr(
        "prunecli.training.reading.changed",
        lambda *given, workers: (asked.append(workers), changed(*given, workers=workers))[1],
    )
    options = FinetuneOptions(epochs=1, batch_size=12, amp="no", workers=2)
    by_processes = finetune(net(), source, input=RGB, options=options)
    assert asked == [2]
    by_threads = finetune(net(), source, input=RGB, options=dataclasses.replace(options, workers=0))
    assert asked == [2]
    assert same(by_processes.model, by_threads.model)


def test_a_stop_leaves_no_process_behind(source, tmp_path):
    options = FinetuneOptions(epochs=1, batch_size=4, amp="no", workers=2, augment="imagenet")
    with pytest.raises(StopError):
        finetune(net(), source, input=RGB, options=options, progress=stop_at(1, StopError))
    for _ in range(50):
        left = torch.multiprocessing.active_children()
        if not left:
            break
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize(
    ("name", "said"),
    [("imagenet+mix-up", "mix-up"), ("imagenet+", "unknown augmentation"), ("cutmixx", "cutmixx")],
)
def test_a_name_that_there_is_not_is_told(source, name, said):
    with pytest.raises(InputError, match=said):
        augmentation_for(name, source, RGB)


def test_what_images_of_a_kind_cannot_have_is_told():
    four = InputSpec(4, 8, 8, (0.5,) * 4, (0.5,) * 4)
    with pytest.raises(InputError, match="1 or 3 channels"):
        make_augmentation(["randaugment"], Setting(four, 2))
    with pytest.raises(InputError, match="different classes"):
        make_augmentation(["mixup"], Setting(RGB, 1))


def test_hits_are_not_taken_from_mixed_images():
    options = FinetuneOptions(
        augment="imagenet+mixup", record_learnability=True, record_learnability_mode="training"
    )
    with pytest.raises(InputError, match="mixed images"):
        check_options(options)


def test_a_large_photograph_is_decoded_no_larger_than_crops_need(tmp_path):
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (600, 800, 3))
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for at in range(3):
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{at}.jpg", quality=95)
    source = data.open_source(str(tmp_path))
    picture = data.load_split(source, "train", input=RGB).picture(0)
    assert picture.shape == (3, 150, 200)  # a quarter; an eighth would be below 4 * 24
    assert picture[0, 75].float() == pytest.approx(ramp[2::4].astype(float), abs=3)
