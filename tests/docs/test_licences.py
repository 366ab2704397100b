"""Every package that prunecli asks for has a row in the table of licences."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.docs.markdown import read

ROOT = Path(__file__).resolve().parents[2]
OF_A_FILE = {"torch"}
"""States its licence in its LICENSE file alone."""


def test_every_dependency_states_its_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {Requirement(line).name.lower() for line in project["dependencies"]}
    stated = {row["package"]: row["licence"] for row in read("licences.csv")}
    assert asked <= stated.keys()
    unclear = {name for name in asked if stated[name] in {"not stated", "UNKNOWN", ""}}
    assert unclear <= OF_A_FILE
