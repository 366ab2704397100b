"""The command that a sweep suggests: what was typed, with the suggested cut in place of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prunecli.verbs.suggesting import next_command
from tests.support import fake_verbs

MODEL = Path("m.pt")


def test_it_is_what_was_typed_with_the_suggested_cut():
    typed = (
        "prunecli prune m.pt --sweep=flops=0.3:0.9:0.1 --signal l1,taylor --plots p --out t.csv "
        "--report r.html --exclude 'layer1.*' --data d --overwrite"
    )
    assert next_command(typed, fake_verbs.sweep_report(), model=MODEL) == (
        "prunecli prune m.pt --exclude 'layer1.*' --data d --flops 0.9 --signal taylor "
        "--allocation greedy"
    )


def test_it_names_a_model_that_came_from_elsewhere():
    typed = "prunecli prune --sweep flops=0.3:0.9:0.1"
    found = next_command(typed, fake_verbs.sweep_report(), model=MODEL)
    assert found.startswith("prunecli prune m.pt --flops 0.9")


@pytest.mark.parametrize(("command", "suggested"), [("prunecli prune", False), ("", True)])
def test_without_a_cut_or_a_command_there_is_none(command, suggested):
    report = fake_verbs.sweep_report()
    report = report if suggested else dataclasses.replace(report, suggested=None)
    assert next_command(command, report, model=MODEL) == ""


def test_a_suggested_sparsity_is_the_share_to_remove():
    trial = dataclasses.replace(
        fake_verbs.trial("l1", 0.5, 0.5), budget={"channels": {"fraction": 0.7}}
    )
    report = dataclasses.replace(fake_verbs.sweep_report(), suggested=trial)
    assert "--sparsity 0.3 --signal l1" in next_command("prunecli prune", report, model=MODEL)


TYPED = "prunecli prune m.pt --sweep flops=0.3:0.9:0.1 --importance energy --data d"


def suggested(allocation: str, importance: str | None) -> list[str]:
    trial = fake_verbs.trial("l1", 0.5, 0.5, allocation=allocation)
    report = dataclasses.replace(fake_verbs.sweep_report(), suggested=trial)
    return next_command(TYPED, report, model=MODEL, importance=importance).split()


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
