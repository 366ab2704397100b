"""What a file changes of an architecture is built from plain data, in bounds, or refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from prunecli.architectures.changes import KINDS
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import Checkpoint, load, save
from prunecli.errors import InputError

LINEAR = {"layer": "linear", "inputs": 64, "outputs": 7}
INPUT = InputSpec(1, 32, 32, (0.5,), (0.5,))


def changed(**changes):
    return ArchitectureRef("cifar_resnet20", {}, changes)


def test_a_change_is_built_where_it_is_said():
    reference = changed(
        conv1={
            "layer": "convolution",
            "inputs": 1,
            "kernel": [5, 5],
            "stride": 2,
            "padding": [2, 2],
        },
        linear=[{"layer": "dropout"}, LINEAR, {"layer": "relu"}],
    )
    module = build_dense(reference, device="cpu")
    conv = module.conv1
    assert (conv.in_channels, conv.kernel_size, conv.stride, conv.padding) == (
        1,
        (5, 5),
        (2, 2),
        (2, 2),
    )
    assert [type(layer) for layer in module.linear] == [nn.Dropout, nn.Linear, nn.ReLU]
    assert not module.training
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_nothing_is_drawn_for_a_change_and_on_meta_nothing_allocated():
    wide = {**LINEAR, "outputs": 2**20}
    module = build_dense(changed(linear=wide))
    assert module.linear.weight.is_meta
    state = torch.random.get_rng_state()
    build_dense(changed(linear=LINEAR), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_layers_that_stood_there_can_stay():
    layers = [{"layer": "own", "index": 0}, {"layer": "identity"}]
    module = build_dense(ArchitectureRef("vgg11", {}, {"classifier": layers}))
    assert [type(layer) for layer in module.classifier] == [nn.Linear, nn.Identity]


def test_an_artefact_with_changes_needs_no_word_to_be_built_again(tmp_path):
    reference = changed(conv1={"layer": "convolution", "inputs": 1}, linear=[LINEAR])
    state = build_dense(reference, device="cpu").state_dict()
    save(Checkpoint(reference, state, INPUT), tmp_path / "m.pt")
    found = load(tmp_path / "m.pt").checkpoint
    assert found.architecture == reference
    assert json.loads(json.dumps(found.architecture.to_json())) == reference.to_json()
    assert instantiate(found).linear[0].out_features == 7


def test_a_reference_without_changes_is_written_as_before():
    assert ArchitectureRef("resnet18", {"num_classes": 7}).to_json() == {
        "name": "resnet18",
        "kwargs": {"num_classes": 7},
    }


HOSTILE = {
    "unknown layer": {"linear": {"layer": "os:system"}},
    "no layer": {"linear": {}},
    "no description": {"linear": "relu"},
    "number": {"linear": 7},
    "no layers": {"linear": []},
    "many layers": {"linear": [{"layer": "relu"}] * 65},
    "nested": {"linear": [[{"layer": "relu"}]]},
    "argument": {"linear": {**LINEAR, "device": "cuda"}},
    "missing": {"linear": {"layer": "linear", "inputs": 64}},
    "text": {"linear": {**LINEAR, "outputs": "7"}},
    "yes": {"linear": {**LINEAR, "outputs": True}},
    "too wide": {"linear": {**LINEAR, "outputs": 2**21}},
    "too large": {"linear": {**LINEAR, "inputs": 2**20, "outputs": 2**20}},
    "kernel": {"conv1": {"layer": "convolution", "kernel": [10**6, 10**6]}},
    "large kernel": {"conv1": {"layer": "convolution", "inputs": 4096, "kernel": [64, 64]}},
    "one extent": {"conv1": {"layer": "convolution", "inputs": 4096, "kernel": 64}},
    "empty extent": {"conv1": {"layer": "convolution", "kernel": []}},
    "no convolution": {"linear": {"layer": "convolution", "inputs": 1}},
    "own alone": {"linear": {"layer": "own", "index": 0}},
    "own of nothing": {"linear": [{"layer": "own", "index": 3}]},
    "no place": {"head": LINEAR},
    "attribute": {"__class__": LINEAR},
    "method": {"forward": LINEAR},
    "itself": {"": LINEAR},
    "path": {"../x": LINEAR},
    "long": {"a" * 65: LINEAR},
    "many": {f"layer{at}": LINEAR for at in range(9)},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_other_change_is_refused(changes):
    with pytest.raises(InputError) as caught:
        build_dense(changed(**changes))
    assert caught.value.code == "CHANGE_REFUSED"


@pytest.mark.parametrize("kind", KINDS)
def test_no_layer_takes_a_word(kind):
    taken = {**KINDS[kind].needs, **KINDS[kind].takes}
    assert not any(argument.fits(word) for argument in taken.values() for word in ("x", {}, None))


def test_own_code_is_not_changed(tmp_path):
    with pytest.raises(InputError, match="own code") as caught:
        build_dense(ArchitectureRef("torch.nn:Identity", {}, {"linear": LINEAR}))
    assert caught.value.code == "CHANGE_REFUSED"
