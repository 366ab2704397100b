"""`prunecli.prune` and its like can do what the commands can, by the names of the options."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import prunecli
from prunecli.artefacts.provenance import read
from prunecli.errors import InputError
from prunecli.methods import road
from prunecli.options import FinetuneOptions, PruneOptions, TrainingOptions
from tests.support.samples import VGG

SHORT = {"updates": 2, "remove_per_step": 12, "batch_size": 32, "limit": 200}


@pytest.fixture(scope="module")
def sample():
    return prunecli.load(VGG), read(VGG).checkpoint.input


def example(spec):
    return torch.zeros(1, spec.channels, spec.height, spec.width)


def test_keywords_and_options_are_the_same_and_keywords_change_options(sample):
    model, spec = sample
    given = {"flops": 0.6, "dry_run": True}
    first = prunecli.prune(model, example(spec), signal="l2", min_width=2, **given)
    options = PruneOptions(signal="l2", min_width=2)
    second = prunecli.prune(model, example(spec), options=options, **given)
    third = prunecli.prune(
        model,
        example(spec),
        options=dataclasses.replace(options, min_width=1),
        min_width=2,
        **given,
    )
    assert first.plan == second.plan == third.plan
    with pytest.raises(TypeError, match="did you mean 'min_width'"):
        prunecli.prune(model, example(spec), min_widht=2, **given)


def test_weights_are_zeroed_by_their_granularity(sample):
    model, spec = sample
    found = prunecli.prune(model, example(spec), granularity="weight", sparsity=0.75)
    same = prunecli.sparsify(model, example(spec), sparsity=0.75)
    assert found.report.sparsity.sparsity == pytest.approx(0.75, abs=1e-3)
    assert all(torch.equal(mask, same.masks[name]) for name, mask in found.masks.items())
    half = prunecli.prune(model, example(spec), granularity="2:4")
    assert half.report.sparsity.granularity == "2:4"
    with pytest.raises(InputError) as caught:
        prunecli.prune(model, example(spec), granularity="weight", flops=0.5)
    assert caught.value.code == "BAD_BUDGET"


def test_an_iterative_cut_takes_its_own_signal_and_trains_on_the_data(sample):
    model, spec = sample
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = {"flops": 0.6, "method": "iterative", "data": "digits", "input": spec}
    found = prunecli.prune(model, example(spec), **given, **SHORT)
    assert found.report.signal == "fisher"
    assert found.report.cost.kept["flops"] <= 0.6
    assert found.report.verified is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    own = TrainingOptions(updates=2, remove_per_step=12, batch_size=32)
    options = PruneOptions(method="iterative", training=own, limit=200)
    again = prunecli.prune(
        model, example(spec), flops=0.6, options=options, data="digits", input=spec, teacher=model,
        dry_run=True,
    )  # fmt: skip
    assert again.model is None


def test_images_of_a_data_set_serve_signals_and_repairs(sample):
    model, spec = sample
    found = prunecli.prune(
        model, example(spec), flops=0.6, signal="taylor", repair="bn", data="digits", input=spec,
        limit=128,
    )  # fmt: skip
    assert found.report.signal == "taylor"
    assert found.report.repair is not None


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        ({"updates": 3}, "OPTION_WITHOUT_EFFECT"),
        ({"teacher": torch.nn.Identity()}, "OPTION_WITHOUT_EFFECT"),
        ({"threads": 3}, "OPTION_WITHOUT_EFFECT"),
        ({"method": "iterative"}, "SIGNAL_NEEDS_DATA"),
        ({"method": "itertive"}, "UNKNOWN_PRUNING_METHOD"),
        ({"method": "iterative", "data": "digits"}, "BAD_OPTION"),
        ({"method": "iterative", "granularity": "weight"}, "BAD_OPTION"),
        ({"method": "iterative", "dead": True}, "BAD_OPTION"),
        ({"method": "iterative", "allocation": "inverse-importance"}, "BAD_OPTION"),
        ({"method": "iterative", "signal": "auto"}, "BAD_OPTION"),
        ({"method": "iterative", "masks": {}}, "OPTION_WITHOUT_EFFECT"),
        ({"method": "iterative", "batches": list}, "OPTION_WITHOUT_EFFECT"),
        ({"method": "iterative", "measured_on": list}, "OPTION_WITHOUT_EFFECT"),
        ({"masks": {}}, "OPTION_WITHOUT_EFFECT"),
        ({"run_dir": Path("run")}, "OPTION_WITHOUT_EFFECT"),
        ({"granularity": "weight", "run_dir": Path("run")}, "OPTION_WITHOUT_EFFECT"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_any_work(sample, choices, code):
    model, spec = sample
    with pytest.raises(InputError) as caught:
        prunecli.prune(model, example(spec), flops=0.5, **choices)
    assert caught.value.code == code


def test_weights_alone_are_refused_a_method_and_an_input_needs_images(sample):
    model, spec = sample
    with pytest.raises(InputError, match="removes channels, no single weights"):
        prunecli.sparsify(model, example(spec), sparsity=0.5, method="iterative")
    with pytest.raises(InputError, match="no data is named"):
        prunecli.prune(model, example(spec), flops=0.5, input=spec)


def test_a_teacher_in_a_file_keeps_its_own_input(sample, monkeypatch):
    model, spec = sample
    called = {}

    def train_and_prune(*_, **named):
        called.update(named)
        raise KeyboardInterrupt

    monkeypatch.setattr(road, "train_and_prune", train_and_prune)
    own = dataclasses.replace(spec, mean=tuple(value + 1 for value in spec.mean))
    with pytest.raises(KeyboardInterrupt):
        prunecli.prune(
            model, example(spec), flops=0.5, method="iterative", data="digits", input=own,
            options=PruneOptions(method="iterative", training=TrainingOptions(teacher=VGG)),
        )  # fmt: skip
    assert called["teacher"] is not None
    assert (called["input"], called["teacher_input"]) == (own, spec)


def test_the_other_verbs_take_keywords_too(sample, tmp_path):
    model, spec = sample
    with pytest.raises(InputError, match="--temperature has no effect without --teacher"):
        prunecli.finetune(model, "digits", input=spec, temperature=2.0)
    with pytest.raises(InputError, match="--runs has no effect without --benchmark"):
        prunecli.export(model, tmp_path / "a.onnx", input=spec, runs=3)
    with pytest.raises(InputError, match="--signals has no effect without --oracle"):
        prunecli.analyze(model, example(spec), signals=["l1"])
    tuned = prunecli.finetune(
        model, "digits", input=spec, options=FinetuneOptions(epochs=3), epochs=1, limit=64,
        batch_size=32,
    )  # fmt: skip
    assert len(tuned.epochs) == 1
