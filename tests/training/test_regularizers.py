"""Regularisers by name: what they act on, what they refuse before the work, and leave no trace."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch import nn

import prunecli
from prunecli import data, verbs
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.errors import InputError
from prunecli.network.traced import read_network
from prunecli.options import FinetuneOptions, PruneOptions
from prunecli.training import REGULARIZERS, finetune
from prunecli.training.method import PlainMethod
from prunecli.training.regularizers import check_regularizer
from prunecli.training.regularizers.layers import (
    convolutions,
    ends_of_convolutions,
    linear_layers,
    linear_without_module,
)
from prunecli.training.regularizers.registry import LARGEST_MASK
from prunecli.training.state import STATE_FILE
from tests.support.training import GREY, SHORT, make_net, same

QUICK = dataclasses.replace(SHORT, epochs=1)
COLOUR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def digits() -> data.DataSource:
    return data.open_source("digits")


def of(name: str | None, **changes) -> FinetuneOptions:
    return dataclasses.replace(QUICK, regularizer=name, **changes)


def attention_net() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.TransformerEncoderLayer(16, 2, 32), nn.Linear(16, 10)
    )


# --- which layers ---------------------------------------------------------------------------------


def test_every_convolution_of_a_residual_network_ends_in_its_batch_norm():
    model = build_dense(ArchitectureRef("cifar_resnet20", {"num_classes": 10}), device="cpu")
    modules = dict(model.named_modules())
    found = ends_of_convolutions(model, COLOUR)
    assert len(found) == 19
    for weight, norm in found.items():
        expected = weight.removesuffix(".weight").replace("conv", "bn")
        assert norm is modules[expected], weight
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in modules.values()
    )


def test_one_by_one_transposed_and_frozen_layers_are_left_alone():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 5)
    )
    assert list(convolutions(model)) == ["0.weight", "3.weight"]
    model[0].requires_grad_(requires_grad=False)
    assert list(convolutions(model)) == ["3.weight"]
    model.requires_grad_(requires_grad=False)  # wholly frozen: it will be thawed
    assert list(convolutions(model)) == ["0.weight", "3.weight"]
    assert ends_of_convolutions(model, GREY)["3.weight"] is model[3]


def test_a_network_that_is_a_graph_has_the_layers_of_its_module():
    model = make_net().eval()
    network = read_network(model, [torch.zeros(1, 1, 8, 8)])
    graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    assert list(convolutions(graph)) == list(convolutions(model)) == ["0.weight", "3.weight"]
    ends = ends_of_convolutions(graph, GREY)
    assert [id(ends[name]) for name in ends] == [id(graph.get_submodule(n)) for n in ("1", "4")]
    assert linear_layers(graph) == {}
    assert linear_without_module(graph) == ("8.weight",)


def test_linear_layers_are_those_whose_module_runs():
    found = set(linear_layers(attention_net()))
    assert found == {"1.weight", "2.linear1.weight", "2.linear2.weight", "3.weight"}
    (warning,) = check_regularizer(of("bridgeout-linear"), attention_net())
    assert "leaves out 1 of 5 layers" in warning
    assert "2.self_attn.out_proj.weight" in warning


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_is_that_of_modules_behind_the_activations(digits):
    plain, layers = make_net(), []
    for layer in make_net():
        layers += [layer, nn.Dropout(0.4)] if isinstance(layer, nn.ReLU) else [layer]
    told = finetune(plain, digits, input=GREY, options=of("dropout", p=0.4, epochs=2))
    built = finetune(nn.Sequential(*layers), digits, input=GREY, options=of(None, epochs=2))
    values = zip(told.model.state_dict().values(), built.model.state_dict().values(), strict=True)
    for one, two in values:
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    without = finetune(plain, digits, input=GREY, options=of(None, epochs=2)).model
    assert (told.model[3].weight - without[3].weight).abs().max() > 1e-3
    assert told.held_out_after.accuracy == built.held_out_after.accuracy


# --- nothing is left behind -----------------------------------------------------------------------


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_regularizer_trains_otherwise_repeats_itself_and_leaves_no_hook(digits, name):
    first, again = (finetune(make_net(), digits, input=GREY, options=of(name)) for _ in range(2))
    plain = finetune(make_net(), digits, input=GREY, options=of(None))
    assert same(first.model, again.model)
    assert not same(first.model, plain.model)
    assert first.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not any(module._forward_hooks for module in first.model.modules())
    assert first.epochs[0].facts == {}


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_what_is_scored_is_the_network_that_is_given_back(digits, name):
    from prunecli.evaluation.images import evaluate

    result = finetune(make_net(), digits, input=GREY, options=of(name))
    held_out = data.load_split(digits, "held_out", input=GREY, limit=256)
    again = evaluate(result.model, held_out, input=GREY)
    assert again.loss == pytest.approx(result.epochs[0].loss, rel=1e-5)


def test_the_artefact_is_as_one_without(digits_checkpoint, tmp_path):
    files = {}
    for name in (None, "bridgeout"):
        files[name] = tmp_path / f"{name}.pt"
        verbs.finetune(digits_checkpoint, data="digits", output=files[name], options=of(name))
    plain, noisy = (read(file).checkpoint for file in files.values())
    assert plain.tensors.keys() == noisy.tensors.keys()
    assert (plain.plan, plain.masks, plain.architecture) == (
        noisy.plan, noisy.masks, noisy.architecture
    )  # fmt: skip
    assert plain.metadata.keys() == noisy.metadata.keys()
    assert any(not torch.equal(value, noisy.tensors[key]) for key, value in plain.tensors.items())


# --- what is refused ------------------------------------------------------------------------------


def refused(model: nn.Module, options: FinetuneOptions, digits, **arguments) -> InputError:
    with pytest.raises(InputError) as caught:
        finetune(model, digits, input=GREY, options=options, **arguments)
    assert caught.value.hint
    return caught.value


def linear_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def convolutional_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())


def test_a_network_without_a_layer_to_act_on_is_refused_with_what_would_act(digits):
    for name in ("bridgeout", "dropout"):
        error = refused(linear_net(), of(name), digits)
        assert error.code == "NO_SUCH_LAYER"
        assert "--regularizer bridgeout-linear" in error.hint
    error = refused(convolutional_net(), of("bridgeout-linear"), digits)
    assert "--regularizer bridgeout," in error.hint
    error = refused(convolutional_net(), of("bridgeout"), digits)  # one kernel per filter
    assert "1 are left out" in str(error)
    assert "--target-fraction 1" in error.hint
    finetune(convolutional_net(), digits, input=GREY, options=of("bridgeout", target_fraction=1.0))


def test_layers_that_the_fraction_leaves_out_are_counted(digits):
    result = finetune(make_net(), digits, input=GREY, options=of("bridgeout"))
    (warning,) = result.warnings
    assert "leaves out 1 of 2 layers" in warning
    assert "0.weight" in warning
    whole = finetune(make_net(), digits, input=GREY, options=of("bridgeout", target_fraction=1.0))
    assert whole.warnings == ()


def test_zeros_and_other_methods_are_not_trained_with_noise(digits, tmp_path):
    masks = {"3.weight": torch.ones(16, 16, 3, 3, dtype=torch.bool)}
    assert refused(make_net(), of("bridgeout"), digits, masks=masks).code == "BAD_OPTION"
    error = refused(make_net(), of("bridgeout", sparsity=0.5), digits)
    assert "--sparsity and --regularizer bridgeout cannot be combined" in str(error)
    error = refused(make_net(), of("dropout"), digits, method=PlainMethod())
    assert error.code == "BAD_OPTION"
    with pytest.raises(InputError, match="cannot be combined"):  # before any file is read
        verbs.finetune(tmp_path / "no.pt", data="no", options=of("dropout", sparsity=0.5))


def test_a_sparse_artefact_is_refused_before_any_image_is_read(
    digits_checkpoint, tmp_path, monkeypatch
):
    sparse = tmp_path / "sparse.pt"
    verbs.prune(
        digits_checkpoint, output=sparse, budget=make_budget(sparsity=0.5),
        options=PruneOptions(granularity="weight"),
    )  # fmt: skip
    monkeypatch.setattr(
        sys.modules["prunecli.verbs.finetune"], "load_split",
        lambda *_a, **_k: pytest.fail("images were read"),
    )  # fmt: skip
    with pytest.raises(InputError, match="does not keep the zeros"):
        verbs.finetune(sparse, data="digits", output=tmp_path / "out.pt", options=of("bridgeout"))


def test_masks_beyond_memory_are_refused_with_a_batch_size_that_fits():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(4096, 1024, device="meta"))
    with pytest.raises(InputError, match=r"2\.0 GiB for 1\.weight") as caught:
        check_regularizer(of("bridgeout-linear", batch_size=128), wide)
    fitting = int(caught.value.hint.rpartition(" ")[2])
    assert fitting * 4096 * 1024 == LARGEST_MASK
    check_regularizer(of("bridgeout-linear", batch_size=fitting), wide)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"p": 0.5}, "--p has no effect without --regularizer"),
        ({"q": 1.0}, "--q has no effect without --regularizer"),
        ({"regularizer": "dropout", "q": 1.0}, "--q has no effect with --regularizer dropout"),
        (
            {"regularizer": "dropout", "target_fraction": 1.0},
            "--target-fraction has no effect with --regularizer dropout",
        ),
    ],
)
def test_options_that_the_regularizer_does_not_follow_are_refused(choices, said):
    with pytest.raises(InputError, match=said):
        prunecli.finetune(make_net(), "digits", input=GREY, **choices)


def test_an_unknown_regularizer_is_refused_with_the_known_ones(digits):
    error = refused(make_net(), of("bridgout"), digits)
    assert error.code == "UNKNOWN_REGULARIZER"
    assert "did you mean 'bridgeout'" in error.hint


def test_a_run_from_before_there_were_regularizers_goes_on(digits, tmp_path):
    arguments = {"input": GREY, "options": QUICK, "run_dir": tmp_path}
    finetune(make_net(), digits, **arguments)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    for name in ("regularizer", "p", "q", "target_fraction"):
        del state["settings"][name]
    torch.save(state, tmp_path / STATE_FILE)
    assert finetune(make_net(), digits, resume=True, **arguments).warnings == ()
