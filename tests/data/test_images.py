"""Decoding: any image to a network's input, in memory or streamed, whole or broken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.data.decode import preparation, to_image, to_pixels
from prunecli.errors import InputError


@pytest.fixture
def rgb8() -> InputSpec:
    return InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def rgb32(rgb8) -> InputSpec:
    return dataclasses.replace(rgb8, height=32, width=32)


@pytest.fixture
def grey8() -> InputSpec:
    return InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.25,))


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for index in range(12):
            pixels = random_pixels(8, 8, 3, seed=100 * label + index)
            save(tmp_path / "train" / name / f"{index:02}.png", Image.fromarray(pixels))
    return tmp_path


def test_pixels_come_back_exactly_as_they_were_saved(folder, rgb8):
    images = data.load_split(data.open_source(folder), "all", input=rgb8)
    assert images.images.shape == (24, 3, 8, 8)
    assert images.images.dtype == torch.uint8
    assert images.labels.tolist() == [0] * 12 + [1] * 12
    expected = random_pixels(8, 8, 3, seed=103).transpose(2, 0, 1)
    assert (images.images[15].numpy() == expected).all()
    assert images.paths[15].endswith("dog/03.png")
    assert images.warnings == ()


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("L", "grayscale"),
        ("RGBA", "RGBA"),
        ("CMYK", "CMYK"),
        ("LA", "transparency"),
        ("P", "palette"),
        ("1", "black and white"),
    ],
)
def test_images_of_any_mode_are_brought_to_rgb_and_counted(folder, rgb8, mode, word):
    end = {"CMYK": "tif"}.get(mode, "png")
    grey = Image.fromarray(random_pixels(8, 8))
    for index in range(3):
        save(folder / "train" / "cat" / f"x{index}.{end}", grey.convert(mode))
    images = data.load_split(data.open_source(folder), "all", input=rgb8)
    assert len(images) == 27
    assert [warning for warning in images.warnings if word in warning and ": 3 " in warning]


def test_a_grayscale_image_has_three_equal_channels(rgb8):
    grey = random_pixels(1, 8, 8)
    pixels, kind = to_pixels(to_image(grey), rgb8)
    assert kind == "grayscale"
    assert (pixels == np.repeat(grey, 3, axis=0)).all()


def test_transparency_is_dropped_and_colours_stay(rgb8):
    colours = random_pixels(8, 8, 4)
    pixels, _ = to_pixels(Image.fromarray(colours), rgb8)
    assert (pixels == colours[..., :3].transpose(2, 0, 1)).all()


def test_a_palette_with_transparency_raises_no_warning(folder, rgb8):
    image = Image.fromarray(random_pixels(8, 8)).convert("P")
    save(folder / "train" / "cat" / "p.png", image, transparency=b"\0" * 256)
    assert len(data.load_split(data.open_source(folder), "all", input=rgb8)) == 25


def test_sixteen_bits_are_scaled_not_clipped(grey8):
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    pixels, _ = to_pixels(Image.fromarray(deep), grey8)
    assert (pixels[0] == np.rint(deep / 257).astype(np.uint8)).all()


def test_colour_becomes_luminance_for_a_network_with_one_channel(grey8):
    colours = random_pixels(8, 8, 3)
    pixels, kind = to_pixels(Image.fromarray(colours), grey8)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert kind == "RGB"
    assert np.abs(pixels[0] - expected).max() <= 1


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (256, 256), (100, 140)])
def test_large_inputs_are_resized_and_cropped_as_torchvision_does(rgb8, size):
    spec = dataclasses.replace(rgb8, height=224, width=224)
    image = Image.fromarray(random_pixels(*size, 3))
    expected = v2.CenterCrop(224)(v2.Resize(256)(image))
    assert (to_pixels(image, spec)[0] == np.asarray(expected).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [(40, 60), (64, 64), (20, 30)])
def test_small_inputs_see_all_of_the_shorter_side(rgb8, size):
    spec = dataclasses.replace(rgb8, height=32, width=32)
    image = Image.fromarray(random_pixels(*size, 3))
    expected = v2.CenterCrop(32)(v2.Resize(32)(image))
    assert (to_pixels(image, spec)[0] == np.asarray(expected).transpose(2, 0, 1)).all()


def test_an_input_that_is_not_square_is_filled(rgb8):
    spec = dataclasses.replace(rgb8, height=20, width=30)
    for size in ((40, 40), (10, 90), (31, 7)):
        assert to_pixels(Image.fromarray(random_pixels(*size, 3)), spec)[0].shape == (3, 20, 30)


def test_an_input_of_two_channels_is_refused(folder, rgb8):
    spec = InputSpec(channels=2, height=8, width=8, mean=(0.5, 0.5), std=(1.0, 1.0))
    with pytest.raises(InputError, match="2 channels"):
        data.load_split(data.open_source(folder), "train", input=spec)


@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_a_corrupt_jpeg_is_named_and_left_out(folder, rgb8, how):
    broken = folder / "train" / "dog" / "broken.jpg"
    save(broken, Image.fromarray(random_pixels(8, 8, 3)))
    content = broken.read_bytes()
    broken.write_bytes({"truncated": content[:-200], "empty": b"", "text": b"hello"}[how])
    images = data.load_split(data.open_source(folder), "all", input=rgb8)
    assert len(images) == len(images.labels) == len(images.paths) == 24
    assert str(broken) not in images.paths
    assert any("1 image cannot be read" in w and "broken.jpg" in w for w in images.warnings)


def test_a_split_without_any_readable_image_is_refused(folder, rgb8):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 24") as caught:
        data.load_split(data.open_source(folder), "all", input=rgb8)
    assert caught.value.code == "UNREADABLE_IMAGES"


def test_progress_counts_the_images(folder, rgb8):
    steps = []
    data.load_split(data.open_source(folder), "all", input=rgb8, progress=steps.append)
    assert (steps[-1].done, steps[-1].total) == (24, 24)


def test_a_limit_is_kept_and_spread_over_the_classes(folder, rgb8):
    images = data.load_split(data.open_source(folder), "all", input=rgb8, limit=10)
    assert images.labels.bincount().tolist() == [5, 5]


# batches


def test_batches_in_order_hold_every_image_once(folder, rgb8):
    images = data.load_split(data.open_source(folder), "all", input=rgb8)
    batches = list(images.iterate(7))
    assert [len(labels) for _, labels in batches] == [7, 7, 7, 3]
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), images.images)


def test_a_shuffle_repeats_with_its_seed(folder, rgb8):
    images = data.load_split(data.open_source(folder), "all", input=rgb8)

    def shuffled(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([labels for _, labels in images.iterate(5, generator=generator)])

    assert torch.equal(shuffled(1), shuffled(1))
    assert not torch.equal(shuffled(1), shuffled(2))
    assert shuffled(1).bincount().tolist() == [12, 12]


def test_an_empty_set_has_no_batches(folder, rgb8):
    images = data.load_split(data.open_source(folder), "held_out", input=rgb8, held_out=0.0)
    assert len(images) == 0
    assert list(images.iterate(4)) == []


def test_streamed_images_are_those_that_memory_would_hold(folder, rgb8):
    source = data.open_source(folder)
    held = data.load_split(source, "all", input=rgb8)
    streamed = data.load_split(source, "all", input=rgb8, memory_limit=1)
    assert isinstance(streamed, data.StreamedImageSet)
    assert any("streamed" in warning for warning in streamed.warnings)
    seeds = (torch.Generator().manual_seed(4) for _ in range(2))
    for one, two in zip(
        held.iterate(5, generator=next(seeds)),
        streamed.iterate(5, generator=next(seeds)),
        strict=True,
    ):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert torch.equal(held.images, streamed.images)


def test_streaming_can_be_left_early(folder, rgb8):
    streamed = data.load_split(data.open_source(folder), "all", input=rgb8, memory_limit=1)
    for _images, labels in streamed.iterate(2):
        assert len(labels) == 2
        break


def test_a_streamed_set_leaves_out_what_cannot_be_read(folder, rgb8):
    (folder / "train" / "cat" / "00.png").write_bytes(b"")
    (folder / "train" / "cat" / "01.png").write_bytes(b"")
    streamed = data.load_split(data.open_source(folder), "all", input=rgb8, memory_limit=1)
    sizes = [len(labels) for _, labels in streamed.iterate(2)]
    assert sum(sizes) == 22
    assert {Path(path).name for path in streamed.unreadable} == {"00.png", "01.png"}
    assert "2 images cannot be read" in streamed.found()[-1]


# classes


def test_another_number_of_classes_is_refused(folder):
    source = data.open_source(folder)
    data.check_classes(2, source)
    with pytest.raises(InputError, match="10 outputs but the data has 2") as caught:
        data.check_classes(10, source)
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


def test_the_same_classes_in_another_order_are_refused(folder):
    source = data.open_source(folder)
    data.check_classes(2, source, names=("cat", "dog"))
    data.check_classes(2, source, names=("0", "1"))
    with pytest.raises(InputError, match="different order"):
        data.check_classes(2, source, names=("dog", "cat"))


def test_the_real_cifar_test_images_decode_to_their_pixels(cifar_dir, rgb32):
    images = data.load_split(data.open_source(cifar_dir), "test", input=rgb32, limit=200)
    for index in (0, 77, 199):
        with Image.open(images.paths[index]) as image:
            assert (images.images[index].permute(1, 2, 0).numpy() == np.asarray(image)).all()


@pytest.mark.parametrize(("side", "resized"), [(224, 256), (32, 32), (299, 342)])
def test_a_report_says_how_an_image_was_brought_to_the_model(side, resized):
    """What is said is what happens to a picture whose columns count up."""
    spec = InputSpec(3, side, side, (0.5, 0.25, 0.125), (1.0, 0.5, 0.25))
    said = preparation(spec)
    assert said.resized == (resized, resized)
    assert said.statement == (
        f"resized to {resized}, middle {side}x{side}, grey to RGB, mean 0.5 0.25 0.125, "
        "std 1 0.5 0.25"
    )
    columns = np.linspace(0, 255, resized).astype(np.uint8)
    picture = Image.fromarray(np.tile(columns, (resized, 1)))  # grey, as large as is said
    pixels, kind = to_pixels(picture, spec)
    left = round((resized - side) / 2)
    assert kind == "grayscale"
    assert (pixels == columns[left : left + side]).all()
