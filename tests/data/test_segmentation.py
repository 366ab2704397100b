"""Images with masks: every layout, sizes, ids and what is wrong with them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_images, open_source
from prunecli.data.masks import check_ids
from prunecli.errors import InputError
from prunecli.training.augment import Setting, augmented, make_augmentation
from tests.support.segmentation import shapes, write_pairs, write_voc

RGB16 = InputSpec(3, 16, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def loaded(folder, split="all", **choices):
    return load_split(open_source(folder), split, input=RGB16, **choices)


def splits_of(folder):
    return {name: len(raw) for name, raw in open_source(folder).splits.items()}


def test_pairs_are_read_as_they_were_written(tmp_path):
    images = loaded(write_pairs(tmp_path))
    assert images.has_masks
    for at, path in enumerate(images.paths):
        image, mask = shapes(int(path.rsplit("/", 1)[1].removesuffix(".png")))
        assert np.array_equal(images.images[at].permute(1, 2, 0).numpy(), image)
        assert np.array_equal(images.labels[at].numpy(), mask)


def test_every_layout_is_known(tmp_path):
    plain = write_pairs(tmp_path / "plain", count=6, names=("imgs", "labels"), ending="_mask")
    assert splits_of(plain) == {"all": 6}
    inner = tmp_path / "inner"
    for split, count in (("train", 5), ("val", 2)):
        write_pairs(inner / split, count=count, names=("images", "annotations"))
    assert splits_of(inner) == {"train": 5, "val": 2}
    outer = tmp_path / "outer"
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (outer / kind).mkdir(parents=True, exist_ok=True)
            source = "images" if kind == "images" else "annotations"
            shutil.copytree(inner / split / source, outer / kind / split)
    assert splits_of(outer) == {"train": 5, "val": 2}
    assert splits_of(write_voc(tmp_path / "voc")) == {"train": 8, "val": 3}
    cityscapes = tmp_path / "cityscapes"
    for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        place = cityscapes / kind / "train" / "ulm"
        place.mkdir(parents=True)
        shutil.copy(plain / ("imgs/0.png" if kind[0] == "l" else "labels/0_mask.png"),
                    place / f"ulm_0_{ending}.png")  # fmt: skip
    shutil.copy(plain / "imgs" / "0.png",
                cityscapes / "gtFine" / "train" / "ulm" / "ulm_0_gtFine_color.png")  # fmt: skip
    assert splits_of(cityscapes) == {"train": 1}
    camvid = write_pairs(tmp_path / "camvid", count=4, names=("train", "trainannot"))
    assert splits_of(camvid) == {"train": 4}
    assert len(open_images(plain).splits["all"]) == 6
    assert not open_images(plain).has_masks


def test_palette_masks_hold_ids_and_not_colours(tmp_path):
    images = loaded(write_voc(tmp_path), "train")
    by_name = {path.rsplit("/a", 1)[1]: at for at, path in enumerate(images.paths)}
    assert np.array_equal(images.labels[by_name["3.jpg"]].numpy(), shapes(3)[1])


def test_masks_are_brought_to_the_size_of_a_model_without_new_ids(tmp_path):
    images = loaded(write_pairs(tmp_path, size=37))
    assert images.labels.shape[1:] == (16, 16)
    assert set(images.labels.unique().tolist()) <= {0, 1, 2, 255}
    streamed = loaded(tmp_path, memory_limit=0)
    (pixels, masks), *_ = streamed.iterate(24)
    assert torch.equal(masks, images.labels)
    assert torch.equal(pixels, images.images)


def test_masks_of_0_and_255_have_an_object(tmp_path):
    folder = write_pairs(tmp_path, count=4)
    for path in (folder / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where((mask > 0) & (mask < 255), 255, 0).astype(np.uint8)).save(path)
    source = open_source(folder)
    assert source.classes == ("background", "object")
    assert set(loaded(folder).labels.unique().tolist()) == {0, 1}


def test_a_file_of_names_names_the_classes(tmp_path):
    folder = write_pairs(tmp_path, count=4)
    assert open_source(folder).classes == ()
    (folder / "classes.txt").write_text("nothing\nsquare\ndisc\n")
    assert open_source(folder).classes == ("nothing", "square", "disc")


def replace_mask(folder, pixels, name="3.png"):
    Image.fromarray(pixels).save(folder / "masks" / name)


def test_what_is_wrong_with_a_mask_is_told_with_its_file(tmp_path):
    folder = write_pairs(tmp_path, count=5)
    replace_mask(folder, np.zeros((8, 16), np.uint8))
    with pytest.raises(InputError, match="mask has 16x8 pixels, its image 16x16") as caught:
        loaded(folder)
    assert (caught.value.code, caught.value.where[-11:]) == ("MASK_SIZE", "masks/3.png")
    for pixels, why in (
        (np.random.default_rng(0).integers(0, 9, (16, 16, 3)).astype(np.uint8), "colours"),
        (np.full((16, 16), 700, np.uint16), "above 255"),
    ):
        replace_mask(folder, pixels)
        with pytest.raises(InputError, match=why) as caught:
            loaded(folder)
        assert caught.value.code == "BAD_MASK"
    (folder / "masks" / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        loaded(folder)
    (folder / "masks" / "3.png").unlink()
    with pytest.raises(InputError, match=r"1 image has no mask: .*3\.png") as caught:
        open_source(folder)
    assert caught.value.code == "MISSING_MASK"


def test_ids_beyond_the_maps_of_a_model_are_told_with_their_image(tmp_path):
    images = loaded(write_pairs(tmp_path, count=6))
    check_ids(images, 3)
    with pytest.raises(InputError, match="holds the class 2; the model has 2 maps") as caught:
        check_ids(images, 2)
    assert caught.value.where in images.paths
    with pytest.raises(InputError, match="but the data has 4 classes"):
        check_ids(images, 3, ("a", "b", "c", "d"))


@pytest.mark.parametrize("name", ["none", "flip", "crop", "crop-flip"])
def test_masks_move_as_their_images_do(name):
    mask = torch.randint(0, 200, (20, 16, 16), generator=torch.Generator().manual_seed(0))
    mask = mask.to(torch.uint8)
    images = (mask[:, None] + 1).expand(-1, 3, -1, -1)  # every pixel says its own id
    generator = torch.Generator().manual_seed(1)
    spec = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3)
    augmentation = make_augmentation([name], Setting(spec, 2))
    moved, masks, _ = augmented(augmentation, images, mask, generator)
    outside = moved[:, 0] == 0
    assert torch.equal(masks[~outside], moved[:, 0][~outside] - 1)
    assert (masks[outside] == 255).all()
    assert bool(outside.any()) == ("crop" in name)


def test_analyze_says_what_masks_hold(tmp_path):
    folder = write_pairs(tmp_path / "data", count=9)
    report = verbs.analyze(data=str(folder), page=tmp_path / "page.html")
    found = report.masks
    assert report.dataset is None
    assert (found.format, found.images, found.sizes) == ("segmentation", {"all": 9}, {"16x16": 9})
    masks = np.stack([shapes(at)[1] for at in range(9)])
    assert found.ignored == pytest.approx((masks == 255).mean())
    for at, one in enumerate(found.classes):
        assert one.images == sum((mask == at).any() for mask in masks)
        assert one.pixels == pytest.approx((masks == at).sum() / (masks != 255).sum())
    assert "share of the pixels" in (tmp_path / "page.html").read_text()
