"""What training scripts wrap around a state dict is undone, and reported where it matters."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunecli.architectures.registry import build_dense
from prunecli.checkpoint import load
from prunecli.checkpoint.state_dict import spellings
from prunecli.errors import InputError


@pytest.fixture
def tensors(make_checkpoint):
    return dict(make_checkpoint("digits_resnet").tensors)


def prefixed(tensors, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


def assert_is_digits_resnet(path, tensors):
    loaded = load(path)
    assert loaded.checkpoint.architecture.name == "digits_resnet"
    assert loaded.checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in loaded.checkpoint.tensors.items():
        assert torch.equal(tensor, tensors[name])
    return loaded


WRAPPERS = {
    "bare": lambda t: t,
    "state_dict": lambda t: {"epoch": 3, "best_acc1": 0.9, "state_dict": t},
    "model": lambda t: {"model": t, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model_state_dict": lambda t: {"model_state_dict": t, "loss": torch.tensor(0.1)},
    "net": lambda t: {"net": t, "acc": 93.1, "epoch": 1},
    "ema": lambda t: {"ema": t, "updates": 100},
    "state_dict_ema": lambda t: {"state_dict_ema": t},
    "with arguments": lambda t: {"model": t, "args": Namespace(lr=0.1, data="/imagenet")},
    "nested": lambda t: {"model": {"state_dict": t}, "args": {"lr": 0.1}},
    "unknown name": lambda t: {"student": t, "epoch": 1},
    "lightning": lambda t: {"state_dict": prefixed(t, "model."), "hyper_parameters": {"lr": 1}},
    "lightning net": lambda t: {"state_dict": prefixed(t, "net.")},
    "parameters": lambda t: {
        n: nn.Parameter(v, requires_grad=v.is_floating_point()) for n, v in t.items()
    },
}
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.model._orig_mod.",
    "module.module.",
    "backbone.",
)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_wrapped_state_dict_is_found(wrap, tmp_path, tensors):
    torch.save(wrap(tensors), tmp_path / "m.pt")
    assert assert_is_digits_resnet(tmp_path / "m.pt", tensors).warnings == ()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_prefixes_are_stripped(prefix, legacy, tmp_path, tensors):
    path = tmp_path / "m.th"
    torch.save(prefixed(tensors, prefix), path, _use_new_zipfile_serialization=not legacy)
    assert_is_digits_resnet(path, tensors)


def test_safetensors_of_others_are_read(tmp_path, tensors):
    from safetensors.torch import save_file

    save_file(prefixed(tensors, "module."), tmp_path / "m.safetensors", metadata={"format": "pt"})
    assert_is_digits_resnet(tmp_path / "m.safetensors", tensors)


def test_a_real_averaged_model_is_read(tmp_path, tensors, make_checkpoint):
    module = build_dense(make_checkpoint("digits_resnet").architecture, device="cpu")
    module.load_state_dict(tensors)
    torch.save({"model_ema": AveragedModel(module).state_dict()}, tmp_path / "m.pt")
    assert_is_digits_resnet(tmp_path / "m.pt", tensors)


def test_a_real_data_parallel_model_is_read(tmp_path, tensors, make_checkpoint):
    module = build_dense(make_checkpoint("digits_resnet").architecture, device="cpu")
    module.load_state_dict(tensors)
    torch.save(nn.DataParallel(module).state_dict(), tmp_path / "m.pt")
    assert_is_digits_resnet(tmp_path / "m.pt", tensors)


def test_names_inside_a_compiled_part_are_cleaned(tmp_path, tensors):
    renamed = {name.replace("layer2.0.", "layer2.0._orig_mod."): t for name, t in tensors.items()}
    torch.save(renamed, tmp_path / "m.pt")
    assert_is_digits_resnet(tmp_path / "m.pt", tensors)


def test_of_two_sets_of_weights_the_other_is_reported(tmp_path, tensors):
    ema = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    torch.save({"model_ema": ema, "state_dict": tensors}, tmp_path / "m.pt")
    (warning,) = assert_is_digits_resnet(tmp_path / "m.pt", tensors).warnings
    assert "'state_dict' were taken" in warning
    assert "'model_ema'" in warning


@pytest.mark.parametrize(
    "beside",
    [{"step": torch.tensor(3)}, {"temperature": torch.ones(1)}, {"queue": torch.ones(4, 8)}],
)
def test_tensors_beside_a_set_of_unknown_name_do_not_hide_it(beside, tmp_path, tensors):
    torch.save({"net_g": tensors, **beside}, tmp_path / "m.pt")
    loaded = assert_is_digits_resnet(tmp_path / "m.pt", tensors)
    told = " ".join(loaded.warnings)
    assert all((name in told) == (value.numel() > 1) for name, value in beside.items())


def test_of_two_sets_of_unknown_names_one_is_asked_for(tmp_path, tensors):
    sets = {"online": prefixed(tensors, "encoder."), "target": prefixed(tensors, "m.encoder.")}
    torch.save({**sets, "step": torch.tensor(3)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"online\.encoder") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_WEIGHTS"
    found = load(tmp_path / "m.pt", weights="target").checkpoint
    assert found.tensors.keys() == tensors.keys()


def test_missing_batch_counters_are_added(tmp_path, tensors):
    old = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    assert len(old) < len(tensors)
    torch.save(old, tmp_path / "m.pt")
    found = load(tmp_path / "m.pt").checkpoint
    assert found.tensors.keys() == tensors.keys()
    assert list(found.tensors) == list(tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_with_a_note(dtype, tmp_path, tensors):
    other = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    torch.save(other, tmp_path / "m.pt")
    loaded = load(tmp_path / "m.pt")
    kinds = {t.dtype for t in loaded.checkpoint.tensors.values()}
    assert kinds == {torch.float32, torch.int64}
    assert str(dtype).removeprefix("torch.") in loaded.warnings[0]


def test_the_old_names_of_torchvision_densenets_are_understood():
    names = {"features.denseblock1.denselayer1.norm.1.weight": torch.zeros(1)}
    assert "features.denseblock1.denselayer1.norm1.weight" in list(spellings(names))[1]


def test_accuracies_are_numbers_only(tmp_path, tensors):
    extras = {
        "best_prec1": torch.tensor(91.5),
        "acc": 0.5,
        "top1": 88,
        "accuracies": [1, 2],
        "best_acc": True,
        "epoch": 7,
        "accumulate": 4,
    }
    torch.save({**extras, "state_dict": tensors}, tmp_path / "m.pt")
    metadata = load(tmp_path / "m.pt").checkpoint.metadata
    assert metadata["claimed_accuracy"] == {"best_prec1": 91.5, "acc": 0.5, "top1": 88.0}
    assert metadata["source"]["place"] == "state_dict"


def test_numpy_numbers_beside_the_weights_are_data(tmp_path, make_checkpoint):
    path = tmp_path / "trained.pt"
    state = dict(make_checkpoint("digits_vgg").tensors)
    torch.save({"state_dict": state, "best_acc": np.float64(0.91), "step": np.int64(7)}, path)
    assert load(path).checkpoint.architecture.name == "digits_vgg"
