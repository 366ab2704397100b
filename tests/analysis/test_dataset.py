"""What `analyze` says about a data set, on folders made to hold every kind of trouble."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from prunecli.analysis.dataset import analyze_dataset
from prunecli.complexity import csg, embed_pixels
from prunecli.data import open_source
from prunecli.data.source import Arrays
from prunecli.data.survey.survey import survey
from prunecli.errors import InputError
from prunecli.options import ComplexityOptions
from prunecli.progress import silent
from prunecli.report import to_json


def write_images(folder, *, count=8, size=(12, 10), grey=False, seed=0):
    """Write images of noise around a brightness of the folder's own."""
    rng = np.random.default_rng([seed, *folder.name.encode()])
    folder.mkdir(parents=True)
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    for number in range(count):
        level = rng.integers(40, 200)
        pixels = (level + rng.integers(-30, 30, shape)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog", "emu"):
            write_images(tmp_path / split / name, count=count, seed=len(split))
    return tmp_path


def analyze(path, *, seed=0, network=None, progress=silent, **options):
    choices = ComplexityOptions(**{"repeats": 3, **options})
    return analyze_dataset(
        open_source(path), options=choices, seed=seed, network=network, progress=progress
    )


def test_counts_sizes_and_balance_are_over_all_splits(folder):
    write_images(folder / "train" / "fox", count=2, size=(20, 16))
    report = analyze(folder)
    assert {entry.name: entry.count for entry in report.classes} == {
        "cat": 11,
        "dog": 11,
        "emu": 11,
        "fox": 2,
    }
    assert report.images == 35
    assert report.balance == pytest.approx(2 / 11)
    assert report.sizes == {"12x10": 33, "20x16": 2}
    assert list(report.sizes) == ["12x10", "20x16"]


def test_complexity_is_that_of_the_training_images(folder):
    report = analyze(folder)
    source = open_source(folder)
    training = source.splits["train"]
    pixels = np.stack([np.asarray(Image.open(sample.path)) for sample in training])
    points = embed_pixels(pixels.transpose(0, 3, 1, 2), kind="pca-5")
    labels = [sample.label for sample in training]
    expected = csg(points, labels)
    assert report.csg == pytest.approx(expected.csg)
    assert np.array(report.similarity) == pytest.approx(expected.similarity)
    assert report.eigenvalues == pytest.approx(expected.eigenvalues)
    assert report.csg_votes == pytest.approx(csg(points, labels, volume="none").csg)
    assert report.csg_interval == pytest.approx((expected.csg, expected.csg))


def test_the_settings_say_how_the_score_was_computed(folder):
    settings = analyze(folder, seed=5, limit=20).csg_settings
    assert settings["embedding"] == "pca-5"
    assert settings["volume"] == "box"
    assert (settings["samples"], settings["neighbours"]) == (250, 3)
    assert (settings["seed"], settings["repeats"]) == (5, 3)
    assert (settings["split"], settings["images"]) == ("train", 20)
    assert settings["image_shape"] == [3, 10, 12]
    assert set(settings["versions"]) == {"numpy", "scikit-learn"}


def test_broken_files_are_listed_and_left_out(folder):
    broken = folder / "train" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    empty = folder / "test" / "dog" / "1.png"
    empty.write_bytes(b"")
    report = analyze(folder)
    assert set(report.unreadable) == {str(broken), str(empty)}
    assert report.csg_settings["images"] == 23
    assert f"1 image is damaged, such as {broken}" in report.warnings
    assert f"1 image is empty, such as {empty}" in report.warnings
    assert report.listed == {"damaged": (str(broken),), "empty": (str(empty),)}


def test_equal_files_are_grouped_and_counted_by_what_is_wrong_with_them(folder):
    first = folder / "train" / "cat" / "0.png"
    same_class = folder / "train" / "cat" / "zz.png"
    other_class = folder / "train" / "dog" / "zz.png"
    same_class.write_bytes(first.read_bytes())
    other_class.write_bytes(first.read_bytes())
    seen = folder / "train" / "emu" / "3.png"
    leaked = folder / "test" / "emu" / "zz.png"
    leaked.write_bytes(seen.read_bytes())
    report = analyze(folder)
    assert sorted(report.duplicates, key=len) == [
        (str(seen), str(leaked)),
        (str(first), str(same_class), str(other_class)),
    ]
    assert "1 group of equal images is in more than one class" in report.warnings
    assert "1 group of equal images is in more than one split" in report.warnings


def test_an_empty_class_is_a_finding_and_no_error(folder):
    (folder / "train" / "gnu").mkdir()
    report = analyze(folder)
    assert report.classes[-1].name == "gnu"
    assert report.balance == 0
    assert len(report.similarity) == 3
    assert {name for *names, _ in report.confused_pairs for name in names} <= {"cat", "dog", "emu"}


def test_a_folder_without_splits_is_analysed_as_a_whole(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, grey=True)
    settings = analyze(tmp_path).csg_settings
    assert (settings["split"], settings["images"]) == ("all", 16)
    assert settings["image_shape"] == [1, 10, 12]


def test_large_images_are_shrunk_for_the_measure_only(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, size=(200, 100), count=4)
    report = analyze(tmp_path)
    assert report.sizes == {"200x100": 8}
    assert report.csg_settings["image_shape"] == [3, 32, 64]


def test_confused_pairs_are_sorted_and_name_classes(folder):
    pairs = analyze(folder).confused_pairs
    values = [value for _, _, value in pairs]
    assert values == sorted(values, reverse=True)
    assert all(0 < value <= 1 for value in values)
    assert all(first < second for first, second, _ in pairs)


def test_the_digits_are_easy_and_their_pairs_are_plausible():
    report = analyze("digits")
    assert 0.1 < report.csg < 0.6
    assert ("3", "9") in {(first, second) for first, second, _ in report.confused_pairs[:4]}
    assert report.unreadable == ()
    assert report.sizes == {"8x8": 1797}


def test_the_same_seed_gives_the_same_report_and_it_is_plain_json(folder):
    first, again = (to_json(analyze(folder, seed=2)) for _ in range(2))
    assert first == again
    assert json.loads(json.dumps(first)) == first


def test_progress_reaches_the_total_of_every_stage(folder):
    steps = []
    analyze(folder, progress=steps.append)
    last = {step.stage: (step.done, step.total) for step in steps}
    assert last["look at images"] == (33, 33)
    assert all(done == total for done, total in last.values())


def test_one_class_is_refused_before_any_image_is_read(tmp_path):
    write_images(tmp_path / "train" / "cat")
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(InputError, match="there is one: cat") as caught:
        analyze(tmp_path)
    assert caught.value.code == "ONE_CLASS"


def test_too_few_images_are_refused(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, count=1)
    with pytest.raises(InputError) as caught:
        analyze(tmp_path)
    assert caught.value.code == "TOO_FEW_SAMPLES"


def test_only_broken_images_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        analyze(tmp_path)
    assert caught.value.code == "UNREADABLE_IMAGES"


def test_images_in_arrays_are_surveyed_over_chunks_in_their_order():
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1, 4, 5), dtype=np.uint8)
    pixels[700] = pixels[3]
    labels = np.arange(1000) % 7
    source = open_source("digits")
    source = replace(source, splits={"train": Arrays(pixels, labels)})
    found = survey(source)
    assert found.sizes == {(5, 4): 1000}
    assert found.modes == {"L": 1000}
    assert found.is_grey
    assert found.duplicates == (("train#3", "train#700"),)
    assert found.mislabelled == int(labels[3] != labels[700])
    assert found.leaked == 0


def test_every_embedding_says_what_it_does_with_its_defaults():
    from prunecli.complexity.embedding import EMBEDDINGS, WORDS, described

    assert set(WORDS) == {entry.name for entry in EMBEDDINGS}
    assert described("autoencoder+tsne", epochs=4) == (
        "128 codes of an autoencoder (4 epochs), then t-SNE in 3 dimensions (perplexity 30, from "
        "principal components)"
    )
    assert described("model+pca-8").endswith(
        "8 principal components, not whitened, then uniform quantiles"
    )
