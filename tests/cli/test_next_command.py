"""The command that a sweep suggests is one that makes the suggested cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prunecli_cli.sweep import next_command
from tests.support import fake_verbs

TYPED = ["prune", "m.pt", "--sweep", "flops=0.3:0.9:0.1", "--importance", "energy", "--data", "d"]


def suggested(allocation: str, importance: str | None) -> list[str]:
    trial = fake_verbs.trial("l1", 0.5, 0.5, allocation=allocation)
    report = dataclasses.replace(fake_verbs.sweep_report(), suggested=trial)
    return next_command(TYPED, report, model=Path("m.pt"), importance=importance).split()


@pytest.mark.parametrize("allocation", ["inverse-importance", "proportional-importance"])
def test_an_allocation_by_importance_is_suggested_with_the_importance_it_was_tried_with(
    allocation: str,
) -> None:
    words = suggested(allocation, "energy")
    assert words[words.index("--allocation") + 1] == allocation
    assert words.count("--importance") == 1
    assert words[words.index("--importance") + 1] == "energy"


@pytest.mark.parametrize(
    ("allocation", "importance"), [("greedy", "energy"), ("inverse-importance", None)]
)
def test_an_importance_that_was_not_used_is_not_suggested(
    allocation: str, importance: str | None
) -> None:
    assert "--importance" not in suggested(allocation, importance)
