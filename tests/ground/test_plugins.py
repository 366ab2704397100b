"""A package that is installed beside prunecli adds to its registries by an entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "late-channels"
version = "1.0"

[project.entry-points."prunecli.plugins"]
late_channels = "late_channels"

[tool.setuptools]
py-modules = ["late_channels"]
"""

MODULE = '''
"""A signal that takes the last channels first."""

import torch

from prunecli.signals.score import PRESETS


@PRESETS.register("late-first", summary="The last channels go first.", source="a plugin")
def late_first(subject):
    return -torch.arange(subject.coupling.atom_count, dtype=torch.float64)
'''

USES_IT = """
import torch
import prunecli

net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
plan = prunecli.prune(net, torch.zeros(1, 3, 8, 8), flops=0.5, signal="late-first", align=1).plan
(kept,) = plan.keep.values()
assert kept == tuple(range(len(kept))), kept
"""


def run(*words: str, folder: Path, packages: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder into which a plugin was installed by pip, without any index."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (source / "late_channels.py").write_text(MODULE, encoding="utf-8")
    target = tmp_path_factory.mktemp("packages")
    wanted = ("--no-deps", "--no-build-isolation", "--no-index", "--target", str(target))
    done = run("-m", "pip", "install", "-q", *wanted, str(source), folder=source, packages=target)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_signal_is_listed_among_all_others(installed: Path, tmp_path: Path) -> None:
    done = run("-m", "prunecli", "methods", "signal", "--json", folder=tmp_path, packages=installed)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["data"]["methods"]
    (found,) = [entry for entry in listed if entry["name"] == "late-first"]
    assert found == {
        "kind": "signal",
        "name": "late-first",
        "summary": "The last channels go first.",
        "source": "a plugin",
    }
    assert {"l1", "taylor"} < {entry["name"] for entry in listed}


def test_an_installed_signal_prunes(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "uses_it.py").write_text(USES_IT, encoding="utf-8")
    done = run("uses_it.py", folder=tmp_path, packages=installed)
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_cannot_be_imported_is_an_error_that_names_it(
    installed: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in installed.glob("*.dist-info"):
        (packages / path.name).symlink_to(path)
    (packages / "late_channels.py").write_text("import not_there\n", encoding="utf-8")
    done = run("-m", "prunecli", "methods", folder=tmp_path, packages=packages)
    assert done.returncode == 2
    assert "the plugin 'late_channels' cannot be imported" in done.stderr
    assert "late-channels, or uninstall it" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_name_no_module_to_import(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n", encoding="utf-8")
    settings = '[tool.prunecli]\nplugins = ["evil"]\n'
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    done = run("-m", "prunecli", "methods", folder=tmp_path, packages=tmp_path)
    assert done.returncode == 2
    assert "unknown key 'plugins'" in done.stderr
    assert not (tmp_path / "ran").exists()
