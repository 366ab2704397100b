"""Style, types, floors, licence and packaging, checked as the tests are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = Path(sys.executable).parent

CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "lint-imports": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_code_passes(check):
    tool, *words = CHECKS[check]
    if not (SCRIPTS / tool).exists():
        pytest.skip(f"{tool} is not installed; pip install -e '.[test]' brings it")
    done = subprocess.run(
        [SCRIPTS / tool, *words],
        cwd=REPOSITORY,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_runs_the_same_checks():
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"entry: (.*)", text)
    for words in CHECKS.values():
        tool = " ".join(words[: 2 if words[0] == "ruff" else 1])
        assert any(entry.startswith(tool) for entry in entries), tool


def test_the_licence_is_the_whole_apache_licence():
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n" in text
    assert "Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability." in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert metadata.metadata("prunecli")["License-Expression"] == "Apache-2.0"


def test_all_packages_on_disk_are_packaged_and_typed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    roots = {
        "prunecli": "prunecli",
        "cli": "prunecli_cli",
        "sample_models": "prunecli_sample_models",
    }
    found = {
        ".".join((package, *path.parent.relative_to(REPOSITORY / folder).parts))
        for folder, package in roots.items()
        for path in (REPOSITORY / folder).rglob("__init__.py")
    }
    assert found == listed
    assert (REPOSITORY / "prunecli" / "py.typed").exists()
    assert (REPOSITORY / "cli" / "py.typed").exists()


def test_nothing_else_stands_at_the_top():
    allowed = {
        "pyproject.toml",
        "cli",
        "prunecli",
        "tests",
        "sample_models",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
    }
    made = {"build", "dist", "prunecli.egg-info", "prunecli-demo"}
    tops = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert tops - made <= allowed


def test_the_version_stands_in_one_place_and_the_changelog_is_kept():
    assert metadata.version("prunecli") == PROJECT["project"]["version"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] in {"Unreleased", PROJECT["project"]["version"]}
