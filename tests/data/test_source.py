"""Finding data sets on disk: every format, every way in which one can be broken."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.data import FORMATS, DataFormat, open_source
from prunecli.data.splits import choose, even_sample, stratified_split
from prunecli.errors import InputError, PruneError


@pytest.fixture
def rgb8() -> InputSpec:
    return InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def grey8() -> InputSpec:
    return InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.25,))


def write_image(path: Path, *, size=(8, 8), mode="RGB", seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, *, splits=("train", "test"), classes=("cat", "dog"), count=10) -> Path:
    seed = 0
    for split in splits:
        for name in classes:
            for index in range(count):
                seed += 1
                write_image(root / split / name / f"{index:03}.png", seed=seed)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx_pair(folder: Path, prefix: str, count: int, *, end="") -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", np.arange(count) % 10)
    return images


# image folders


def test_split_folders_are_found_with_their_classes_sorted(tmp_path):
    source = data.open_source(make_folder(tmp_path, classes=("dog", "ant", "cat")))
    assert source.format == "image-folder"
    assert source.classes == ("ant", "cat", "dog")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 30, "test": 30}
    assert source.problems == ()
    sample = source.splits["train"][0]
    assert (sample.path, sample.label) == (tmp_path / "train" / "ant" / "000.png", 0)


@pytest.mark.parametrize(("folder", "split"), [("Training", "train"), ("valid", "val")])
def test_common_names_of_split_folders_are_understood(tmp_path, folder, split):
    source = data.open_source(make_folder(tmp_path, splits=(folder, "test")))
    assert set(source.splits) == {split, "test"}


def test_a_folder_of_classes_alone_is_one_split(tmp_path):
    source = data.open_source(make_folder(tmp_path, splits=("",)))
    assert set(source.splits) == {"all"}
    assert data.available_splits(source) == ("train", "held_out", "test", "all")


def test_a_folder_called_test_is_evaluated_as_a_whole(tmp_path):
    make_folder(tmp_path)
    assert data.evaluation_split(data.open_source(tmp_path / "test")) == "all"
    assert data.evaluation_split(data.open_source(tmp_path / "train")) == "test"


def test_a_folder_called_test_that_was_trained_on_is_not_evaluated_as_a_whole(tmp_path):
    source = data.open_source(make_folder(tmp_path) / "test")
    assert data.evaluation_split(source, trained=True) == "test"


def test_without_a_test_folder_scores_are_those_of_the_held_out_images(tmp_path):
    source = data.open_source(make_folder(tmp_path, splits=("train", "val")))
    assert data.evaluation_split(source) == "held_out"
    assert len(choose(source, "held_out")) == 20
    assert len(choose(source, "train")) == 20


def test_images_in_nested_folders_belong_to_their_class_and_hidden_files_to_none(tmp_path):
    make_folder(tmp_path, splits=("",), count=2)
    write_image(tmp_path / "cat" / "more" / "x.JPG")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    source = data.open_source(tmp_path)
    assert source.classes == ("cat", "dog")
    assert np.bincount(data.labels_of(source.splits["all"])).tolist() == [3, 2]
    assert source.problems == ()


def test_files_that_are_no_images_are_counted(tmp_path):
    make_folder(tmp_path, splits=("",), count=2)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    assert any("1 file in" in problem for problem in data.open_source(tmp_path).problems)


def test_an_empty_class_folder_is_named_and_cannot_be_trained_on(tmp_path, rgb8):
    make_folder(tmp_path)
    (tmp_path / "train" / "eel").mkdir()
    source = data.open_source(tmp_path)
    assert source.classes == ("cat", "dog", "eel")
    assert any(
        "1 class has no image" in problem and "eel" in problem for problem in source.problems
    )
    assert any("eel" in warning for warning in data.load_split(source, "test", input=rgb8).warnings)
    with pytest.raises(InputError, match="eel") as caught:
        data.load_split(source, "train", input=rgb8)
    assert caught.value.code == "EMPTY_CLASS"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda root: root / "nowhere", "DATA_NOT_FOUND"),
        (lambda root: root, "DATA_NOT_RECOGNISED"),
        (lambda root: write_image(root / "a.png"), "DATA_NOT_RECOGNISED"),
        (lambda root: write_image(root / "a.png").parent, "NO_CLASSES"),
        (lambda root: (root / "train" / "cat").mkdir(parents=True) or root, "NO_IMAGES"),
    ],
    ids=["missing", "empty", "file", "no classes", "no images"],
)
def test_a_folder_that_holds_no_data_set_is_refused(tmp_path, make, code):
    place = make(tmp_path)
    with pytest.raises(InputError) as caught:
        data.open_source(place)
    assert caught.value.code == code
    assert caught.value.hint


def test_two_folders_for_one_split_are_refused(tmp_path):
    with pytest.raises(InputError, match="same split"):
        data.open_source(make_folder(tmp_path, splits=("val", "valid")))


# splits


def test_the_splits_of_one_seed_are_disjoint_complete_and_stratified(tmp_path):
    source = data.open_source(make_folder(tmp_path, splits=("",), count=50))
    parts = [
        set(data.names_of(choose(source, name, seed=3))) for name in ("train", "held_out", "test")
    ]
    assert [len(part) for part in parts] == [72, 8, 20]
    assert set.union(*parts) == set(data.names_of(source.splits["all"]))
    assert sum(map(len, parts)) == 100
    for name in ("train", "held_out", "test"):
        counts = np.bincount(data.labels_of(choose(source, name, seed=3)))
        assert counts[0] == counts[1]


def test_held_out_images_change_with_the_seed_but_the_test_images_never_do(tmp_path):
    source = data.open_source(make_folder(tmp_path, splits=("",), count=50))

    def names(split: str, seed: int) -> tuple[str, ...]:
        return data.names_of(choose(source, split, seed=seed))

    assert names("held_out", 1) == names("held_out", 1) != names("held_out", 2)
    assert names("test", 1) == names("test", 2)


def test_a_class_of_one_image_keeps_it_for_training():
    kept, taken = stratified_split(np.array([0, 0, 0, 1, 2, 2]), 0.1, seed=0)
    assert 3 in kept
    assert len(taken) == 2
    assert sorted([*kept, *taken]) == list(range(6))


def test_nothing_is_taken_for_a_share_of_zero():
    kept, taken = stratified_split(np.arange(5), 0.0, seed=0)
    assert kept.tolist() == [0, 1, 2, 3, 4]
    assert taken.size == 0


def test_a_limit_takes_from_all_classes_in_turn():
    labels = np.repeat([0, 1, 2], [100, 10, 2])
    chosen = even_sample(labels, 12, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 2]
    assert (np.diff(chosen) > 0).all()


def test_an_unknown_split_names_those_that_exist(tmp_path):
    source = data.open_source(make_folder(tmp_path, splits=("test",)))
    with pytest.raises(InputError, match="it has: test, all"):
        choose(source, "train")


def test_all_joins_the_splits(tmp_path):
    source = data.open_source(make_folder(tmp_path))
    assert len(choose(source, "all")) == 40
    assert len(choose(data.open_source("digits"), "all")) == 1797


# built-in and published formats


def test_the_digits_have_a_test_split_that_no_seed_changes(grey8):
    source = data.open_source("digits")
    assert len(source.classes) == 10
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 1438,
        "test": 359,
    }
    one = data.load_split(source, "test", input=grey8, seed=1)
    two = data.load_split(source, "test", input=grey8, seed=2)
    assert (one.images == two.images).all()
    assert one.images.max() == 255
    assert one.warnings == ()


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("place", ["", "MNIST/raw"])
def test_idx_files_are_read_gzipped_or_not(tmp_path, end, place):
    images = write_idx_pair(tmp_path / place, "train", 30, end=end)
    write_idx_pair(tmp_path / place, "t10k", 20, end=end)
    source = data.open_source(tmp_path)
    assert source.format == "mnist-idx"
    assert (source.splits["train"].images[:, 0] == images).all()
    assert source.splits["test"].labels.tolist() == [index % 10 for index in range(20)]
    assert source.problems == ()


def test_a_single_idx_pair_is_divided_in_file_order_and_says_so(tmp_path):
    images = write_idx_pair(tmp_path, "t10k", 100)
    source = data.open_source(tmp_path)
    assert (source.splits["train"].images[:, 0] == images[:80]).all()
    assert (source.splits["test"].images[:, 0] == images[80:]).all()
    assert "first 80" in source.problems[0]


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def damage_replace(path: Path) -> None:
    path.write_bytes(b"not an idx file")


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("damage", [damage_truncate, damage_replace])
def test_a_damaged_idx_file_is_named(tmp_path, damage, end):
    write_idx_pair(tmp_path, "train", 5, end=end)
    damage(tmp_path / f"train-images-idx3-ubyte{end}")
    with pytest.raises(PruneError, match="train-images") as caught:
        data.open_source(tmp_path)
    assert caught.value.code == "CORRUPT_DATA"


def test_what_a_format_did_not_foresee_is_a_damaged_data_set(tmp_path):
    def fail(_):
        raise KeyError("shape")

    FORMATS.add("odd", DataFormat(lambda path: path.suffix == ".odd", fail), summary="For a test.")
    try:
        (tmp_path / "x.odd").touch()
        with pytest.raises(PruneError, match="KeyError: 'shape'") as caught:
            open_source(tmp_path / "x.odd")
    finally:
        del FORMATS._entries["odd"]
    assert (caught.value.code, caught.value.exit_code) == ("CORRUPT_DATA", 4)


def test_idx_labels_of_another_number_than_images_are_refused(tmp_path):
    write_idx_pair(tmp_path, "train", 5)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(4))
    with pytest.raises(PruneError, match=r"with \[4\] labels"):
        data.open_source(tmp_path)


def write_cifar_pickles(folder: Path, *, batches=2, count=7) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, 256, (batches + 1, count, 3072), np.uint8)
    names = [f"data_batch_{number + 1}" for number in range(batches)] + ["test_batch"]
    for name, pixels in zip(names, rows, strict=True):
        content = {b"data": pixels, b"labels": [index % 3 for index in range(count)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"label_names": [b"ant", b"bee", b"cat"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return rows


@pytest.mark.parametrize("place", ["", "cifar-10-batches-py"])
def test_pickled_cifar_batches_are_read_without_unpickling_anything_else(tmp_path, place):
    rows = write_cifar_pickles(tmp_path / place)
    source = data.open_source(tmp_path)
    assert source.format == "cifar-batches"
    assert source.classes == ("ant", "bee", "cat")
    train = source.splits["train"]
    assert (train.images.reshape(14, 3072) == rows[:2].reshape(14, 3072)).all()
    assert train.images.shape == (14, 3, 32, 32)
    assert "data_batch_3" in source.problems[0]


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_cifar_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    write_cifar_pickles(tmp_path / "data")
    trace = tmp_path / "ran"
    content = {b"data": Harmful(trace), b"labels": []}
    (tmp_path / "data" / "data_batch_1").write_bytes(pickle.dumps(content))
    with pytest.raises(PruneError, match="refused") as caught:
        data.open_source(tmp_path / "data")
    assert caught.value.code == "CORRUPT_DATA"
    assert not trace.exists()


def test_cifar_100_pickles_take_the_fine_labels(tmp_path):
    pixels = np.zeros((4, 3072), np.uint8)
    for name in ("train", "test"):
        content = {b"data": pixels, b"fine_labels": [3, 2, 1, 0], b"coarse_labels": [0, 0, 0, 0]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"fine_label_names": [b"a", b"b", b"c", b"d"], b"coarse_label_names": [b"x"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    source = data.open_source(tmp_path)
    assert source.classes == ("a", "b", "c", "d")
    assert source.splits["train"].labels.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("label_bytes", "files"),
    [
        (1, ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt")),
        (2, ("train.bin", "test.bin", "fine_label_names.txt")),
    ],
)
def test_binary_cifar_batches_are_read(tmp_path, label_bytes, files):
    rows = np.random.default_rng(0).integers(0, 256, (6, label_bytes + 3072), np.uint8)
    rows[:, :label_bytes] = np.arange(6)[:, None] % 2
    rows[:, 0] *= 2 - label_bytes
    for name in files[:2]:
        (tmp_path / name).write_bytes(rows.tobytes())
    (tmp_path / files[2]).write_text("ant\nbee\n\n")
    source = data.open_source(tmp_path)
    assert source.classes == ("ant", "bee")
    assert source.splits["test"].labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (source.splits["train"].images.reshape(6, -1) == rows[:, label_bytes:]).all()
    (tmp_path / files[0]).write_bytes(rows.tobytes()[:-1])
    with pytest.raises(PruneError, match="whole number"):
        data.open_source(tmp_path)


def test_every_registered_format_has_a_summary():
    assert {"image-folder", "mnist-idx", "cifar-batches"} <= set(data.FORMATS.names())
    assert all(entry.summary for entry in data.FORMATS)


def test_the_real_mnist_test_files_are_read(shared_dir):
    source = data.open_source(shared_dir / "data" / "mnist")
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 8000,
        "test": 2000,
    }
    first = [*source.splits["train"].labels[:5], *source.splits["test"].labels[-1:]]
    assert first == [7, 2, 1, 0, 4, 6]


def test_the_real_cifar_images_are_listed(cifar_dir):
    source = data.open_source(cifar_dir)
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 50000,
        "test": 5000,
    }
    assert len(choose(source, "held_out")) == 5000
