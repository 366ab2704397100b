"""Tables of images, archives of arrays, and what is odd about images."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli.analysis.dataset import analyze_dataset
from prunecli.architectures.reference import InputSpec
from prunecli.complexity import csg
from prunecli.data import load_split, open_source
from prunecli.data.survey.near_duplicates import near_duplicates, perceptual_hashes, thumbnail
from prunecli.data.survey.survey import survey
from prunecli.errors import InputError, PruneError
from prunecli.options import ComplexityOptions

SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)


def picture(seed=0, size=(32, 24)):
    """A smooth picture, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path):
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.png")
    return tmp_path


def write(path, text):
    path.write_text(text)
    return path


# Tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,cat\n1.png,dog\n2.png,cat\n",
        "0.png,cat\n1.png,dog\n2.png,cat\n",
        "label;image\ncat;0.png\ndog;1.png\ncat;2.png\n",
        "\ufefffilename\tclass\n0.png\tcat\n1.png\tdog\n\n2.png\tcat\n",
    ],
)
def test_a_table_names_images_and_classes(pictures, text):
    source = open_source(write(pictures / "table.csv", text))
    assert (source.format, source.classes) == ("csv", ("cat", "dog"))
    assert [sample.label for sample in source.splits["all"]] == [0, 1, 0]
    images = load_split(source, "all", input=SPEC)
    assert images.images.shape == (3, 3, 8, 8)


def test_a_table_may_say_which_split_an_image_is_in(pictures):
    text = "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,valid\n3.png,b,test\n"
    source = open_source(write(pictures / "table.csv", text))
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }


def test_numbers_as_classes_may_start_at_one_and_have_gaps(pictures):
    text = "0.png,10\n1.png,2\n2.png,1\n"
    source = open_source(write(pictures / "table.csv", text))
    assert source.classes == ("1", "2", "10")
    assert [sample.label for sample in source.splits["all"]] == [2, 1, 0]


def test_files_that_are_not_there_are_counted(pictures):
    source = open_source(write(pictures / "table.csv", "0.png,a\nnone.png,b\n1.png,b\n"))
    assert len(source.splits["all"]) == 2
    assert "1 file of the table is not there" in source.problems[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "CORRUPT_DATA"),
        ("0.png\n", "CORRUPT_DATA"),
        ("path,colour\n0.png,red\n", "CORRUPT_DATA"),
        ("path,label,split\n0.png,a,tomorrow\n", "CORRUPT_DATA"),
        ("path,label,split\n0.png,a\n", "CORRUPT_DATA"),
        ("a.png,x\nb.png,y\n", "NO_IMAGES"),
        ("path,label\n", "NO_IMAGES"),
        ("a.png,--5\nb.png,3\n", "NO_IMAGES"),
        (f"{'a' * 300},1\nb.png,3\n", "NO_IMAGES"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(pictures, text, code):
    with pytest.raises(PruneError) as caught:
        open_source(write(pictures / "table.csv", text))
    assert caught.value.code == code


# Archives ----------------------------------------------------------------------------------------


def test_features_are_measured_as_they_are(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(["cat", "dog", "emu"], 40)
    points = random.normal(size=(120, 4)) + 2 * np.repeat(np.arange(3), 40)[:, None]
    np.savez(tmp_path / "data.npz", x=points, y=labels)
    options = ComplexityOptions(repeats=1)
    report = analyze_dataset(open_source(tmp_path / "data.npz"), options=options)
    assert report.csg == pytest.approx(csg(points, labels).csg)
    assert report.csg_settings["embedding"] == "features"
    assert [(entry.name, entry.count) for entry in report.classes] == [
        ("cat", 40),
        ("dog", 40),
        ("emu", 40),
    ]


def test_images_in_an_archive_are_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "a.npz",
        x_train=pixels[:4],
        y_train=[1, 3, 1, 3],
        x_test=pixels[4:],
        y_test=[3, 1],
    )
    source = open_source(tmp_path / "a.npz")
    assert source.classes == ("1", "3")
    assert source.splits["train"].labels.tolist() == [0, 1, 0, 1]
    images = load_split(source, "test", input=SPEC)
    assert np.array_equal(images.images.numpy(), pixels[4:].transpose(0, 3, 1, 2))


def test_an_image_keeps_its_name_whatever_is_chosen_with_it(tmp_path):
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(20) % 2)
    source = open_source(tmp_path / "a.npz")
    for seed in (0, 1):
        images = load_split(source, "train", input=SPEC, seed=seed, limit=6)
        found = [int(name.removeprefix("#")) for name in images.paths]
        assert found == images.images[:, 0, 0, 0].tolist()


def test_features_cannot_be_trained_on(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3)), y=[0, 0, 1, 1])
    with pytest.raises(InputError, match="no images"):
        load_split(open_source(tmp_path / "data.npz"), "all", input=SPEC)


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/prunecli-trap",))


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((4, 3)), "y": np.zeros(5)},
        {"z": np.zeros(3)},
        {"x": np.float64(3), "y": np.zeros(1)},
        {"x": np.zeros((4, 3, 3), np.float32), "y": np.zeros(4)},
        {"x": np.zeros((4, 3, 3, 9), np.uint8), "y": np.zeros(4)},
        {"x": np.array(["a", "b"])[:, None], "y": np.zeros(2)},
        {"x": np.array([Trap(), Trap()], object), "y": np.zeros(2)},
    ],
)
def test_an_archive_that_makes_no_sense_is_refused_and_runs_nothing(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(PruneError) as caught:
        open_source(tmp_path / "data.npz")
    assert caught.value.code == "CORRUPT_DATA"
    assert not Path("/tmp/prunecli-trap").exists()


def test_compressed_arrays_that_are_damaged_are_refused(tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 6))
    np.savez_compressed(tmp_path / "data.npz", x=points, y=np.arange(40) % 2)
    whole = (tmp_path / "data.npz").read_bytes()
    for place in range(50, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "data.npz").write_bytes(bytes(damaged))
        with contextlib.suppress(PruneError):  # a change may also do no harm
            open_source(tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps([1])])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(PruneError, match="archive"):
        open_source(tmp_path / "data.npz")


# What is odd about images ------------------------------------------------------------------------


def test_a_hash_says_where_brightness_grows():
    grey = np.zeros((1, 8, 9), np.uint8)
    grey[0, 0] = [0, 9, 9, 5, 6, 6, 6, 6, 7]
    (found,) = perceptual_hashes(grey)
    assert int(found) == 0b10001001


def test_scaled_and_compressed_pictures_are_near_duplicates_and_others_are_not(tmp_path):
    original = picture(0, (200, 160))
    original.save(tmp_path / "again.jpg", quality=70)
    again = Image.open(tmp_path / "again.jpg")
    lighter = original.point(lambda level: min(255, level + 6))
    others = [picture(seed, (200, 160)) for seed in range(1, 40)]
    variants = [original, again, original.resize((100, 80)), lighter]
    thumbnails = np.stack([thumbnail(image) for image in [*others[:20], *variants, *others[20:]]])
    (group,) = near_duplicates(thumbnails)
    assert group.tolist() == [20, 21, 22, 23]


def test_near_duplicates_equal_those_of_a_plain_double_loop():
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (60, 8, 9))
    noisy = (base[:20] + random.integers(-3, 4, (20, 8, 9))).clip(0, 255)
    pictures = np.concatenate([base, noisy]).astype(np.uint8)
    hashes = perceptual_hashes(pictures)
    centred = pictures.reshape(80, -1) - pictures.reshape(80, -1).mean(1, keepdims=True)
    expected = {
        (i, j)
        for i in range(80)
        for j in range(i + 1, 80)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 3
        and np.abs(centred[i] - centred[j]).mean() <= 4
    }
    assert expected
    assert {tuple(group.tolist()) for group in near_duplicates(pictures)} == expected


def test_empty_pictures_are_not_called_near_duplicates():
    assert near_duplicates(np.full((5, 8, 9), 200, np.uint8)) == ()
    assert near_duplicates(np.zeros((0, 8, 9), np.uint8)) == ()


def test_odd_images_are_counted(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        picture(len(name)).save(tmp_path / name / "plain.png")
    cat = tmp_path / "cat"
    picture(1).convert("CMYK").save(cat / "print.jpg")
    picture(2).resize((5, 30)).save(cat / "tiny.png")
    picture(3).convert("L").save(cat / "grey.png")
    deep = np.random.default_rng(0).integers(0, 60000, (20, 20)).astype(np.uint16)
    Image.fromarray(deep).save(cat / "deep.png")
    picture(4).save(cat / "moving.gif", save_all=True, append_images=[picture(5)])
    found = survey(open_source(tmp_path))
    assert found.unreadable == ()
    assert found.kinds == {
        "CMYK": 1,
        "tiny": 1,
        "16-bit": 1,
        "animated": 1,
        "grey among colour": 2,
    }
    # The same picture is in both classes.
    assert found.mislabelled == 1


# Folders that are hard to walk -------------------------------------------------------------------


def folder_of(pictures, *names):
    for at, name in enumerate(names):
        (pictures / "data" / name).mkdir(parents=True)
        (pictures / "data" / name / "a.png").hardlink_to(pictures / f"{at}.png")
    return pictures / "data"


def test_a_loop_of_links_is_left_out_and_said(pictures):
    folder = folder_of(pictures, "cat", "dog")
    (folder / "cat" / "again").symlink_to(folder / "cat", target_is_directory=True)
    source = open_source(folder)
    assert len(source.splits["all"]) == 2
    assert any("leads back" in problem for problem in source.problems)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_said(pictures):
    folder = folder_of(pictures, "cat", "dog", "emu")
    (folder / "emu").chmod(0)
    source = open_source(folder)
    (folder / "emu").chmod(0o755)
    assert any("cannot be read" in problem for problem in source.problems)
