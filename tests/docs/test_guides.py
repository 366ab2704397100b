"""The manual: every guide is shipped, listed, of one shape, and shown by `prunecli guide`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources

import pytest

from prunecli_cli.guide import TOPICS, guides
from prunecli_cli.main import main
from tests.docs.markdown import REPOSITORY, blocks
from tests.docs.sections import GUIDES

NAMES = tuple(name for topic in TOPICS.values() for name in topic)

# Runs the command and then says whether torch was imported on the way.
WATCHED = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from prunecli_cli.main import run
run()
"""


def test_every_guide_on_disk_is_listed_and_every_listed_guide_is_on_disk():
    assert sorted(NAMES) == sorted(path.stem for path in GUIDES.glob("*.md"))
    assert len(set(NAMES)) == len(NAMES)


def test_the_guides_are_in_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "guides/*.md" in project["tool"]["setuptools"]["package-data"]["prunecli"]
    folder = resources.files("prunecli") / "guides"
    assert all((folder / f"{name}.md").is_file() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_guide_says_what_it_is_for_has_commands_and_says_where_to_go_on(name):
    lines = (GUIDES / f"{name}.md").read_text(encoding="utf-8").strip().splitlines()
    assert re.fullmatch(r"# \w.*", lines[0])
    assert lines[1] == lines[3] == ""
    assert re.fullmatch(r"(How|What|Which|Why|Everything) .{20,60}\.", lines[2])
    shell = "".join(blocks("\n".join(lines), "bash"))
    assert "prunecli " in shell or name == "python"
    python = "".join(blocks("\n".join(lines), "python"))
    widths = map(len, (shell + python).splitlines())
    assert max(widths, default=0) <= 78  # whole lines can be copied from a terminal
    assert lines[-3] == "## See also"
    assert len(re.findall(r"`prunecli guide [a-z-]+`", lines[-1])) >= 2
    assert f"`prunecli guide {name}`" not in lines[-1]


def test_without_a_name_the_list_is_shown_with_one_line_each(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["guide"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for guide in guides():
        (line,) = [line for line in lines if line.split()[:1] == [guide.name]]
        assert guide.summary in line
    assert main(["guide", "-q"]) == 0
    assert capsys.readouterr().out.split() == list(NAMES)


def test_json_holds_the_list_and_the_text(capsys):
    assert main(["guide", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["data"]["guides"]
    assert [entry["name"] for entry in listed] == list(NAMES)
    assert main(["guide", "budgets", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["topic"] == "how-to"
    assert data["summary"] in data["text"]


def test_an_unknown_guide_is_an_error_with_the_nearest_name(capsys):
    assert main(["guide", "buget"]) == 2
    err = capsys.readouterr().err
    assert "unknown guide 'buget'" in err
    assert "did you mean 'budgets'" in err


@pytest.mark.parametrize("options", [[], ["-q"]])
def test_in_a_pipe_a_guide_is_the_markdown_that_it_is(capsys, options):
    assert main(["guide", "proof", *options]) == 0
    assert capsys.readouterr().out == (GUIDES / "proof.md").read_text(encoding="utf-8")


def test_in_a_terminal_a_guide_is_rendered(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["guide", "proof"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert "| what is compared |" not in out
    assert guides().get("proof").summary.split()[0] in out


def test_names_of_guides_are_completed():
    words = {"COMP_WORDS": "prunecli guide da", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "prunecli"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "_PRUNECLI_COMPLETE": "complete_bash", **words},
    )
    assert done.stdout.split() == ["data", "datasets"]


def test_python_m_prunecli_is_the_command_and_a_guide_imports_no_torch():
    help_text, guide = (
        subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        for words in (["-m", "prunecli", "--help"], ["-c", WATCHED, "guide", "signals"])
    )
    assert "Usage: prunecli" in help_text.stdout
    assert guide.stdout.startswith("# Signals")
    assert guide.stderr.strip() == "False"
