"""The container: it is built from what the package needs, and runs where there is docker."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / ".ci/Dockerfile").read_text().splitlines()


def test_the_container_holds_all_that_the_package_is_built_from():
    copied = {word for line in LINES if line.startswith("COPY") for word in line.split()[1:-1]}
    let_in = (ROOT / ".ci/Dockerfile.dockerignore").read_text().split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    places = {"prunecli", *project["tool"]["setuptools"]["package-dir"].values()}
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    assert copied == {"pyproject.toml", *places, *files}
    assert {f"!{name}" for name in copied} <= set(let_in)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_the_container_prunes_a_model():
    subprocess.run([ROOT / ".ci/image"], check=True)


@pytest.mark.skipif(shutil.which("docker") is not None, reason="docker is installed")
def test_without_docker_it_is_said_that_nothing_was_built():
    done = subprocess.run([ROOT / ".ci/image"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "docker is not here" in done.stderr
