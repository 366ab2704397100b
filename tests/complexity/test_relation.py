"""The expected error: the fit by other hands, what lies outside, and the data that is kept."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from prunecli.analysis.dataset import analyze_dataset
from prunecli.complexity.expected import DATA, Asked, expected_error, measured_of
from prunecli.complexity.relation import FORMS, Setups, fit, spread_of
from prunecli.data import open_source
from prunecli.options import ComplexityOptions
from prunecli.pictures import relation_picture
from prunecli.report import ExpectedError, to_json
from tests.support import fake_verbs

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
KNOWN = json.loads(DATA.read_text(encoding="utf-8"))
FAMILIES = (
    "one",
    "one",
    "one",
    "two",
    "two",
    "two",
    "two",
    "two",
    "three",
    "three",
    "three",
    "one",
)


@pytest.fixture
def made_up():
    """Scores, classes and images of twelve data sets, with errors that follow them roughly."""
    random = np.random.default_rng(0)
    classes = random.integers(2, 11, 12).astype(float)
    overlap = random.random(12)
    images = 10.0 ** random.uniform(1, 4, 12)
    errors = (1 - 1 / classes) * (0.1 + 0.7 * overlap) + random.normal(0, 0.03, 12)
    return Setups(overlap * (classes - 1), classes, images), errors.clip(0.01, 0.99)


def predictors(form: str, setups: Setups):
    """What each form is linear in, written out by hand."""
    overlap = setups.scores / (setups.classes - 1)
    return {
        "csg": [setups.scores],
        "overlap": [overlap],
        "overlap-of-chance": [overlap],
        "overlap-and-size": [overlap, np.log10(setups.images)],
    }[form]


def scale(form: str, setups: Setups):
    return 1 - 1 / setups.classes if "of-chance" in form or "size" in form else 1.0


def by_hand(form: str, setups: Setups, errors, rows):
    """The errors that the normal equations give to all data sets, fitted on some `rows`."""
    matrix = np.column_stack([np.ones(len(errors)), *predictors(form, setups)])
    target = errors / scale(form, setups)
    part = matrix[rows]
    coefficients = np.linalg.inv(part.T @ part) @ part.T @ target[rows]
    return np.clip(matrix @ coefficients * scale(form, setups), 0, 1)


@pytest.mark.parametrize("form", ["csg", "overlap", "overlap-of-chance"])
def test_a_form_with_one_predictor_is_the_linear_regression_of_scipy(made_up, form):
    setups, errors = made_up
    found = fit(form, setups, errors, FAMILIES)
    expected = stats.linregress(predictors(form, setups)[0], errors / scale(form, setups))
    assert found.coefficients == pytest.approx((expected.intercept, expected.slope))
    assert found.r == pytest.approx(expected.rvalue)
    assert found.p == pytest.approx(expected.pvalue)


def test_a_falling_line_has_a_negative_correlation(made_up):
    setups, errors = made_up
    found = fit("csg", setups, 1 - errors, FAMILIES)
    expected = stats.linregress(setups.scores, 1 - errors)
    assert found.r == pytest.approx(expected.rvalue)
    assert found.r < 0


def test_two_predictors_are_judged_by_the_f_test(made_up):
    setups, errors = made_up
    found = fit("overlap-and-size", setups, errors, FAMILIES)
    target = errors / (1 - 1 / setups.classes)
    fitted = by_hand("overlap-and-size", setups, errors, slice(None)) / (1 - 1 / setups.classes)
    explained, rest = ((fitted - target.mean()) ** 2).sum(), ((target - fitted) ** 2).sum()
    assert found.r == pytest.approx((explained / (explained + rest)) ** 0.5, rel=1e-6)
    assert found.p == pytest.approx(stats.f.sf((explained / 2) / (rest / 9), 2, 9), rel=1e-6)


@pytest.mark.parametrize("form", [entry.name for entry in FORMS])
def test_what_is_left_out_is_foretold_by_all_others_alone(made_up, form):
    setups, errors = made_up
    found = fit(form, setups, errors, FAMILIES)
    assert found.predict(setups) == pytest.approx(by_hand(form, setups, errors, slice(None)))
    for row in range(12):
        others = np.arange(12) != row
        expected = errors[row] - by_hand(form, setups, errors, others)[row]
        assert found.left_out[row] == pytest.approx(expected)
        foreign = np.array(FAMILIES) != FAMILIES[row]
        expected = errors[row] - by_hand(form, setups, errors, foreign)[row]
        assert found.family_left_out[row] == pytest.approx(expected)


def test_every_family_weighs_the_same_however_many_variants_it_has():
    assert spread_of(np.array([3.0, 3.0, 3.0, 1.0]), ["a", "a", "a", "b"]) == pytest.approx(5**0.5)


def test_the_interval_is_as_wide_as_the_worse_of_both_ways_of_leaving_out(made_up):
    setups, errors = made_up
    found = fit("csg", setups, errors, FAMILIES)
    spreads = [spread_of(each, FAMILIES) for each in (found.left_out, found.family_left_out)]
    assert found.half_interval() == pytest.approx(stats.t.ppf(0.975, 10) * max(spreads))


@pytest.mark.parametrize("settings", KNOWN["settings"], ids=lambda each: each["volume"])
def test_the_form_was_taken_that_foretells_foreign_data_best(settings):
    fits = [fit(entry.name, *measured_of(KNOWN, settings)) for entry in FORMS]
    least = min(fits, key=lambda each: spread_of(each.family_left_out, each.families))
    assert settings["form"] == least.form


# What the package knows --------------------------------------------------------------------------

PLAIN = Asked(
    embedding="pca-32",
    samples=250,
    neighbours=3,
    variant="csg",
    classes=5,
    images=5000,
    seen=5000,
    balance=1.0,
    shape=(3, 32, 32),
)
SCORES = {"box": 1.0, "none": 1.5}


def settings_of(embedding: str, volume: str):
    (found,) = (each for each in KNOWN["settings"]
                if (each["embedding"], each["volume"]) == (embedding, volume))  # fmt: skip
    return found


def test_an_error_is_read_off_the_relation_that_misses_least():
    found = expected_error(PLAIN, SCORES)
    fits = {
        volume: fit(settings["form"], *measured_of(KNOWN, settings))
        for volume in SCORES
        for settings in [settings_of("pca-32", volume)]
    }
    volume = min(fits, key=lambda name: fits[name].half_interval())
    error = fits[volume].predict(Setups.of([(SCORES[volume], 5, 1000)]))[0]
    half = fits[volume].half_interval()
    assert found.outside == ()
    assert found.error == pytest.approx(error)
    assert found.interval == pytest.approx((max(error - half, 0), min(error + half, 1)))
    assert (found.csg, found.relation.volume) == (SCORES[volume], volume)


def test_only_the_volume_that_was_measured_is_looked_at():
    found = expected_error(PLAIN, {"box": 1.0})
    assert found.relation.volume == "box"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": 11, "images": 11_000}, "classes 11, fitted on 2 to 10"),
        ({"classes": 2, "images": 20_000}, "training images per class 10000, fitted on"),
        ({"images": 25, "seen": 25}, "training images per class 5, fitted on"),
        ({"shape": (3, 64, 48)}, "pixels of the longer side 64, fitted on 8 to 32"),
        ({"balance": 0.1}, "balance of classes 0.1, fitted on"),
        ({"images": 25_000, "seen": 1000}, "a score from 1000 images, fitted on"),
        ({"images": 25_000, "seen": 25_000}, "a score from 25000 images, fitted on"),
    ],
)
def test_data_unlike_what_was_fitted_on_gets_no_figure_but_the_reason(change, said):
    found = expected_error(replace(PLAIN, **change), SCORES)
    assert (found.error, found.interval) == (None, None)
    assert any(said in reason for reason in found.outside), found.outside
    assert found.relation is not None


def test_a_score_beyond_those_fitted_on_gets_no_figure():
    found = expected_error(PLAIN, {"box": 99.0, "none": 99.0})
    assert found.error is None
    assert found.outside[0].startswith("CSG 99, fitted on ")


@pytest.mark.parametrize(
    "change",
    [{"embedding": "raw"}, {"samples": 100}, {"samples": 0.5}, {"neighbours": 5},
     {"variant": "auls"}],
)  # fmt: skip
def test_another_way_of_measuring_gets_no_figure_and_says_which_would(change):
    found = expected_error(replace(PLAIN, **change), SCORES)
    assert (found.error, found.relation) == (None, None)
    (reason,) = found.outside
    assert reason.startswith("no relation was fitted for ")
    assert "250 samples, 3 neighbours" in reason


# The data itself ---------------------------------------------------------------------------------


def test_the_data_in_the_package_is_what_the_measurements_give():
    """When this fails: python tests/benchmarks/fit_relation.py."""
    import fit_relation

    made = json.loads(json.dumps(fit_relation.relation_data()))
    assert {**made, "versions": None} == {**KNOWN, "versions": None}
    assert set(KNOWN["versions"]) == {"torch", "numpy", "scikit-learn"}


def test_the_table_of_fits_is_what_the_data_gives():
    import fit_relation

    with (BENCHMARKS / "expected_error_fits.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    rows = [row for each in KNOWN["settings"] for row in fit_relation.fit_rows(KNOWN, each)]
    assert [{name: str(value) for name, value in vars(row).items()} for row in rows] == written


def test_there_are_enough_data_sets_of_every_kind_and_none_twice():
    names = [point["name"] for point in KNOWN["points"]]
    assert len(names) == len(set(names)) >= 20
    assert {point["data"] for point in KNOWN["points"]} == {"digits", "MNIST", "CIFAR-10"}
    for words in (KNOWN["network"], KNOWN["training"], KNOWN["labels"]):
        assert words


def test_analyze_measures_as_the_measurements_did(digits):
    (point,) = (each for each in KNOWN["points"] if each["name"] == "digits all")
    for embedding in ("pca-5", "pca-32"):
        report = analyze_dataset(digits, options=ComplexityOptions(embedding=embedding))
        assert report.csg == pytest.approx(point["scores"][f"{embedding} box"], abs=0.005)
        assert report.csg_votes == pytest.approx(point["scores"][f"{embedding} none"], abs=0.005)


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


def test_analyze_says_what_error_is_to_be_expected(digits):
    expected = analyze_dataset(digits).expected
    assert expected.outside == ()
    low, high = expected.interval
    assert 0 <= low <= expected.error <= high <= 1
    shown = to_json(expected)
    assert shown["relation"]["points"][0]["data"] in {"digits", "MNIST", "CIFAR-10"}
    json.dumps(shown)


def test_a_command_line_with_other_settings_says_why_there_is_no_figure(digits):
    report = analyze_dataset(digits, options=ComplexityOptions(neighbours=7, repeats=2))
    assert report.expected.error is None
    assert "7 neighbours" in report.expected.outside[0]


def test_the_prediction_needs_no_scikit_learn():
    code = (
        "import sys, prunecli.complexity.relation; import prunecli.complexity.expected as e\n"
        "asked = e.Asked('pca-32', 250, 3, 'csg', 5, 5000, 5000, 1.0, (3, 32, 32))\n"
        "assert e.expected_error(asked, {'box': 1.0}).error is not None\n"
        "assert not any(name.startswith('sklearn') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wheel_holds_the_data(tmp_path):
    pytest.importorskip("setuptools")
    repository = BENCHMARKS.parents[1]
    for name in ("prunecli", "cli", "sample_models"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__py*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path)
    code = "from setuptools import build_meta; build_meta.build_wheel('built')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("prunecli/complexity/relation.json") == DATA.read_bytes()
        guides = {path.name for path in (repository / "prunecli" / "guides").glob("*.md")}
        assert {f"prunecli/guides/{name}" for name in guides} <= set(archive.namelist())


# The picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", KNOWN["settings"], ids=lambda each: each["volume"])
def test_the_picture_has_every_data_set_and_marks_this_one(settings):
    score = {settings["volume"]: 1.0}
    expected = expected_error(replace(PLAIN, embedding=settings["embedding"]), score)
    relation = expected.relation
    left, right = relation_picture(relation, expected, classes=5).figure.axes
    for axes in (left, right):
        dots = [
            line for line in axes.get_lines() if line.get_label() in {"digits", "MNIST", "CIFAR-10"}
        ]
        assert sum(len(line.get_xdata()) for line in dots) == len(KNOWN["points"])
    assert "this data set, 95 %" in left.get_legend_handles_labels()[1]
    picture = relation_picture(relation)
    assert "this data set, 95 %" not in picture.figure.axes[0].get_legend_handles_labels()[1]
    assert f"over {len(KNOWN['points'])} data sets" in picture.description


# What people see ---------------------------------------------------------------------------------


def shown(expected) -> str:
    """The row about the expected error, as one line."""
    from rich.console import Console

    from prunecli_cli.data_tables import dataset_parts

    dataset = fake_verbs.analyze_report(model=False, dataset=True).dataset
    console = Console(width=80, record=True, file=io.StringIO())
    for part in dataset_parts(replace(dataset, expected=expected), None):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_the_terminal_shows_the_error_its_interval_and_how_far_to_trust_it():
    said = shown(fake_verbs.EXPECTED)
    assert "expected error 23 % of a small network (12 to 34 %), fitted on" in said
    assert "fitted on 2 data sets (pca-5, volume none): r = 0.93, p = 2e-07" in said
    assert "one left out is missed by 4.2 points, foreign data by 7.0" in said


def test_an_error_of_nothing_is_not_promised():
    easy = replace(fake_verbs.EXPECTED, error=0.0, interval=(0.0, 0.14))
    assert "expected error under 1 % of a small network (0 to 14 %)" in shown(easy)


def test_the_terminal_shows_why_there_is_no_expected_error():
    found = ExpectedError(None, None, ("classes 20, fitted on 2 to 10",), fake_verbs.RELATION)
    assert "expected error none: classes 20, fitted on 2 to 10" in shown(found)


def test_an_analysis_without_the_question_shows_no_such_row():
    assert "expected error" not in shown(None)


# The smallest kept FLOPs -------------------------------------------------------------------------


def curve(*losses):
    keeps = (1.0, 0.5, 0.25, 0.125)
    return [
        {"point": "MNIST all, 400 each", "data": "b", "classes": "3", "csg": "1.5", "error": "0.2",
         "flops": str(keep), "lost": str(lost)}
        for keep, lost in zip(keeps, losses, strict=True)
    ]  # fmt: skip


def test_the_least_kept_flops_are_read_off_between_two_cuts():
    import kept_flops_least

    # One point lies half-way between losses of 0 and 2 points: at the geometric mean of the cuts.
    found = kept_flops_least.least_of(curve(0, 0, 0.02, 0.1))
    assert found.least == pytest.approx((0.5 * 0.25) ** 0.5, abs=1e-3)
    assert not found.beyond


def test_a_cut_that_gains_is_levelled_with_those_that_lose():
    import kept_flops_least

    assert kept_flops_least.least_of(curve(0, 0.03, 0.01, 0.1)).least == pytest.approx(
        kept_flops_least.least_of(curve(0, 0.02, 0.02, 0.1)).least
    )


def test_a_data_set_that_loses_nothing_is_said_to_go_beyond_the_smallest_cut():
    import kept_flops_least

    found = kept_flops_least.least_of(curve(0, -0.001, 0.002, 0.009))
    assert (found.least, found.beyond) == (0.125, 1)
