"""Pictures of data sets and of what is learned of them: the right values, and names in order."""

from __future__ import annotations

import csv
import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli import report
from prunecli.data import DataSource, Packed, open_source
from prunecli.data.find_images import images_named
from prunecli.learnability import Record, compare_records, write_record
from prunecli.pictures import (
    agreement_picture,
    balance_picture,
    class_map_picture,
    difficulty_picture,
    learned_picture,
    reduction_picture,
    save_pictures,
    scale_of,
    scale_picture,
    scale_text,
    similarity_picture,
    spectrum_picture,
)
from prunecli.pictures.known_scores import KNOWN

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def dataset(classes: int = 6, *, name: str = "class {}") -> report.DatasetAnalysis:
    """Return an analysis of classes of which those with the same parity are alike."""
    random = np.random.default_rng(0)
    names = [name.format(at) for at in range(classes)]
    same = np.equal.outer(np.arange(classes) % 2, np.arange(classes) % 2)
    matrix = np.where(same, 0.6, 0.1) + 0.01 * random.random((classes, classes))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return report.DatasetAnalysis(
        path="images",
        format="image-folder",
        images=100 * classes,
        classes=tuple(report.ClassCount(each, 50 + at) for at, each in enumerate(names)),
        sizes={"8x8": 100 * classes},
        balance=0.5,
        unreadable=(),
        duplicates=(),
        csg=1.2,
        csg_interval=(1.1, 1.3),
        csg_settings={"embedding": "raw", "embedding_steps": "pixels from 0 to 1", "samples": 250,
                      "neighbours": 3, "volume": "box",
                      "repeats": 3},
        eigenvalues=tuple(np.linspace(0, 2, classes).tolist()),
        similarity=tuple(map(tuple, matrix.tolist())),
        confused_pairs=((names[0], names[-2], 0.6), (names[1], names[-1], 0.2)),
        difficulty=tuple(
            report.ClassDifficulty(each, (at + 1) / (classes + 1), 0.5, 1.0)
            for at, each in enumerate(names)
        ),
        class_map=dict(zip(names, map(tuple, random.normal(size=(classes, 2)).tolist()),
                           strict=True)),
        reduction=report.Reduction(
            (report.ReductionStep(5, 2.0, 0.3), report.ReductionStep(20, 1.3, 0.1),
             report.ReductionStep(80, 1.25, 0.05)),
            whole=1.2, tolerance=0.1, smallest=20,
        ),
    )  # fmt: skip


def scored(classes: int, csg: float, **settings) -> report.DatasetAnalysis:
    made = dataset(classes)
    settings = {**made.csg_settings, "embedding": "pca-5", **settings}
    return dataclasses.replace(made, csg=csg, csg_settings=settings)


def test_known_scores_are_those_that_were_measured():
    measured = {}
    for name in ("csg.csv", "expected_error_csg.csv"):
        with (BENCHMARKS / name).open(newline="") as file:
            for row in csv.DictReader(file):
                data = row.get("data") or row["point"]
                score = float(row.get("csg_mean") or row["csg"])
                known = data.removesuffix(" all").partition(",")[0]
                whole = data.endswith(" all") == (name == "expected_error_csg.csv")
                of_raw = (row["embedding"] == "raw") == (name == "csg.csv")
                if whole and of_raw:
                    assert row["samples"] == "250"
                    assert row["neighbours"] == "3"
                    measured[row["embedding"], row["volume"], known] = score
    for (embedding, volume), scores in KNOWN.items():
        for known, score in scores.items():
            assert score == round(measured[embedding, volume, known], 2)
        assert list(scores.values()) == sorted(scores.values())


def test_a_score_is_placed_between_the_known_data_sets_that_were_measured_alike():
    scale = scale_of(scored(10, 2.9))
    assert scale_text(scale) == "A CSG of 2.90 lies between MNIST (0.77) and CIFAR-10 (5.13)."
    assert scale_text(scale_of(scored(10, 5.3))) == "A CSG of 5.30 lies close to CIFAR-10 (5.13)."
    assert scale_text(scale_of(scored(10, 8.0))) == "A CSG of 8.00 lies above CIFAR-10 (5.13)."
    assert scale_text(scale_of(scored(10, 0.1))) == "A CSG of 0.10 lies below digits (0.31)."
    many = scale_text(scale_of(scored(100, 33.0)))
    assert many == "A CSG/(K-1) of 0.33 lies between MNIST (0.09) and CIFAR-10 (0.57)."
    for unlike in ({"embedding": "tsne"}, {"samples": 50}, {"neighbours": 9}, {"variant": "auls"}):
        assert scale_of(scored(10, 2.9, **unlike)) is None


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("csg", [0.0, 2.9, 9.6])
def test_the_scale_shows_the_score_and_the_known_data_sets_inside_the_picture(csg, narrow):
    drawn = scale_picture(scale_of(scored(10, csg)), narrow=narrow)
    names = words_on(drawn)
    assert names == ["digits 0.31", "MNIST 0.77", "CIFAR-10 5.13", f"this data set {csg:.2f}"]
    (axes,) = drawn.figure.axes
    assert axes.get_lines()[-1].get_xdata().tolist() == [csg]
    width = drawn.figure.bbox.width
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(0 <= box.x0 <= box.x1 <= width for box in boxes)
    assert not any(one.overlaps(two) for at, one in enumerate(boxes) for two in boxes[:at])


def words_on(picture) -> list[str]:
    (axes,) = picture.figure.axes
    picture.figure.draw_without_rendering()
    return [text.get_text() for text in axes.texts]


def test_bars_of_difficulty_fall_and_stand_beside_their_classes():
    (axes,) = difficulty_picture(dataset()).figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"class {at}" for at in reversed(range(6))]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [100 * (at + 1) / 7 for at in reversed(range(6))])


def test_of_many_classes_the_hardest_are_shown_and_said_to_be_so():
    picture = difficulty_picture(dataset(1000))
    assert len(picture.figure.axes[0].patches) == 40
    assert "the 40 hardest of 1,000" in picture.title
    assert picture.figure.axes[0].get_yticklabels()[0].get_text() == "class 999"
    assert "the 40 hardest of 1,000" in similarity_picture(dataset(1000)).title
    assert "24 of them named" in class_map_picture(dataset(1000)).title
    assert "1,000 classes" in balance_picture(dataset(1000)).title
    assert picture.figure.get_size_inches()[1] < 12


def test_the_balance_counts_the_images_of_every_class():
    (axes,) = balance_picture(dataset()).figure.axes
    assert [bar.get_width() for bar in axes.patches] == [55, 54, 53, 52, 51, 50]
    (axes,) = balance_picture(dataset(100)).figure.axes
    (line,) = axes.get_lines()
    assert line.get_ydata().tolist() == list(range(149, 49, -1))


def test_the_spectrum_is_drawn_from_its_smallest_eigenvalue():
    (line,) = spectrum_picture(dataset()).figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), np.linspace(0, 2, 6))


def test_the_matrix_has_alike_classes_side_by_side_and_leaves_itself_out():
    picture = similarity_picture(dataset())
    (axes,) = picture.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [label.get_text() for label in axes.get_xticklabels()]
    parities = [int(name[-1]) % 2 for name in names]
    assert parities in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    shown = axes.get_images()[0].get_array().filled(np.nan)
    places = [int(name[-1]) for name in names]
    wanted = np.array(dataset().similarity)[np.ix_(places, places)]
    off = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(shown[off], wanted[off])
    assert np.isnan(shown[~off]).all()
    assert len(words_on(picture)) == 30


def test_the_map_ties_the_most_similar_classes_most_strongly():
    (axes,) = class_map_picture(dataset()).figure.axes
    strong, weak = axes.get_lines()
    assert strong.get_alpha() > weak.get_alpha()
    assert strong.get_linewidth() > weak.get_linewidth()
    places = dataset().class_map
    np.testing.assert_allclose(strong.get_xydata(), [places["class 0"], places["class 4"]])


@pytest.mark.parametrize("classes", [2, 6, 30])
def test_every_class_of_the_map_is_named_inside_the_picture(classes):
    picture = class_map_picture(dataset(classes))
    assert sorted(words_on(picture)) == sorted(f"class {at}" for at in range(classes))
    (axes,) = picture.figure.axes
    frame = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.x0 - 2 <= box.x0 and box.x1 <= frame.x1 + 2  # noqa: PT018
        assert frame.y0 - 2 <= box.y0 and box.y1 <= frame.y1 + 2  # noqa: PT018


def test_names_on_the_map_do_not_cover_each_other_where_there_is_room():
    picture = class_map_picture(dataset(6))
    words_on(picture)
    boxes = [text.get_window_extent() for text in picture.figure.axes[0].texts]
    assert not any(one.overlaps(two) for at, one in enumerate(boxes) for two in boxes[:at])


def test_equal_classes_and_classes_without_any_likeness_have_a_map_too():
    same = dataset(4)
    flat = dataclasses.replace(
        same,
        class_map=dict.fromkeys(same.class_map, (0.0, 0.0)),
        confused_pairs=(),
        similarity=tuple(map(tuple, np.eye(4).tolist())),
    )
    assert len(words_on(class_map_picture(flat))) == 4
    assert "no two are similar" in class_map_picture(flat).description
    similarity_picture(flat).figure.draw_without_rendering()


def test_the_reduction_marks_the_smallest_size_and_the_band():
    (axes,) = reduction_picture(dataset()).figure.axes
    (star,) = [line for line in axes.get_lines() if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[20, 1.3]]
    assert "20 images per class keep the score" in reduction_picture(dataset()).description
    none = dataclasses.replace(dataset().reduction, smallest=None)
    picture = reduction_picture(dataclasses.replace(dataset(), reduction=none))
    assert "no smaller set keeps the score" in picture.description


@pytest.mark.parametrize(
    "name", ["$\\frac{{1}}{{$ {}", "caf\udce9 {}", "<b>{}</b>", "\x07{}", "猫{}"]
)
def test_pictures_take_any_name(tmp_path, name):
    hard = dataset(4, name=name)
    pictures = {
        draw.__name__: draw(hard)
        for draw in (class_map_picture, similarity_picture, difficulty_picture, balance_picture)
    }
    for path in save_pictures(tmp_path, pictures):
        assert path.stat().st_size > 1000


def learned(folder, *hits) -> report.LearnabilityReport:
    paths = []
    for at, each in enumerate(hits):
        names = tuple(f"{row}.png" for row in range(len(each)))
        path = folder / f"run{at}.parquet"
        labels = np.zeros(len(each), np.int64)
        write_record(Record(names, labels, ("a",), each, "evaluation", {}), path)
        paths.append(path)
    return compare_records(paths)


def test_images_are_counted_by_the_epochs_after_which_they_were_right(tmp_path):
    random = np.random.default_rng(0)
    one, two = random.random((200, 5)) > 0.4, random.random((200, 40)) > 0.3
    found = learned(tmp_path, one, two)
    for run, hits in zip(found.runs, (one, two), strict=True):
        assert run.levels == tuple((hits.sum(axis=1) == n).sum() for n in range(len(hits[0]) + 1))
    (pair,) = found.pairs
    counts = np.zeros((6, 21), int)
    for row in range(200):
        counts[round(5 * one[row].mean()), round(20 * two[row].mean())] += 1
    assert pair.counts == tuple(map(tuple, counts.tolist()))


def test_learning_is_one_line_per_run_and_agreement_one_cell_per_pair(tmp_path):
    early, late = np.ones((10, 4), bool), np.zeros((10, 4), bool)
    late[:5, 2:] = True
    found = learned(tmp_path, early, late)
    (axes,) = learned_picture(found).figure.axes
    first, second = axes.get_lines()
    assert first.get_ydata().tolist() == [0, 0, 0, 0, 100]
    assert second.get_ydata().tolist() == [50, 0, 50, 0, 0]
    assert first.get_marker() != second.get_marker()
    (axes,) = agreement_picture(found.pairs[0]).figure.axes
    cells = axes.get_images()[0].get_array()
    # Rows go up with the second run, columns to the right with the first.
    assert np.argwhere(cells > 0).tolist() == [[0, 4], [2, 4]]
    assert "run0" in axes.get_xlabel()


def test_images_are_found_again_by_their_names(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for at, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4 + at, 4)).save(tmp_path / split / name / "x.png")
    (tmp_path / "train" / "a" / "broken.png").write_bytes(b"no")
    source = open_source(tmp_path)
    wanted = [str(tmp_path / "train" / "b" / "x.png"), str(tmp_path / "train" / "a" / "broken.png"),
              str(tmp_path / "nowhere.png"), "/etc/hostname", ""]  # fmt: skip
    found = dict(images_named(source, wanted))
    assert {name: image.size for name, image in found.items()} == {wanted[0]: (5, 4)}
    monkeypatch.chdir(tmp_path)
    relative = str(Path("train", "b", "x.png"))
    assert set(dict(images_named(source, [relative, wanted[0]]))) == {relative, wanted[0]}
    digits = open_source("digits")
    found = dict(images_named(digits, ["#3", "train#3", "test#3", "test#99999"]))
    assert set(found) == {"#3", "train#3", "test#3"}
    assert found.pop("test#3") != found["#3"]
    np.testing.assert_array_equal(*map(np.asarray, found.values()))
    np.testing.assert_array_equal(np.asarray(found["#3"]), digits.splits["train"].images[3][0])


def test_images_inside_larger_files_are_found_by_their_number():
    def content(place: int) -> bytes:
        with BytesIO() as buffer:
            Image.new("RGB", (3 + place, 3)).save(buffer, "png")
            return buffer.getvalue() if place else b"no image"

    packed = Packed(content, np.zeros(5, np.int64), np.arange(5))
    source = DataSource(Path("packed"), "packed", ("a",), {"train": packed, "test": packed})
    found = dict(images_named(source, ["#0", "#3", "test#4"]))
    assert {name: image.width for name, image in found.items()} == {"#3": 6, "test#4": 7}
