"""Data that is broken in every way we could think of: counted and said, never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli.analysis.dataset import analyze_dataset
from prunecli.architectures.reference import InputSpec
from prunecli.data import labels_of, load_split, names_of, open_source, unlike_classes
from prunecli.data.image_files import Files, Run, Sample, files_of, joined_files
from prunecli.data.source import join, select
from prunecli.data.splits import evaluation_split, even_sample, stratified_split
from prunecli.data.survey.survey import survey
from prunecli.errors import InputError, PruneError
from prunecli.files import limited
from prunecli.options import ComplexityOptions
from prunecli_cli.main import main

SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)


def write_image(path: Path, seed: int = 0, size=(8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / name / f"{number}.png", 1000 * label + number)
    return root


def write_npz(folder: Path, **arrays) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        analyze_dataset(open_source(path), options=ComplexityOptions(repeats=1))
    assert caught.value.exit_code == 2
    return caught.value


def said(path: Path, **options) -> str:
    choices = ComplexityOptions(**{"repeats": 1, **options})
    return "\n".join(
        (*open_source(path).problems, *analyze_dataset(open_source(path), options=choices).warnings)
    )


# Classes -----------------------------------------------------------------------------------------


def test_one_class_is_named(tmp_path):
    error = refusal(make_folder(tmp_path, {"cat": 5}))
    assert (error.code, "there is one: cat" in error.message) == ("ONE_CLASS", True)


def test_classes_that_lie_further_down_are_pointed_at(tmp_path):
    make_folder(tmp_path / "flowers" / "photos", {"rose": 4, "daisy": 4})
    error = refusal(tmp_path)
    assert error.hint.endswith(str(tmp_path / "flowers" / "photos"))
    assert "images cannot" not in said(tmp_path / "flowers" / "photos")


def test_small_classes_are_named_and_counted(tmp_path):
    make_folder(tmp_path / "a", {"cat": 6, "dog": 3})
    assert "1 class has no more than 3 samples and looks like its" in said(tmp_path / "a")
    assert "alone: dog" in said(tmp_path / "a")
    make_folder(tmp_path / "b", {"cat": 6, "dog": 3, "emu": 1})
    assert "2 classes have no more than 3 samples and look like their" in said(tmp_path / "b")


def test_as_many_classes_as_images_are_doubted(tmp_path):
    assert "9 classes for 9 samples" in said(
        make_folder(tmp_path, {f"c{at}": 1 for at in range(9)})
    )


def test_a_class_smaller_than_what_is_asked_of_each_is_said(tmp_path):
    folder = make_folder(tmp_path / "data", {"cat": 9, "dog": 4, "emu": 6})
    words = said(folder, subset=str(tmp_path / "part.txt"), per_class=6)
    assert "1 class has fewer than the 6 images of --per-class, and gives all: dog (4)" in words


def test_a_quiet_analysis_prints_the_path_of_the_subset(tmp_path, capsys):
    folder = make_folder(tmp_path / "data", {"cat": 9, "dog": 9})
    part = str(tmp_path / "part.txt")
    words = ["analyze", str(folder), "--write-subset", part, "--per-class", "5", "--repeats", "2"]
    assert main([*words, "-q"]) == 0
    assert capsys.readouterr().out == f"{part}\n"
    assert len(open_source(part).splits["all"]) == 10


def test_a_survey_takes_a_number_or_all(tmp_path, capsys):
    folder = str(make_folder(tmp_path / "data", {"cat": 9, "dog": 9}))
    for word, opened in (("5", 5), ("all", 18)):
        assert main(["analyze", folder, "--survey", word, "--repeats", "2", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["data"]["dataset"]["looked_at"] == opened
    assert main(["analyze", folder, "--survey", "some", "--json"]) == 2
    assert "--survey" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_classes_with_no_name_in_common_are_doubted(tmp_path):
    source = open_source(make_folder(tmp_path, {"cat": 2, "dog": 2}))
    assert unlike_classes(None, source) == ()
    assert unlike_classes(("dog", "fox"), source) == ()
    (warning,) = unlike_classes(("rose", "oak"), source)
    assert "(rose, oak) and the data's (cat, dog) have no name in common" in warning


def test_evaluate_says_that_the_classes_are_others(tmp_path, capsys, make_checkpoint):
    import dataclasses

    from prunecli.checkpoint import save

    names = tuple(f"class {at}" for at in range(10))
    save(dataclasses.replace(make_checkpoint(), classes=names), tmp_path / "model.pt")
    assert main(["evaluate", str(tmp_path / "model.pt"), "--data", "digits", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert any("no name in common" in warning for warning in answer["warnings"])


# Labels and features -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.arange(60) % 3 + 1, ("1", "2", "3")),
        (np.arange(60) % 3 * 5, ("0", "5", "10")),
        (np.arange(60) % 3 - 1, ("-1", "0", "1")),
        ((np.arange(60) % 3).astype(float), ("0", "1", "2")),
        (np.arange(60) % 3 + 0.5, ("0.5", "1.5", "2.5")),
        (np.array(["a", "b", "c"])[np.arange(60) % 3], ("a", "b", "c")),
        (np.array([b"a", b"b", b"c"])[np.arange(60) % 3], ("a", "b", "c")),
        (np.arange(60)[:, None] % 3, ("0", "1", "2")),
    ],
)
def test_labels_of_any_kind_give_the_same_score(tmp_path, labels, names):
    points = np.random.default_rng(0).normal(size=(60, 4))
    found = open_source(write_npz(tmp_path, x=points, y=labels))
    assert found.classes == names
    plain = open_source(write_npz(tmp_path, x=points, y=np.arange(60) % 3))
    options = ComplexityOptions(repeats=1)
    assert analyze_dataset(found, options=options).csg == pytest.approx(
        analyze_dataset(plain, options=options).csg
    )


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    labels = np.array([0.0, 1.0, np.nan] * 20)
    source = open_source(
        write_npz(tmp_path, x=np.random.default_rng(0).normal(size=(60, 4)), y=labels)
    )
    assert (source.classes, len(source.splits["all"])) == (("0", "1"), 40)
    assert source.problems == ("20 rows have no label (NaN) and are left out",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_counted_and_named(tmp_path, value):
    points = np.random.default_rng(0).normal(size=(60, 4))
    points[[3, 7, 7], [0, 1, 2]] = value
    error = refusal(write_npz(tmp_path, x=points, y=np.arange(60) % 2))
    assert error.message == "3 values in 2 of 60 rows are NaN or infinite: #3, #7"
    assert "isfinite" in error.hint


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.eye(3)[np.arange(60) % 3]}, r"shape \[60, 3\]; if they are one-hot"),
        ({"y": np.arange(50) % 3}, "60 rows with 50 labels"),
        ({"y": np.arange(60) % 3 * 1j}, "labels are complex128"),
        ({"x": np.zeros((60, 4)) * 1j}, "features are complex128"),
        ({"x": np.zeros((60, 4)).astype(object)}, "Object arrays cannot be loaded"),
        ({"x_test": np.zeros((6, 3)), "y_test": np.zeros(6)}, "splits have 3, 4 columns"),
        ({"x": np.zeros((0, 4)), "y": np.zeros(0)}, "there is none"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tmp_path, arrays, words):
    whole = {"x": np.zeros((60, 4)), "y": np.arange(60) % 3, **arrays}
    path = write_npz(tmp_path, **whole)
    with pytest.raises(PruneError, match=words):
        analyze_dataset(open_source(path), options=ComplexityOptions(repeats=1))


def test_idx_labels_may_start_at_one(tmp_path):
    images = np.zeros((26, 4, 4), np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(1, 27))
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images[:2])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([3, 26]))
    source = open_source(tmp_path)
    assert source.classes == tuple(map(str, range(1, 27)))
    assert source.splits["test"].labels.tolist() == [2, 25]


# Folders -----------------------------------------------------------------------------------------


def test_images_outside_of_class_folders_are_counted(tmp_path):
    make_folder(tmp_path, {"cat": 5, "dog": 5})
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    assert f"3 images in {tmp_path} lie in no class folder" in said(tmp_path)
    make_folder(tmp_path / "b" / "train", {"cat": 5, "dog": 5})
    write_image(tmp_path / "b" / "train" / "loose.png")
    assert "1 image in" in said(tmp_path / "b")


def test_a_split_without_labels_is_said_and_scores_are_those_of_held_out_images(tmp_path):
    make_folder(tmp_path / "train", {"cat": 5, "dog": 5})
    for number in range(4):
        write_image(tmp_path / "test" / f"{number}.png", number)
    source = open_source(tmp_path)
    assert set(source.splits) == {"train"}
    assert evaluation_split(source) == "held_out"
    assert f"4 images in {tmp_path / 'test'} lie in no class folder and are left out" in (
        source.problems
    )
    assert f"{tmp_path / 'test'} holds no image with a label and is left out" in source.problems


def test_links_that_lead_nowhere_or_round_in_circles_do_no_harm(tmp_path):
    folder = make_folder(tmp_path / "data", {"cat": 5, "dog": 5})
    (folder / "self").symlink_to(folder)
    (folder / "dot").symlink_to(".")
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "nowhere").symlink_to("/no/such/place")
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "dog" / "gone.png").symlink_to("/no/such/place.png")
    source = open_source(folder)
    assert source.classes == ("cat", "dog")
    assert len(source.splits["all"]) == 11
    assert sum("lead back" in text or "leads back" in text for text in source.problems) == 2
    assert "1 image is missing" in said(folder)


def test_a_class_may_be_a_link_to_a_folder_elsewhere(tmp_path):
    make_folder(tmp_path / "store", {"cats": 4, "dogs": 4})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store" / "cats")
    (tmp_path / "data" / "dog").symlink_to("../store/dogs")
    with limited(outside=True):
        source = open_source(tmp_path / "data")
    assert (source.classes, len(source.splits["all"])) == (("cat", "dog"), 8)


def test_pipes_that_are_called_like_images_are_never_opened(tmp_path):
    folder = make_folder(tmp_path, {"cat": 5, "dog": 5})
    os.mkfifo(folder / "cat" / "pipe.png")
    assert "1 file in" in said(folder)


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, {"cat": 5, "dog": 5, "emu": 5})
    scan = os.scandir

    def guarded(place):
        if Path(place).name in closed:
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", guarded)
    closed = {"emu"}
    problems = "\n".join(open_source(folder).problems)
    assert "1 folder cannot be read" in problems
    assert "emu (Permission denied)" in problems
    closed = {folder.name}
    with pytest.raises(InputError, match="no permission") as caught:
        open_source(folder)
    assert caught.value.code == "UNREADABLE_FOLDER"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_data_set_without_permission_is_refused(tmp_path):
    folder = make_folder(tmp_path / "data", {"cat": 2, "dog": 2})
    folder.chmod(0)
    try:
        with pytest.raises(InputError, match="permission"):
            open_source(folder)
    finally:
        folder.chmod(0o755)


def test_names_in_any_script_and_upper_case_endings_are_read(tmp_path):
    for label, name in enumerate(("кошка", "犬", "é mu")):
        for number in range(5):
            write_image(tmp_path / name / f"{number} ü.PNG", 10 * label + number)
    source = open_source(tmp_path)
    assert source.classes == ("é mu", "кошка", "犬")
    assert len(load_split(source, "all", input=SPEC)) == 15


# Tables in folders -------------------------------------------------------------------------------


def test_a_flat_folder_with_a_table_is_a_data_set(tmp_path):
    for number in range(6):
        write_image(tmp_path / "images" / f"{number}.png", number)
    lines = [f"images/{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *lines]))
    source = open_source(tmp_path)
    assert (source.format, source.classes, len(source.splits["all"])) == ("csv", ("cat", "dog"), 6)


@pytest.mark.parametrize("inside", [False, True])
def test_tables_may_be_one_for_each_split(tmp_path, inside):
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for number in numbers:
            write_image(tmp_path / split / f"{number}.png", number)
        prefix = "" if inside else f"{split}/"
        lines = [f"{prefix}{number}.png,{number % 2 + 1}" for number in numbers]
        place = tmp_path / split / "metadata.csv" if inside else tmp_path / f"{split}.csv"
        place.write_text("\n".join(lines))
    source = open_source(tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 4, "test": 2}
    assert source.classes == ("1", "2")


def test_a_table_beside_class_folders_is_only_counted(tmp_path):
    make_folder(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "notes.csv").write_text("a,b\n")
    assert open_source(tmp_path).format == "image-folder"


def test_lines_without_a_label_and_a_header_in_other_words_are_said(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"{number}.png", number)
    text = "Photo,Species\n0.png,oak\n1.png,elm\n2.png,\n3.png,oak\n4.png,elm\n5.png,\n"
    (tmp_path / "table.csv").write_text(text)
    source = open_source(tmp_path / "table.csv")
    assert (source.classes, len(source.splits["all"])) == (("elm", "oak"), 4)
    assert "2 images of the table have no label and are left out" in source.problems
    assert any("taken for a header: Photo, Species" in problem for problem in source.problems)


# Odd images --------------------------------------------------------------------------------------


def test_a_decompression_bomb_is_counted_and_never_decoded(tmp_path):
    folder = make_folder(tmp_path, {"cat": 5, "dog": 5})
    Image.new("1", (30_000, 30_000)).save(folder / "cat" / "bomb.png")
    Image.new("1", (10_000, 9_500)).save(folder / "cat" / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = survey(open_source(folder))
        images = load_split(open_source(folder), "all", input=SPEC)
    assert found.kinds == {"too large to decode": 2}
    assert len(images) == 10
    assert any("2 images cannot be read" in warning for warning in images.warnings)


def test_large_jpeg_images_are_looked_at_in_part_and_found_to_be_alike(tmp_path):
    folder = make_folder(tmp_path, {"cat": 5, "dog": 5})
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8))
    large = coarse.resize((1500, 1200), Image.Resampling.BICUBIC)
    large.save(folder / "cat" / "large.jpg", quality=95)
    large.resize((150, 120)).save(folder / "cat" / "small.png")
    found = survey(open_source(folder))
    assert found.sizes[1500, 1200] == 1
    assert found.modes == {"RGB": 12}
    assert [{Path(name).name for name in group} for group in found.near_duplicates] == [
        {"large.jpg", "small.png"}
    ]


def test_a_survey_of_a_part_says_so(tmp_path):
    folder = make_folder(tmp_path, {"cat": 20, "dog": 20})
    whole, part = survey(open_source(folder)), survey(open_source(folder), limit=15, seed=3)
    assert (whole.looked_at, part.looked_at, part.total) == (40, 15, 40)
    words = said(folder, survey=15)
    assert "15 of 40 images were looked at" in words
    assert "--survey all" in words
    assert "looked at" not in said(folder, survey=None)


# Many files --------------------------------------------------------------------------------------


def test_files_are_the_samples_that_they_stand_for():
    runs = [Run("/a/cat", ["1.png", "ü.png"], 0), Run("/a/dog", ["x.png"], 1), Run("", [], 1)]
    files = files_of(runs)
    assert list(files) == [
        Sample(Path("/a/cat/1.png"), 0),
        Sample(Path("/a/cat/ü.png"), 0),
        Sample(Path("/a/dog/x.png"), 1),
    ]
    assert labels_of(files).tolist() == [0, 0, 1]
    assert names_of(select(files, np.array([2, 0]))) == ("/a/dog/x.png", "/a/cat/1.png")
    assert isinstance(files[1:], Files)
    other = files_of([Run("/b", ["/abs/y.png", "z.png"], [5, 7])])
    joined = join([files.chosen(np.array([2])), other])
    assert names_of(joined) == ("/a/dog/x.png", "/abs/y.png", "/b/z.png")
    assert labels_of(joined).tolist() == [1, 5, 7]
    assert names_of(joined_files([files])) == names_of(files)


def test_paths_are_listed_in_the_order_of_their_parts(tmp_path):
    names = ("b.png", "a/z.png", "a/b/c.png", "a.png", "c/1.png", "a-b/1.png", "b/0.png", "z.JPG")
    for number, name in enumerate(names):
        write_image(tmp_path / "cat" / name, number)
    write_image(tmp_path / "dog" / "0.png")
    found = [sample.path for sample in open_source(tmp_path).splits["all"]]
    assert found == sorted(found)
    assert len(found) == 9


def test_splits_of_many_classes_are_those_of_a_plain_loop():
    labels = np.random.default_rng(0).integers(0, 40, 500)
    kept, taken = stratified_split(labels, 0.2, seed=7)
    expected = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        wanted = min(max(round(len(members) * 0.2), 1), len(members) - 1)
        expected += np.random.default_rng([7, 1, label]).permutation(members)[:wanted].tolist()
    assert taken.tolist() == sorted(expected)
    assert sorted([*kept, *taken]) == list(range(500))
    assert len(even_sample(labels, 77, seed=1)) == 77


def test_many_files_are_listed_in_little_memory(tmp_path):
    import tracemalloc

    (tmp_path / "one.png").write_bytes(b"")
    for label in range(2):
        place = tmp_path / "data" / f"class{label}"
        place.mkdir(parents=True)
        for number in range(20_000):
            os.link(tmp_path / "one.png", place / f"image_{number:06}.png")
    tracemalloc.start()
    source = open_source(tmp_path / "data")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source.splits["all"]) == 40_000
    assert held < 60 * 40_000  # bytes; a path object alone takes several times as much
    assert peak < 300 * 40_000


# Garbled files -----------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_idx(folder: Path) -> None:
    random = np.random.default_rng(0)
    write_idx(folder / "train-images-idx3-ubyte", random.integers(0, 256, (9, 4, 4)))
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(9) % 3)


def make_gzipped_idx(folder: Path) -> None:
    random = np.random.default_rng(0)
    write_idx(folder / "train-images-idx3-ubyte.gz", random.integers(0, 256, (9, 4, 4)))
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(9) % 3)


def make_cifar(folder: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    for name in ("data_batch_1", "test_batch"):
        content = {b"data": rows, b"labels": [0, 1, 2], b"filenames": [b"a", b"b", b"c"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"label_names": [b"ant", b"bee", b"cat"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


@pytest.mark.parametrize(
    "content",
    [
        {b"labels": [0, 1, -1]},
        {b"labels": ["a", "b", "c"]},
        {b"labels": None},
        {b"labels": 3},
        {b"labels": [[0], [1], [2]]},
        {b"labels": [0, 1, 2**70]},
        {b"data": b"xx"},
        {b"data": [1, 2, 3]},
        {b"data": np.zeros((3, 3072))},
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"label_names": 7},
        {b"label_names": []},
    ],
)
def test_cifar_batches_of_another_shape_are_refused(tmp_path, content):
    make_cifar(tmp_path)
    name = "batches.meta" if b"label_names" in content else "data_batch_1"
    whole = pickle.loads((tmp_path / name).read_bytes(), encoding="bytes")
    (tmp_path / name).write_bytes(pickle.dumps({**whole, **content}, protocol=2))
    with pytest.raises(PruneError) as caught:
        open_source(tmp_path)
    assert caught.value.code == "CORRUPT_DATA"


def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path):
    make_cifar(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(PruneError, match="remember 2147483647 things"):
        open_source(tmp_path)


def make_binary_cifar(folder: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3073), np.uint8)
    rows[:, 0] = [0, 1, 1]
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / name).write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("ant\nbee\n")


def make_table(folder: Path) -> None:
    for number in range(4):
        write_image(folder / f"{number}.png", number)
    text = 'path;label;split\n0.png;"a";train\n1.png;b;train\n2.png;a;test\n3.png;b;test\n'
    (folder / "table.csv").write_text(text)


def make_npz(folder: Path) -> None:
    np.savez(
        folder / "data.npz", x=np.random.default_rng(0).normal(size=(9, 3)), y=np.arange(9) % 3
    )


def make_compressed_npz(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    np.savez_compressed(folder / "data.npz", x=pixels, y=np.arange(9) % 3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_idx, "train-images-idx3-ubyte"),
        (make_idx, "train-labels-idx1-ubyte"),
        (make_gzipped_idx, "train-images-idx3-ubyte.gz"),
        (make_gzipped_idx, "train-labels-idx1-ubyte.gz"),
        (make_cifar, "data_batch_1"),
        (make_cifar, "batches.meta"),
        (make_binary_cifar, "test_batch.bin"),
        (make_binary_cifar, "batches.meta.txt"),
        (make_table, "table.csv"),
        (make_npz, "data.npz"),
        (make_compressed_npz, "data.npz"),
    ],
)
def test_truncated_and_garbled_files_are_refused_or_read_never_worse(tmp_path, make, name):
    make(tmp_path)
    file = tmp_path / name
    whole = file.read_bytes()
    place = file if file.suffix in {".csv", ".npz"} else tmp_path
    random = np.random.default_rng(sum(name.encode()))
    refused = 0
    for trial in range(150):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: random.integers(0, len(whole))]
        else:
            reach = min(len(whole), 200) if trial % 4 else len(whole)
            for at in random.integers(0, reach, random.integers(1, 12)):
                damaged[at] = random.integers(0, 256)
        file.write_bytes(bytes(damaged))
        try:
            source = open_source(place)
            for split in source.splits.values():
                counts = np.bincount(labels_of(split), minlength=len(source.classes))
                assert len(counts) == len(source.classes)
        except PruneError:
            refused += 1
    assert refused > 20
