"""What continuous integration reads of a run: annotations, the summary of a job, JUnit files."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from prunecli_cli.ci import add_summary, annotation
from prunecli_cli.main import main
from tests.support.samples import VGG

GUIDE = Path(__file__).parents[2] / "prunecli" / "guides" / "scripts.md"


@pytest.fixture
def images(tmp_path):
    """Return a folder of a few digits of all classes."""
    digits = load_digits()
    for at in range(60):
        place = tmp_path / "images" / "test" / str(digits.target[at])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[at] * 15.9).astype(np.uint8)).save(place / f"{at}.png")
    return tmp_path / "images"


def unescaped(command: str) -> tuple[str, str, str]:
    """Read a workflow command as GitHub's runner does."""
    kind, title, message = re.fullmatch(r"::(\w+) title=([^:]*)::(.*)", command).groups()
    for mark, sign in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        title, message = title.replace(mark, sign), message.replace(mark, sign)
    return kind, title, message


def test_annotations_are_read_back_whatever_they_say():
    said, title = "50 %0A lost\n::error::no\r\nend", "a, b: c%"
    line = annotation("error", said, title=title)
    assert "\n" not in line
    assert "\r" not in line
    assert unescaped(line) == ("error", title, said)


def run(words, capsys) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(("least", "code"), [("0.4", 0), ("1.01", 2), ("100%", 1)])
def test_a_gate_is_told_to_github_and_junit(images, monkeypatch, capsys, least, code):
    tmp_path = images.parent
    summary, junit = tmp_path / "summary.md", tmp_path / "run.xml"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    for at in range(0, 60, 2):  # half of the labels are wrong
        (found,) = images.rglob(f"{at}.png")
        found.rename(images / "test" / str((int(found.parent.name) + 1) % 10) / found.name)
    words = ["evaluate", VGG, "--data", images, "--min-accuracy", least]
    found = run([*words, "--format", "github", "--junit", junit], capsys)
    assert found[0] == code
    lines = [line for line in found[2].splitlines() if line.startswith("::")]
    text = summary.read_text()
    assert text.startswith("before\n")
    suite = ET.parse(junit).getroot().find("testsuite")
    case = suite.find("testcase")
    assert suite.get("tests") == "1"
    assert case.get("classname") == "prunecli.evaluate"
    assert "--min-accuracy" in case.get("name")
    assert float(case.get("time")) > 0
    failure, error = case.find("failure"), case.find("error")
    if code == 0:
        assert lines == []
        assert (failure, error) == (None, None)
        assert "### prunecli evaluate: passed" in text
        assert "accuracy" in case.find("system-out").text
        return
    (line,) = lines
    kind, title, message = unescaped(line)
    assert (kind, title) == ("error", "prunecli evaluate")
    problem = failure if code == 1 else error
    assert problem is not None
    assert problem.get("message") == message.splitlines()[0]
    assert "### prunecli evaluate: failed" in text
    assert suite.get("failures") == str(int(code == 1))
    assert suite.get("errors") == str(int(code == 2))


@pytest.mark.parametrize("words", [["--json"], ["-q"]])
def test_stdout_stays_what_it_is(images, tmp_path, capsys, words):
    given = ["evaluate", VGG, "--data", images, *words]
    plain = run(given, capsys)[1]
    also = run([*given, "--format", "github", "--junit", tmp_path / "a.xml"], capsys)[1]
    assert also == plain


def test_a_missing_file_is_an_error_of_the_run_and_told_as_well(tmp_path, capsys):
    junit = tmp_path / "run.xml"
    found = run(["evaluate", "no.pt", "--data", "digits", "--format=github", f"--junit={junit}"],
                capsys)  # fmt: skip
    assert found[0] == 2
    assert any(line.startswith("::error title=prunecli evaluate::") for line in
               found[2].splitlines())  # fmt: skip
    assert ET.parse(junit).getroot().find(".//error").get("type") == "FILE_NOT_FOUND"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "gitlab"], "none of its choices"),
        (["--junit", "nowhere/deep/run.xml"], "nowhere"),
    ],
)
def test_bad_words_are_told_before_work(images, monkeypatch, capsys, words, said):
    monkeypatch.chdir(images.parent)
    code, _, err = run(["evaluate", VGG, "--data", images, *words], capsys)
    assert code == 2
    assert said in err
    assert "evaluate test" not in err


def shell_of(block: str) -> list[str]:
    """Return the commands of a workflow: those of `run:`, or the items of `script:`."""
    runs = re.findall(r"^\s*- run: (prunecli .+)$", block, re.MULTILINE)
    script = re.search(r"^  script:\n((?:    - .+\n)+)", block, re.MULTILINE)
    items = re.findall(r"- (prunecli .+)", script.group(1)) if script else []
    return runs + items


BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["github", "gitlab"])
def test_the_workflows_of_the_guide_run(images, tmp_path, block):
    for name in ("model.safetensors", "slim.safetensors"):
        shutil.copy(VGG, tmp_path / name)
    commands = shell_of(block)
    assert commands
    command = Path(sys.executable).with_name("prunecli")
    environment = {
        **os.environ, "CI": "true", "PATH": f"{command.parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }  # fmt: skip
    for line in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    for named in re.findall(r"--junit (\S+)", block):
        assert ET.parse(tmp_path / named).getroot().tag == "testsuites"


def test_a_summary_shows_what_was_said_letter_by_letter(tmp_path, monkeypatch):
    place = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    add_summary("prunecli prune", None, text="", warnings=["a&lt;b <i> ~~no~~"])
    (line,) = (line for line in place.read_text().splitlines() if "warning" in line)
    shown = html.unescape(re.sub(r"\\(.)", r"\1", line))
    assert shown == "- warning: a&lt;b <i> ~~no~~"
    assert "~~" not in line
