"""Difficulty of classes, their map, confusing images, reduction, subsets, and what is kept."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from prunecli.analysis.dataset import analyze_dataset
from prunecli.architectures.reference import InputSpec
from prunecli.complexity import (
    SUBSET_RULES,
    Candidates,
    CsgSettings,
    NetworkFeatures,
    csg_repeated,
)
from prunecli.complexity.classes import class_map, confusing_images, difficulties
from prunecli.complexity.reduction import reduction
from prunecli.data import open_source
from prunecli.data.cache import cached
from prunecli.data.subset import write_subset
from prunecli.errors import InputError
from prunecli.options import ComplexityOptions
from prunecli.verbs.images import features_of
from tests.support.image_folders import write_folder

LINE = np.array([0, 1, 2, 10, 11, 12, 4.4], float)[:, None]
LINE_LABELS = np.array([0, 0, 0, 1, 1, 1, 1])
"""Two classes on a line; the last sample lies among those of the first."""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def line(**settings):
    chosen = CsgSettings(neighbours=1, volume="none", samples=100, **settings)
    return csg_repeated(LINE, LINE_LABELS, repeats=2, settings=chosen)


def test_the_difficulty_of_a_class_is_the_share_of_votes_that_others_get():
    easy, hard = difficulties(line(), ["left", "right"])
    assert (easy.name, hard.name) == ("left", "right")
    assert easy.others == 0.0
    assert hard.others == pytest.approx(1 / 4)
    assert easy.overlap == hard.overlap == pytest.approx(1 / 4)
    share = 0.25 / 1.25
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert hard.entropy == pytest.approx(entropy)


def test_confusing_images_are_those_with_foreign_neighbours_and_say_whom_they_look_like():
    (found,) = confusing_images(line().runs, ["left", "right"], [f"{n}.png" for n in range(7)])
    assert (found.path, found.name, found.looks_like, found.share) == ("6.png", "right", "left", 1)
    assert found.neighbour == "2.png"


def test_the_neighbour_of_a_confusing_image_is_the_nearest_of_the_class_it_looks_like():
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(90, 2)), np.repeat([0, 1, 2], 30)
    settings = CsgSettings(neighbours=4, volume="none", samples=100)
    runs = csg_repeated(points, labels, repeats=1, settings=settings).runs
    found = confusing_images(runs, "abc", [str(at) for at in range(90)])
    assert len(found) == 15
    for image in found:
        away = np.linalg.norm(points - points[int(image.path)], axis=1)
        away[labels != "abc".index(image.looks_like)] = np.inf
        assert int(image.neighbour) == away.argmin()


def test_a_map_keeps_distances_that_a_plane_can_hold():
    corners = np.array([[0, 0], [0.3, 0], [0.3, 0.4], [0.1, 0.7]])
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=2)
    places = class_map(1 - apart)
    found = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert found == pytest.approx(apart, abs=1e-3)
    assert np.ptp(places[:, 0]) > np.ptp(places[:, 1])


@pytest.mark.parametrize("similarity", [np.ones((3, 3)), np.eye(2), np.eye(5)])
def test_a_map_of_equal_or_wholly_different_classes_is_finite(similarity):
    places = class_map(similarity)
    assert places.shape == (len(similarity), 2)
    assert np.isfinite(places).all()


def test_the_smallest_set_is_the_first_from_which_on_the_score_stays_within_the_tolerance():
    digits, labels = load_digits(return_X_y=True)
    settings = CsgSettings(volume="none")
    found = reduction(digits.astype(np.float32), labels, settings=settings, tolerance=0.3)
    sizes = [step.images_per_class for step in found.steps]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == np.bincount(labels).min()
    within = [abs(step.score - found.whole) <= 0.3 * found.whole for step in found.steps]
    last_bad = max((at for at, good in enumerate(within) if not good), default=-1)
    expected = sizes[last_bad + 1] if last_bad + 1 < len(sizes) else None
    assert found.smallest == expected
    assert found.steps[0].score > found.whole  # fewer images lie further apart


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0])
def test_a_tolerance_that_means_nothing_is_refused(tolerance):
    with pytest.raises(InputError, match="tolerance"):
        reduction(LINE.astype(np.float32), LINE_LABELS, settings=CsgSettings(), tolerance=tolerance)


@pytest.mark.parametrize("rule", SUBSET_RULES.names())
def test_every_rule_takes_as_many_of_every_class(rule):
    digits, labels = load_digits(return_X_y=True)
    votes = csg_repeated(digits, labels, repeats=2, settings=CsgSettings(volume="none"))
    candidates = Candidates(labels, votes, 3, np.random.default_rng(0).random(len(labels)))
    rows = SUBSET_RULES.get(rule)(candidates, 7)
    assert np.bincount(labels[rows]).tolist() == [7] * 10
    assert np.array_equal(rows, SUBSET_RULES.get(rule)(candidates, 7))


def test_by_confusion_the_images_with_foreign_neighbours_come_first():
    votes = csg_repeated(
        LINE, LINE_LABELS, repeats=1, settings=CsgSettings(neighbours=1, volume="none")
    )
    assert 6 in SUBSET_RULES.get("confusion")(Candidates(LINE_LABELS, votes, 0), 1)


def test_of_the_hardest_the_easiest_go_first_and_unknown_images_stay():
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    easiness = np.array([0.9, 0.2, np.nan, 0.5, 1.0, 0.0, 0.7])
    votes = csg_repeated(
        LINE, LINE_LABELS, repeats=1, settings=CsgSettings(neighbours=1, volume="none")
    )
    rows = SUBSET_RULES.get("hardest")(Candidates(labels, votes, 0, easiness), 2)
    assert rows.tolist() == [1, 2, 5, 6]


def analyzed(folder, **options):
    choices = ComplexityOptions(repeats=2, **options)
    return analyze_dataset(open_source(folder), options=choices)


def test_a_subset_is_a_folder_of_links_that_is_a_data_set_again(tmp_path):
    folder = write_folder(tmp_path / "images")
    report = analyzed(folder, subset=str(tmp_path / "part"), per_class=5)
    assert report.subset is not None
    assert report.subset.images == 10
    files = sorted((tmp_path / "part").glob("*/*.png"))
    assert len(files) == 10
    assert all(file.stat().st_nlink == 2 for file in files)
    assert [entry.count for entry in analyzed(tmp_path / "part").classes] == [5, 5]


def test_a_name_that_no_list_can_hold_is_refused_and_nothing_is_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    with pytest.raises(InputError, match="no UTF-8") as raised:
        write_subset([(name, "a")], tmp_path / "list.txt")
    assert raised.value.code == "BAD_NAME"
    assert not list(tmp_path.iterdir())


def test_a_list_names_every_image_with_its_class(tmp_path):
    folder = write_folder(tmp_path / "images")
    analyzed(folder, subset=str(tmp_path / "part.txt"), per_class=3)
    lines = [line.split("\t") for line in (tmp_path / "part.txt").read_text().splitlines()]
    assert sorted(name for _, name in lines) == ["cat"] * 3 + ["dog"] * 3
    assert all(f"/{name}/" in path for path, name in lines)
    assert [entry.count for entry in analyzed(tmp_path / "part.txt").classes] == [3, 3]


@pytest.mark.parametrize(
    ("data", "target", "code"),
    [
        ("digits", "part", "NO_FILES"),
        ("images", "images", "OUTPUT_EXISTS"),
        ("images", "images/part", "OUTPUT_IS_INPUT"),
    ],
)
def test_a_subset_that_cannot_be_written_is_refused(tmp_path, data, target, code):
    write_folder(tmp_path / "images")
    place = data if data == "digits" else tmp_path / data
    with pytest.raises(InputError) as caught:
        analyzed(place, subset=str(tmp_path / target), per_class=3)
    assert caught.value.code == code


def test_the_whole_of_a_balanced_set_is_no_smaller_one():
    points = np.random.default_rng(0).random((40, 2)).astype(np.float32)
    labels = np.repeat(np.arange(4), 10)
    settings = CsgSettings(samples=100, neighbours=3, volume="none")
    found = reduction(points, labels, settings=settings, tolerance=1e-9)
    assert found.steps[-1].score == pytest.approx(found.whole)
    assert found.smallest is None


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        ({"subset": "part.txt"}, "NO_SUBSET_SIZE"),
        ({"subset": "part", "per_class": 3}, "NO_FILES"),
        ({"reduce": True, "tolerance": 2.0}, "BAD_SETTING"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(monkeypatch, tmp_path, choices, code):
    monkeypatch.chdir(tmp_path)
    steps = []
    with pytest.raises(InputError) as caught:
        analyze_dataset(
            open_source("digits"), options=ComplexityOptions(**choices), progress=steps.append
        )
    assert (caught.value.code, steps) == (code, [])
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_what_is_dear_is_made_once_for_the_same_content():
    made = []

    def make():
        made.append(1)
        return np.arange(3, dtype=np.float32)

    told: list[str] = []
    first, second, other = (
        cached(parts, make, say=told.append) for parts in (["a", b"b"], ["a", b"b"], ["ab", b""])
    )
    assert [found for _, found in (first, second, other)] == [False, True, False]
    assert len(made) == 2
    assert second[0].tolist() == [0, 1, 2]
    assert told == []


@pytest.mark.parametrize("damage", ["nonsense", "bit", "cut", "empty"])
def test_a_broken_cache_is_made_anew_and_it_is_said(tmp_path, damage):
    told: list[str] = []
    cached(["a"], lambda: np.ones(2, np.float32), say=told.append)
    (file,) = (tmp_path / "cache").rglob("*.npy")
    content = bytearray(file.read_bytes())
    content[-25] ^= 1  # in the last number
    damaged = {
        "nonsense": b"not an array",
        "bit": bytes(content),
        "cut": content[:-3],
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    values, found = cached(["a"], lambda: np.zeros(2, np.float32), say=told.append)
    assert not found
    assert values.tolist() == [0, 0]
    assert len(told) == 1
    assert str(file) in told[0]
    assert cached(["a"], lambda: np.ones(2, np.float32), say=told.append)[1]
    assert len(told) == 1


def test_the_features_of_a_network_are_what_its_last_layer_reads():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(4, 5)).train()
    spec = InputSpec(3, 8, 8, (0.5,) * 3, (0.25,) * 3)
    pixels = torch.randint(0, 256, (70, 3, 8, 8), dtype=torch.uint8)
    found = features_of(model, spec)(pixels)
    expected = body((pixels / 255 - 0.5) / 0.25).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert model.training


def test_a_data_set_is_seen_through_a_network(tmp_path):
    folder = write_folder(tmp_path / "images")
    spec = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 2))
    network = NetworkFeatures(spec, features_of(model, spec), "digest")
    options = ComplexityOptions(repeats=2, embedding="model")
    source = open_source(folder)
    first, second = (analyze_dataset(source, options=options, network=network) for _ in range(2))
    assert first.csg_settings["embedding"] == "model"
    assert (first.csg_settings["cached"], second.csg_settings["cached"]) == (False, True)
    assert first.csg == second.csg
    assert first.csg_votes == 0.0  # one class is dark and the other one bright
