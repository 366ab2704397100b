"""Mixed connectivity from the command's road to the file: budget, proof, resume, refusals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

import prunecli
from prunecli import verbs
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.errors import GateError, InputError, InterruptedRunError
from prunecli.options import PruneOptions, TrainingOptions
from tests.support.samples import VGG

if TYPE_CHECKING:
    from pathlib import Path

RESNET = VGG.with_name("digits_resnet.safetensors")


def options(method: str = "bar", **changes) -> PruneOptions:
    own = {"epochs": 2, "batch_size": 32, "amp": "no", "mixed_connectivity": True, **changes}
    return PruneOptions(method=method, limit=320, training=TrainingOptions(**own))


def prune(folder: Path, *, name: str = "slim.pt", given=None, budget=None, **arguments):
    return verbs.prune(
        RESNET,
        output=folder / name,
        budget=budget or make_budget(flops=0.4),
        options=given or options(),
        data="digits",
        **arguments,
    )


@pytest.mark.parametrize(
    ("method", "own"), [("bar", {}), ("gates", {"threshold": "fixed", "start": "equal"})]
)
def test_the_budget_is_kept_and_the_file_is_the_small_proven_network(tmp_path, method, own):
    report = prune(tmp_path, given=options(method, **own))
    assert 0.99 <= report.cost.kept["flops"] / 0.4 <= 1.0
    assert report.verified.max_rel_error < 1e-9
    assert report.verified.by_structure
    course = report.learning.course
    assert {frozenset(point.widths) for point in course} == {frozenset(course[0].widths)}
    assert course[-1].cost == pytest.approx(report.cost.kept["flops"], abs=1e-9)
    checkpoint = read(tmp_path / "slim.pt").checkpoint
    assert checkpoint.plan.writes
    assert {writer.name for writer in report.blocks.writers} <= checkpoint.plan.writes.keys()
    assert all(writer.written < writer.slots for writer in report.blocks.writers)
    slim = instantiate(checkpoint)
    sizes = sum(value.numel() for value in slim.parameters())
    assert sizes == report.cost.after["params"] < report.cost.before["params"]
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prunecli.export(slim, tmp_path / "slim.onnx", input=checkpoint.input)
    session = onnxruntime.InferenceSession(tmp_path / "slim.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, slim(images).numpy(), rtol=1e-3, atol=1e-4)


class Stopper:
    """Presses Ctrl-C when so many updates are reported."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def __call__(self, step) -> None:
        if step.stage == "train" and step.done >= self.updates:
            raise KeyboardInterrupt


def test_a_run_that_is_interrupted_after_the_cut_goes_on_bit_by_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    given = options(search=0.6, ema=0.5)
    prune(tmp_path, name="whole.pt", given=given)
    with pytest.raises(InterruptedRunError, match="stopped in epoch"):
        prune(tmp_path, name="twice.pt", given=given, progress=Stopper(16))
    own = dataclasses.replace(given.training, resume=True)
    prune(tmp_path, name="twice.pt", given=dataclasses.replace(given, training=own))
    first, second = (read(tmp_path / name).checkpoint for name in ("whole.pt", "twice.pt"))
    assert first.plan == second.plan
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (dataclasses.replace(options(), align=4), make_budget(flops=0.4)),
        (dataclasses.replace(options(), min_width=2), make_budget(flops=0.4)),
        (options(), make_budget(sparsity=0.5)),
        (options(), make_budget(latency=0.5)),
    ],
)
def test_what_cannot_go_with_it_is_told_at_once(tmp_path, given, budget):
    steps = []
    with pytest.raises(InputError) as caught:
        prune(tmp_path, given=given, budget=budget, progress=steps.append)
    assert caught.value.where == "--mixed-connectivity"
    assert not steps


def test_it_belongs_to_methods_with_gates(tmp_path):
    with pytest.raises(InputError) as caught:
        prune(tmp_path, given=options("gradual"))
    assert caught.value.code == "OPTION_WITHOUT_EFFECT"


def test_a_budget_that_gates_cannot_reach_is_told_before_any_training(tmp_path):
    steps = []
    # A cut of whole channels takes all that write into the stream of this layer along.
    given = dataclasses.replace(options(), only=("conv1",))
    with pytest.raises(GateError, match="with gates alone") as caught:
        prune(tmp_path, given=given, progress=steps.append, budget=make_budget(flops=0.8))
    assert caught.value.code == "INFEASIBLE_BUDGET"
    assert not any(step.stage == "train" for step in steps)
