"""A kind of cost is one entry: budgets, reports, plans, tables and pages follow."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import prunecli
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.artefacts.history import history_of
from prunecli.budget import format_cost, make_budget, parse_sweep
from prunecli.checkpoint import Checkpoint
from prunecli.cost.flops import Term
from prunecli.cost.kinds import COST_KINDS, CostKind, Counted, budget_kinds, cost_label
from prunecli.errors import InputError
from prunecli.html.cuts import cut_page
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.plan import PruningPlan
from prunecli.pruning.road import prune_network
from prunecli.report import to_json
from prunecli_cli.cut_tables import cut_table
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)
FACTS = {"history": [{"verb": "prune", "command": "prunecli prune model.pt"}]}
INPUT = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)


def network() -> nn.Module:
    return randomize_(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        ),
        seed=0,
    ).eval()


def moved_bytes(counted: Counted) -> list[Term]:
    """Return the bytes of float32 outputs and of weights that one input moves."""
    made = [Term(term.node, 4 * term.coefficient, term.dims) for term in counted.activations]
    return [*made, *counted.stored]


@pytest.fixture
def traffic(monkeypatch) -> str:
    """Register a kind of cost, for one test."""
    monkeypatch.setattr(COST_KINDS, "_entries", dict(COST_KINDS._entries))
    kind = CostKind("memory traffic", moved_bytes)
    COST_KINDS.add("traffic", kind, summary="Bytes that one input moves.")
    return "traffic"


def by_hand(first: int, second: int) -> int:
    numbers = 27 * first + first + 9 * first * second + second + 4 * second + 4
    return 4 * (numbers + 64 * first + 64 * second + 4)


def test_a_registered_kind_is_counted_in_closed_form(traffic: str) -> None:
    found = read_network(network(), (IMAGE,))
    assert found.cost.dense[traffic] == by_hand(16, 16)
    assert found.cost.cost(found.cost.dense_widths // 2)[traffic] == by_hand(8, 8)


def test_a_budget_on_a_registered_kind_is_kept_and_told_everywhere(traffic: str) -> None:
    result = prune_network(
        read_network(network(), (IMAGE,)),
        budget=make_budget(traffic="60%"),
        options=PruneOptions(align=1),
    )
    report = result.report
    before, after = report.cost.before[traffic], report.cost.after[traffic]
    first, second = (group.after for group in report.groups)
    assert (before, after) == (by_hand(16, 16), by_hand(first, second))
    assert 0.5 < report.cost.kept[traffic] <= 0.6
    assert report.plan["budget"] == {traffic: {"fraction": 0.6}}
    stored = PruningPlan.from_json(json.loads(result.plan.dumps()))
    assert stored.cost_after[traffic] == after
    assert to_json(report)["cost"]["after"][traffic] == after
    labels = list(cut_table(report.cost).columns[0].cells)
    assert labels == ["FLOPs", "parameters", "activations", "bytes", "channels", "memory traffic"]
    html = cut_page(report)
    assert "at most 60.0 % of the memory traffic" in html
    assert format_cost(traffic, before) in html


def test_a_registered_kind_can_be_swept(traffic: str) -> None:
    sweep = parse_sweep("traffic=0.5:0.7:0.1")
    assert [str(budget) for budget in sweep.budgets] == [
        f"traffic <= {share}" for share in (0.7, 0.6, 0.5)
    ]


def test_what_is_only_reported_is_no_budget(traffic: str, monkeypatch) -> None:
    COST_KINDS.add("joules", CostKind("joules", moved_bytes, budget=False), summary="Energy.")
    with pytest.raises(InputError, match="no budget called 'joules'"):
        make_budget(joules=0.5)
    assert "joules" in read_network(network(), (IMAGE,)).cost.dense


def test_every_budget_is_that_of_a_kind() -> None:
    assert budget_kinds() == {
        "flops": "flops",
        "params": "params",
        "activations": "activations",
        "bytes": "bytes",
        "sparsity": "channels",
        "latency": "latency",
    }


def cut_file() -> PruningPlan:
    return prunecli.prune(network(), IMAGE, flops=0.5, signal="l2", align=1).plan


def told(plan: PruningPlan):
    (step,) = history_of(Checkpoint(ArchitectureRef("graph"), {}, INPUT, plan=plan, metadata=FACTS))
    return step.cost


def test_a_file_from_before_a_kind_was_registered_keeps_its_costs(traffic: str) -> None:
    plan = cut_file().to_json()
    for costs in (plan["cost_before"], plan["cost_after"]):
        del costs[traffic]
    cost = told(PruningPlan.from_json(plan))
    assert cost.before.flops == plan["cost_before"]["flops"]
    assert traffic not in cost.before
    assert [*cost.kept] == ["flops", "params", "activations", "bytes", "channels"]


def test_a_kind_of_a_newer_version_is_kept_and_shown_under_its_own_name() -> None:
    plan = cut_file().to_json() | {"budget": {"joules": {"fraction": 0.5}}}
    plan["cost_before"]["joules"], plan["cost_after"]["joules"] = 8.0, 4.0
    read = PruningPlan.from_json(plan)
    assert read.to_json() == plan
    cost = told(read)
    assert cost.kept["joules"] == 0.5
    assert list(cut_table(cost).columns[0].cells)[-1] == cost_label("joules") == "joules"


def test_costs_that_are_no_numbers_are_left_out() -> None:
    plan = cut_file().to_json()
    plan["cost_before"]["joules"], plan["cost_after"]["joules"] = "many", [1]
    assert "joules" not in told(PruningPlan.from_json(plan)).before
