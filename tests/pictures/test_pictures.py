"""Pictures: the right lines and bars, readable words, whole files, the same bytes every time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from prunecli import verbs
from prunecli.errors import InputError
from prunecli.options import AnalyzeOptions
from prunecli.pictures import (
    oracle_picture,
    save_figure,
    save_pictures,
    sensitivity_picture,
    sweep_picture,
)
from prunecli.pictures.style import COLOURS, MARKERS
from prunecli.preflight.outputs import check_folder
from tests.support import fake_verbs
from tests.support.samples import VGG


def lines_of(axes) -> dict[str, object]:
    return {line.get_label(): line for line in axes.get_lines()}


def analysis(count: int = 3):
    group = fake_verbs.analyze_report(model=True, dataset=False).model.groups[0]
    groups = tuple(
        dataclasses.replace(
            group,
            name=f"layer{at}",
            sensitivity=tuple({"cut": c, "loss": 1.0, "accuracy": 0.9 - 0.05 * at * c}
                              for c in (0.25, 0.5)),
        )
        for at in range(count)
    )  # fmt: skip
    model = fake_verbs.analyze_report(model=True, dataset=False).model
    return dataclasses.replace(model, groups=groups)


def test_a_sweep_is_one_line_per_signal_and_a_dashed_one_for_random_channels():
    report = fake_verbs.sweep_report()
    for axes in sweep_picture(report).figure.axes:
        lines = lines_of(axes)
        assert set(lines) == {"l1", "taylor", "random", "original model"}
        assert lines["random"].get_linestyle() == "--"
        assert lines["l1"].get_linestyle() == lines["taylor"].get_linestyle() == "-"
        assert lines["l1"].get_color() != lines["taylor"].get_color()
        assert lines["l1"].get_marker() != lines["taylor"].get_marker()
    left, right = sweep_picture(report).figure.axes
    np.testing.assert_allclose(lines_of(left)["l1"].get_xdata(), [100, 89, 49])
    np.testing.assert_allclose(lines_of(left)["l1"].get_ydata(), [92, 90, 60])
    np.testing.assert_allclose(lines_of(right)["l1"].get_ydata(), [0.3, 1.6, 1.9])


def test_the_axes_of_a_sweep_say_what_they_show():
    left, right = sweep_picture(fake_verbs.sweep_report()).figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "FLOPs kept (%)"
    assert left.get_ylabel() == "accuracy (%)"
    assert right.get_ylabel() == "mean cross-entropy"
    wide = fake_verbs.sweep_report()
    far = dataclasses.replace(
        wide.trials[0], score=dataclasses.replace(wide.trials[0].score, loss=30.0)
    )
    wide = dataclasses.replace(wide, trials=(far, *wide.trials[1:]))
    assert sweep_picture(wide).figure.axes[1].get_yscale() == "log"


def test_repaired_cuts_are_the_lines_and_those_before_are_pale():
    report = fake_verbs.sweep_report()
    better = dataclasses.replace(report.dense.score, accuracy=0.91)
    report = dataclasses.replace(
        report,
        repair=("bn",),
        trials=tuple(dataclasses.replace(trial, repaired=trial.score and better)
                     for trial in report.trials),
    )  # fmt: skip
    left = sweep_picture(report).figure.axes[0]
    solid = [line for line in left.get_lines() if line.get_alpha() == 1.0]
    pale = [line for line in left.get_lines() if (line.get_alpha() or 1.0) < 1.0]
    assert len(solid) == len(pale) == 3
    np.testing.assert_allclose(solid[0].get_ydata()[1:], 91)
    assert all(line.get_label().startswith("_") for line in pale)  # not in the legend


def test_allocations_differ_in_their_strokes_and_stand_in_the_legend():
    report = fake_verbs.sweep_report()
    other = tuple(dataclasses.replace(trial, allocation="uniform") for trial in report.trials)
    report = dataclasses.replace(report, trials=(*report.trials, *other))
    lines = lines_of(sweep_picture(report).figure.axes[0])
    assert {"l1, greedy", "l1, uniform", "random, greedy", "random, uniform"} <= set(lines)
    assert lines["l1, greedy"].get_color() == lines["l1, uniform"].get_color()
    strokes = {str(line._dash_pattern) for name, line in lines.items() if "l1" in name}
    assert len(strokes) == 2


def test_the_oracle_is_three_bars_per_signal_and_panel():
    model = fake_verbs.analyze_report(model=True, dataset=False).model
    left, right = oracle_picture(model).figure.axes
    assert [len(bars) for bars in left.containers] == [2, 2, 2]
    assert [text.get_text() for text in left.get_yticklabels()] == ["taylor", "random"]
    widths = [[bar.get_width() for bar in bars] for bars in left.containers]
    assert widths == [[0.61, 0.02], [0.12, -0.01], [0.71, 0.0]]  # not defined: no bar
    assert "size" in left.get_title(loc="left")
    assert "signed" in right.get_title(loc="left")


def test_the_most_sensitive_groups_are_named_and_the_rest_is_grey():
    (axes,) = sensitivity_picture(analysis(9)).figure.axes
    named = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in named] == [f"layer{at}" for at in range(8, 2, -1)]
    assert len(axes.get_lines()) == 9
    np.testing.assert_allclose(named[0].get_xdata(), [0, 25, 50])


def test_no_two_colours_or_markers_are_the_same():
    assert len(set(COLOURS)) == len(COLOURS)
    assert len(set(MARKERS)) == len(MARKERS)


def test_pictures_are_whole_files_that_say_what_they_show(tmp_path):
    picture = sweep_picture(fake_verbs.sweep_report())
    svg, png = save_pictures(tmp_path / "new", {"sweep": picture})
    root = ET.parse(svg).getroot()
    assert root.tag.endswith("svg")
    text = svg.read_text(encoding="utf-8")
    assert "<title>" in text
    assert "l1: 90.0% at 89.0%, 60.0% at 49.0%." in text
    with Image.open(png) as image:
        image.load()
        assert image.size[0] > 600
        assert "l1: 90.0% at 89.0%" in image.text["Description"]
        colours = len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))
    assert colours > 50  # something is drawn
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"sweep.svg", "sweep.png"}


def test_the_same_figures_give_the_same_bytes(tmp_path):
    for suffix in (".svg", ".png"):
        files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
        for path in files:
            save_figure(sweep_picture(fake_verbs.sweep_report()), path)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_folder_that_cannot_take_pictures_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="not a folder"):
        check_folder(file, ["sweep"], overwrite=True)
    (tmp_path / "sweep.png").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        check_folder(tmp_path, ["sweep"], overwrite=False)
    check_folder(tmp_path, ["sweep"], overwrite=True)
    check_folder(tmp_path / "new", ["sweep"], overwrite=False)
    with pytest.raises(InputError, match="names no format"):
        save_figure(sweep_picture(fake_verbs.sweep_report()), tmp_path / "sweep.gif")


def test_drawing_needs_no_display_and_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys; from tests.support import fake_verbs\n"
        "from pathlib import Path\n"
        "from prunecli.pictures import save_pictures, sweep_picture\n"
        "picture = sweep_picture(fake_verbs.sweep_report())\n"
        f"save_pictures(Path({str(tmp_path)!r}), {{'sweep': picture}})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**_environment(), "MPLBACKEND": "TkAgg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "DISPLAY"}


def test_analyze_draws_what_it_measured(tmp_path):
    report = verbs.analyze(
        model=VGG,
        data="digits",
        options=AnalyzeOptions(oracle=True, signals=("l1", "random"), limit=40),
        plots=tmp_path / "pictures",
    )
    names = {path.name for path in report.pictures}
    assert names > {"sensitivity.svg", "sensitivity.png", "oracle.svg", "oracle.png"}
    assert names > {"class-map.svg", "similarity.png", "difficulty.svg", "balance.svg"}
    assert not names & {"reduction.svg", "learned.svg"}
    assert all(path.is_file() for path in report.pictures)
    assert "features.0" in (tmp_path / "pictures" / "sensitivity.svg").read_text(encoding="utf-8")
