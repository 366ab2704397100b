"""What `prunecli guide extending` shows works, in this repository and from another package."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from prunecli.errors import GraphError
from tests.docs.markdown import blocks
from tests.docs.sections import GUIDES

TEXT = (GUIDES / "extending.md").read_text(encoding="utf-8")
EXAMPLES = blocks(TEXT, "python")
RULE = next(block for block in EXAMPLES if "@rule(" in block)

USES_A_PLUGIN = """
import torch

import prunecli


class Turned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 8, 3)

    def forward(self, images):
        return self.second(torch.rot90(self.first(images), 1, (2, 3))).mean((2, 3))


result = prunecli.prune(Turned(), torch.randn(1, 3, 8, 8), flops=0.5)
assert result.report.cost.kept["flops"] <= 0.5
"""


def run(script, folder):
    (folder / "script.py").write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_examples_run(tmp_path):
    """In a process of its own: what the examples register is nobody else's."""
    script = []
    for block in EXAMPLES:
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        else:
            script.append(block)
    done = run("\n".join(script), tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_example_of_an_operator_is_one_that_prunecli_does_not_know():
    with pytest.raises(GraphError) as caught:
        exec(USES_A_PLUGIN, {})
    assert "no rule for operator rot90" in str(caught.value)


def test_a_package_brings_its_own_by_an_entry_point(tmp_path):
    """As `pip install` leaves it: a module, and metadata that name it."""
    (tmp_path / "my_rules.py").write_text(RULE, encoding="utf-8")
    metadata = tmp_path / "my_rules-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rules\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[prunecli.plugins]\nmy_rules = my_rules\n")
    done = run(USES_A_PLUGIN, tmp_path)
    assert done.returncode == 0, done.stderr
