"""Training under masks: zeros stay zero, sparsity grows as asked, a killed run goes on exactly."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import prunecli
from prunecli import data, verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.errors import InputError, InterruptedRunError
from prunecli.network.traced import read_network
from prunecli.options import FinetuneOptions, PruneOptions
from prunecli.sparse import weight_layers
from prunecli.sparse.schedules import SPARSITY_SCHEDULES, Gradual
from prunecli.training import finetune
from prunecli.training.masked_weights import MaskedWeights
from tests.support.training import GREY, make_net, same

QUICK = FinetuneOptions(epochs=2, batch_size=64, limit=320, amp="no")
EXAMPLE = torch.randn(2, 1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> data.DataSource:
    return data.open_source("digits")


def layers_of(model):
    return weight_layers(read_network(model, [EXAMPLE]))


def grown(digits, **changes):
    options = dataclasses.replace(
        QUICK, **{"sparsity": 0.8, "sparsity_every": 2, "epochs": 3, **changes}
    )
    model = make_net()
    return finetune(model, digits, input=GREY, options=options, layers=layers_of(model))


# --- the schedule --------------------------------------------------------------------------------


def test_the_cubic_schedule_gives_the_known_answer() -> None:
    """Source: Zhu and Gupta 2017, as in TensorFlow's implementation (power 3)."""
    gradual = Gradual(0.0, 0.9, end=1000, every=100)
    steps = (0, 100, 250, 500, 750, 1000, 2000)
    expected = (0, 0.2439, 0.520312, 0.7875, 0.885938, 0.9, 0.9)
    assert [gradual.sparsity(step) for step in steps] == pytest.approx(expected, abs=1e-6)
    assert [step for step in range(1200) if gradual.changes(step)] == list(range(0, 1001, 100))


@pytest.mark.parametrize("name", SPARSITY_SCHEDULES.names())
def test_every_schedule_ends_at_the_sparsity_asked_for_and_never_falls(name) -> None:
    gradual = Gradual(0.3, 0.85, end=7, every=2, schedule=SPARSITY_SCHEDULES.get(name))
    found = [gradual.sparsity(step) for step in range(12)]
    assert found == sorted(found)
    assert found[7:] == [0.85] * 5
    assert gradual.changes(7)
    assert not gradual.changes(8)


# --- masks that stay -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{}, {"optimizer": "adamw"}, {"optimizer": "adam"}, {"ema": 0.9}, {"clip": 0.5},
     {"weight_decay": 0.1, "lr": 0.1}],
)  # fmt: skip
def test_masked_weights_are_exactly_zero_whatever_trains_them(digits, change) -> None:
    pruned = prunecli.sparsify(make_net(), EXAMPLE, sparsity=0.7)
    result = finetune(
        pruned.model, digits, input=GREY, masks=pruned.masks,
        options=dataclasses.replace(QUICK, **change),
    )  # fmt: skip
    assert result.masks.keys() == pruned.masks.keys()
    for name, mask in pruned.masks.items():
        weight = result.model.get_parameter(name)
        assert torch.equal(result.masks[name], mask)
        assert not weight[~mask].any()
        assert not torch.equal(weight, pruned.model.get_parameter(name))


def test_masked_weights_are_zero_after_every_single_step(digits, monkeypatch) -> None:
    from prunecli.training import loop

    pruned = prunecli.sparsify(make_net(), EXAMPLE, sparsity=0.7)
    step, seen = loop.train_step, []

    def watched(run, *batch):
        result = step(run, *batch)
        for name, mask in pruned.masks.items():
            for model in (run.bare, run.average.model):
                assert not model.get_parameter(name)[~mask].any()
            state = run.optimizer.state[run.bare.get_parameter(name)]
            assert not state["momentum_buffer"][~mask].any()
        seen.append(run.step)
        return result

    monkeypatch.setattr(loop, "train_step", watched)
    options = dataclasses.replace(QUICK, ema=0.9, epochs=1)
    finetune(pruned.model, digits, input=GREY, masks=pruned.masks, options=options)
    assert len(seen) > 2


def test_masks_of_another_network_are_refused(digits) -> None:
    for masks in ({"9.weight": torch.ones(2).bool()}, {"0.weight": torch.ones(2).bool()}):
        with pytest.raises(InputError) as caught:
            finetune(make_net(), digits, input=GREY, options=QUICK, masks=masks)
        assert caught.value.code == "MASK_MISMATCH"


# --- sparsity that grows -------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["uniform", "global", "erdos-renyi", "lamp"])
def test_sparsity_grows_to_what_was_asked_for_exactly(digits, allocation) -> None:
    result = grown(digits, allocation=allocation)
    total = sum(mask.numel() for mask in result.masks.values())
    zero = sum(int((~mask).sum()) for mask in result.masks.values())
    assert zero == round(0.8 * total)
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()
    growth = [epoch.sparsity for epoch in result.epochs]
    assert growth == sorted(growth)
    assert growth[0] < growth[-1] == pytest.approx(0.8, abs=1e-3)


def test_an_epoch_with_fewer_zeros_is_never_the_best(digits) -> None:
    result = grown(digits, sparsity=0.97, sparsity_until=1.0)
    assert result.best_epoch == 3
    assert result.epochs[0].accuracy > result.epochs[2].accuracy


def test_the_average_of_a_growing_run_obeys_the_last_masks(digits) -> None:
    result = grown(digits, ema=0.99)
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()


def test_a_masked_weight_returns_with_its_last_value_when_it_is_large_again() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    gradual = Gradual(0.0, 0.5, end=4, every=2, schedule=SPARSITY_SCHEDULES.get("at-once"))
    layers = weight_layers(read_network(model, [torch.randn(2, 4)]))
    zeros = MaskedWeights({}, gradual=gradual, layers=layers)
    run = SimpleNamespace(bare=model, average=None, taken=0)
    zeros.start(run)
    zeros.before_step(run)
    assert model[0].weight.tolist() == [[4.0, 3.0, 0.0, 0.0]]
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, 0.5, 9.0, 9.0]]))  # an optimiser may do this
    zeros.after_step(run)
    assert model[0].weight.tolist() == [[4.0, 0.5, 0.0, 0.0]]
    run.taken = 1
    zeros.before_step(run)
    assert model[0].weight.tolist() == [[4.0, 0.5, 0.0, 0.0]]
    run.taken = 2
    zeros.before_step(run)
    assert model[0].weight.tolist() == [[4.0, 0.0, 2.0, 0.0]]
    assert zeros.facts() == {"sparsity": 0.5}


def test_zeros_that_were_there_first_never_return(digits) -> None:
    pruned = prunecli.sparsify(make_net(), EXAMPLE, sparsity=0.5, signal="random")
    options = dataclasses.replace(QUICK, sparsity=0.9, sparsity_every=3)
    result = finetune(
        pruned.model, digits, input=GREY, options=options, masks=pruned.masks,
        layers=layers_of(pruned.model),
    )  # fmt: skip
    assert all((result.masks[name] <= mask).all() for name, mask in pruned.masks.items())
    with pytest.raises(InputError, match="zeroes nothing") as caught:
        finetune(
            pruned.model, digits, input=GREY, masks=pruned.masks, layers=layers_of(pruned.model),
            options=dataclasses.replace(QUICK, sparsity=0.4),
        )  # fmt: skip
    assert caught.value.code == "ALREADY_WITHIN_BUDGET"


@pytest.mark.parametrize("stop", [3, 6, 11])
def test_a_growing_run_that_was_stopped_ends_like_one_that_never_stopped(
    digits, tmp_path, monkeypatch, stop
) -> None:
    from prunecli.training import loop

    options = dataclasses.replace(
        QUICK, epochs=3, sparsity=0.8, sparsity_every=2, ema=0.9, allocation="global"
    )
    model = make_net()
    layers = layers_of(model)
    straight = finetune(model, digits, input=GREY, options=options, layers=layers)
    step, taken = loop.train_step, []

    def stopping(run, *batch):
        if len(taken) == stop:
            run.between_steps = True  # Ctrl-C before this step has begun
            raise KeyboardInterrupt
        taken.append(run.step)
        return step(run, *batch)

    monkeypatch.setattr(loop, "train_step", stopping)
    folder = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        finetune(model, digits, input=GREY, options=options, layers=layers, run_dir=folder)
    monkeypatch.setattr(loop, "train_step", step)
    resumed = finetune(
        model, digits, input=GREY, options=options, layers=layers, run_dir=folder, resume=True
    )
    assert same(straight.model, resumed.model)
    assert all(torch.equal(straight.masks[name], mask) for name, mask in resumed.masks.items())
    assert [e.sparsity for e in straight.epochs] == [e.sparsity for e in resumed.epochs]


def test_a_pattern_does_not_grow_and_an_unknown_name_is_refused(digits) -> None:
    for change, code in (
        ({"granularity": "2:4"}, "BAD_OPTION"),
        ({"sparsity_schedule": "square"}, "UNKNOWN_SPARSITY_SCHEDULE"),
        ({"allocation": "greedy"}, "UNKNOWN_WEIGHT_ALLOCATION"),
    ):
        with pytest.raises(InputError) as caught:
            grown(digits, **change)
        assert caught.value.code == code


# --- on files ------------------------------------------------------------------------------------


def test_finetune_keeps_the_zeros_of_a_sparse_artefact(tmp_path, digits_checkpoint) -> None:
    sparse = tmp_path / "s.pt"
    verbs.prune(
        digits_checkpoint, output=sparse, budget=make_budget(sparsity=0.8),
        options=PruneOptions(granularity="weight", exclude=("conv1",)),
    )  # fmt: skip
    report = verbs.finetune(sparse, data="digits", output=tmp_path / "t.pt", options=QUICK)
    before, after = read(sparse).checkpoint, read(tmp_path / "t.pt").checkpoint
    assert report.sparsity.sparsity == pytest.approx(0.8, abs=1e-3)
    assert report.sparsity.bytes_after < digits_checkpoint.stat().st_size
    for name, mask in before.masks.items():
        assert torch.equal(after.masks[name], mask)
        assert not after.tensors[name][~mask].any()
        assert not torch.equal(after.tensors[name], before.tensors[name])


def test_finetune_zeroes_weights_along_the_way(tmp_path, digits_checkpoint) -> None:
    options = dataclasses.replace(QUICK, sparsity=0.9, sparsity_every=3)
    report = verbs.finetune(
        digits_checkpoint, data="digits", output=tmp_path / "t.pt", options=options
    )
    stored = read(tmp_path / "t.pt").checkpoint
    found = report.sparsity
    assert found.kept == found.weights - round(0.9 * found.weights)
    assert sum(int(mask.sum()) for mask in stored.masks.values()) == found.kept
    assert stored.metadata["sparsity"]["schedule"] == "cubic"
    assert (tmp_path / "t.pt").stat().st_size < 0.5 * digits_checkpoint.stat().st_size
