"""`analyze DATA --report`: the page of a real small data set, in text and in a browser."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli import verbs
from prunecli.errors import InputError
from prunecli.html import analysis_page
from prunecli.learnability import Record, write_record
from prunecli.options import AnalyzeOptions, ComplexityOptions
from prunecli.report import ExpectedError, FittedPoint, Relation
from prunecli_cli.main import main
from tests.support import browser, html_checks

CLASSES = ("<img src=x onerror=alert(1)>", "\"quoted\" 'twice' $x$", "plain & simple")
SIDE = 16
EACH = 14


def write_images(folder: Path) -> list[str]:
    """Write images of three classes with names that mean harm, one of them twice, one broken."""
    random = np.random.default_rng(0)
    paths = []
    for at, name in enumerate(CLASSES):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(EACH):
            pixels = random.normal(110 + 9 * at, 40, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            file = os.fsdecode(b"caf\xe9 <script>%d.png" % number) if at else f"<b>{number}.png"
            Image.fromarray(pixels).save(place / file)
            paths.append(str(place / file))
    (folder / CLASSES[0] / "again.png").write_bytes(Path(paths[0]).read_bytes())
    (folder / CLASSES[1] / "<b>broken.png").write_bytes(b"no image")
    return paths


def options(**facts) -> AnalyzeOptions:
    return AnalyzeOptions(complexity=ComplexityOptions(repeats=3, **facts))


def records(folder: Path, paths: list[str]) -> tuple[Path, ...]:
    """Write what two networks learned, and which images both never had right."""
    random = np.random.default_rng(1)
    hard = random.random(len(paths))
    found = []
    for run in ("one", "<two>"):
        hits = random.random((len(paths), 8)) > hard[:, None]
        hits[:3] = False
        labels = np.repeat(np.arange(len(CLASSES)), EACH)
        target = folder / f"{run}.parquet"
        write_record(
            Record(tuple(paths), labels, CLASSES, hits, "evaluation", {"network": run}), target
        )
        found.append(target)
    return tuple(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an analysis with everything in it, its page, and the folder of both."""
    folder = tmp_path_factory.mktemp("page")
    # Parquet holds UTF-8: no run can have a record of the other names.
    paths = [path.replace("\udce9", "e") for path in write_images(folder / "images")]
    asked = dataclasses.replace(options(reduce=True), learnability=records(folder, paths))
    page = folder / "report.html"
    report = verbs.analyze(data=str(folder / "images"), options=asked, page=page)
    return report, page, folder


def test_the_page_of_a_data_set_is_well_made_and_harmless(made):
    report, page, _ = made
    assert report.page == page
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in reader.elements if tag == "img"]
    assert len(images) > 20
    assert all(image["src"].startswith("data:image/png") for image in images)
    words = " ".join(reader.words)
    for name in CLASSES:
        assert name in words
    assert r"caf\udce9 <script>" in words
    assert "<b>broken.png" in words


def test_the_page_says_everything_that_was_found(made):
    report, page, _ = made
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    for title in (
        "The data set",
        "Similar classes",
        "Class difficulty",
        "Confusing images",
        "How small the data set could be",
        "Images to check",
        "How the score was measured",
        "Learnability",
        "Agreement between runs",
        "Labels to check",
        "Warnings",
    ):
        assert title in reader.words
    named = [a["href"] for tag, a in reader.elements if tag == "a"]
    assert len(named) == 6
    for title in (
        "The data set",
        "Similar classes",
        "How small the data set could be",
        "Learnability",
    ):
        assert reader.words.count(title) >= 2, title  # in the contents, and over the section
    words = " ".join(reader.words)
    assert f"{report.dataset.csg:.2f}" in words
    assert "1 file that cannot be read" in words
    assert "damaged" in words
    for warning in report.warnings:
        assert warning.replace("\udce9", r"\udce9") in words
    drawings = [a["aria-label"] for tag, a in reader.elements if tag == "svg"]
    assert len(set(drawings)) == 9


def test_the_same_analysis_gives_the_same_bytes(made):
    _, page, folder = made
    again = folder / "again.html"
    paths = tuple(folder.glob("*.parquet"))
    asked = dataclasses.replace(
        options(reduce=True), learnability=tuple(sorted(paths, reverse=True))
    )
    verbs.analyze(data=str(folder / "images"), options=asked, page=again)
    assert again.read_bytes() == page.read_bytes()


def test_the_error_to_expect_is_shown_with_its_interval_or_why_there_is_none(made):
    dataset = made[0].dataset
    points = tuple(
        FittedPoint(f"set {at}", "abc"[at % 3], 10, 100.0, 0.5 * at, 0.05 * at, 0.04 * at)
        for at in range(1, 9)
    )
    relation = Relation(
        "raw", "none", "error", "CSG", (0.0, 0.1), 0.9, 1e-9, 0.02, {"a": 0.05}, "small", "short",
        points,
    )  # fmt: skip
    known = ExpectedError(0.23, (0.09, 0.37), (), relation, 1.2)
    whole = dataclasses.replace(made[0], dataset=dataclasses.replace(dataset, expected=known))
    words = html_checks.read(analysis_page(whole, None)).words
    assert "23 %" in words
    assert "of a small model: 9 to 37 %" in words
    none = ExpectedError(None, None, ("it has 3 classes",), None)
    whole = dataclasses.replace(made[0], dataset=dataclasses.replace(dataset, expected=none))
    words = html_checks.read(analysis_page(whole, None)).words
    assert "No estimate is possible: it has 3 classes." in words
    assert "expected error" not in words


def test_an_image_that_is_not_of_the_data_set_is_never_opened(made, tmp_path):
    _, _, folder = made
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9), (1, 2, 3)).save(secret)
    paths = [str(secret)] * (EACH * len(CLASSES))
    asked = dataclasses.replace(options(), learnability=records(tmp_path, paths)[:1])
    page = tmp_path / "report.html"
    verbs.analyze(data=str(folder / "images"), options=asked, page=page)
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    shown = [a for tag, a in reader.elements if tag == "img" and "secret" in a["alt"]]
    assert shown == []
    assert "Labels to check" in reader.words


def test_features_and_built_in_images_have_pages_too(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(50), 8)
    centres = random.normal(size=(50, 4))
    np.savez(tmp_path / "many.npz", x=(centres[labels] + random.normal(size=(400, 4))), y=labels)
    page = tmp_path / "many.html"
    verbs.analyze(data=str(tmp_path / "many.npz"), options=options(), page=page)
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    labels = " ".join(a["aria-label"] for tag, a in reader.elements if tag == "svg")
    assert "the 40 hardest of 50" in labels
    assert not [tag for tag, _ in reader.elements if tag == "img"]
    assert any("rows of features" in word for word in reader.words)

    page = tmp_path / "digits.html"
    verbs.analyze(data="digits", options=options(limit=300), page=page)
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    assert len([tag for tag, _ in reader.elements if tag == "img"]) > 40


def test_images_of_unusual_kinds_are_shown_with_their_kind(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for at in range(8):
            side = 4 if at == 3 else 20
            pixels = random.integers(0, 255, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{at}.png")
    page = tmp_path / "report.html"
    verbs.analyze(data=str(tmp_path / "data"), options=options(), page=page)
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    assert "tiny: 2 images" in reader.words
    shown = [a["alt"] for tag, a in reader.elements if tag == "img"]
    assert {"the image a/3.png", "the image b/3.png"} <= set(shown)


def test_the_command_names_the_page_and_refuses_to_harm(made, tmp_path, capsys, monkeypatch):
    _, _, folder = made
    monkeypatch.chdir(tmp_path)
    words = ["analyze", str(folder / "images"), "--repeats", "2", "--report"]
    assert main([*words, "report.html", "--plots", "pictures", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["page"] == "report.html"
    assert Path("report.html").is_file()
    assert "pictures/class-map.svg" in data["pictures"]
    assert all(Path(place).stat().st_size > 500 for place in data["pictures"])
    assert main([*words, "report.html"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, str(folder / "images" / "report.html")]) == 2
    assert not (folder / "images" / "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error_before_any_work(made, tmp_path):
    _, _, folder = made

    def work(step):
        pytest.fail(f"{step.stage} came first")

    with pytest.raises(InputError, match="does not exist"):
        verbs.analyze(
            data=str(folder / "images"), page=tmp_path / "no" / "report.html", progress=work
        )


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_fits_its_window_in_a_browser_and_loads_nothing(made, tmp_path, width):
    _, page, _ = made
    found = browser.look(page, tmp_path, width=width)
    assert found["window"] == width
    assert found["width"] <= width
    assert found["beyond"] == []
    assert found["loaded"] == []
    assert found["console"] == []
    assert all(whole and pixels == SIDE for whole, pixels, _ in found["images"])
    assert all(wide > 50 for _, _, wide in found["images"])
    assert len(found["drawings"]) == 9
    assert found["scrolled"] == []
    assert all(wide > 200 and high > 50 for wide, high in found["drawings"])


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_its_ground_light_and_dark(made, tmp_path, dark):
    _, page, _ = made
    found = browser.look(page, tmp_path, width=800, dark=dark)
    colours = found["colours"]
    is_dark = browser.contrast(colours["--paper"], "#000000") < 5
    assert is_dark == dark
    for ink in ("--ink", "--quiet", "--link"):
        for ground in ("--paper", "--ground"):
            assert browser.contrast(colours[ink], colours[ground]) >= 4.5
    ink = colours["--ink"]
    assert f"rgb({', '.join(str(int(ink[at : at + 2], 16)) for at in (1, 3, 5))})" in found["texts"]


def test_a_page_can_be_printed(made, tmp_path):
    _, page, _ = made
    printed = browser.print_pdf(page, tmp_path)
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2
