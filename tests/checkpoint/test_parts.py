"""What lies beside a model is left out and said, and where a person must choose it is asked."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import prunecli
from prunecli.checkpoint import Selection, load
from prunecli.errors import InputError
from tests.support.checkpoints import assert_is_read_as, prefixed, trained


@pytest.fixture(scope="module")
def model():
    return trained(torchvision.models.mobilenet_v3_small(num_classes=7))


@pytest.fixture(scope="module")
def other():
    return trained(torchvision.models.resnet18(num_classes=7))


LOSSES = {
    "criterion.weight": torch.ones(7),
    "val_acc.tp": torch.zeros(7),
    "queue": torch.ones(3, 9),
}


@pytest.mark.parametrize("prefix", ["", "model.", "module.net._orig_mod.", "encoder_q.0."])
def test_losses_and_metrics_beside_a_model_are_left_out_in_one_line(prefix, model, tmp_path):
    torch.save({**prefixed(prefix, model.state_dict()), **LOSSES}, tmp_path / "m.pt")
    (warning,) = assert_is_read_as(tmp_path / "m.pt", model, size=64).warnings
    assert warning == (
        "left out, as no part of mobilenet_v3_small: criterion.* (1 tensor), val_acc.* (1 tensor), "
        "queue"
    )


def test_a_teacher_of_another_architecture_is_left_out(model, other, tmp_path):
    both = {**prefixed("model.", model.state_dict()), **prefixed("teacher.", other.state_dict())}
    torch.save(both, tmp_path / "m.pt")
    (warning,) = assert_is_read_as(tmp_path / "m.pt", model, size=64).warnings
    assert "teacher.*" in warning


def noise_like(tensors):
    return {k: v + 1 if v.is_floating_point() else v for k, v in tensors.items()}


@pytest.mark.parametrize("nested", [False, True], ids=["names", "dicts"])
def test_two_models_of_one_architecture_are_asked_for(nested, model, tmp_path):
    student, teacher = model.state_dict(), noise_like(model.state_dict())
    flat = {**prefixed("student.", student), **prefixed("teacher.", teacher)}
    value = {"student": student, "teacher": teacher, "epoch": 3} if nested else flat
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"student \(mobilenet_v3_small\), teacher") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_WEIGHTS"
    assert caught.value.hint.endswith("--prefix student or --prefix teacher")
    assert_is_read_as(tmp_path / "m.pt", model, size=64, selection=Selection("student"))
    found = prunecli.load(tmp_path / "m.pt", prefix="teacher").state_dict()
    assert all(torch.equal(found[name], teacher[name]) for name in teacher)
    ignored = prunecli.load(tmp_path / "m.pt", ignore=["teacher.*"]).state_dict()
    assert all(torch.equal(ignored[name], student[name]) for name in student)
    if nested:
        chosen = prunecli.load(tmp_path / "m.pt", weights="teacher").state_dict()
        assert all(torch.equal(chosen[name], teacher[name]) for name in teacher)


def test_two_different_models_are_asked_for_too(model, other, tmp_path):
    both = {**prefixed("g.", model.state_dict()), **prefixed("d.", other.state_dict())}
    torch.save(both, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"g \(mobilenet_v3_small\), d \(resnet18\)") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_WEIGHTS"
    assert load(tmp_path / "m.pt", architecture="resnet18").checkpoint.tensors


def test_a_backbone_is_not_taken_for_the_whole_model(other, tmp_path):
    body = {name: t for name, t in other.state_dict().items() if not name.startswith("fc.")}
    decoder = {"decoder.0.weight": torch.randn(8, 512, 3, 3), "decoder.0.bias": torch.randn(8)}
    torch.save({**prefixed("encoder.", body), **decoder}, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"only a part .* decoder\.\* \(2 tensors\)") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "PART_OF_MODEL"
    for way in ("--prefix encoder", "--ignore 'decoder.*'", "--arch package.module:function"):
        assert way in caught.value.hint
    features = prunecli.load(tmp_path / "m.pt", prefix="encoder")
    assert features(torch.zeros(1, 3, 64, 64)).shape == (1, 512)
    assert prunecli.load(tmp_path / "m.pt", ignore="decoder.*").conv1.weight.shape[0] == 64


def test_the_second_set_of_weights_is_there_for_the_asking(model, tmp_path):
    average = noise_like(model.state_dict())
    inner = {"state_dict": prefixed("module.", average), "decay": 0.9}
    torch.save({"model": model.state_dict(), "ema": inner, "epoch": 3}, tmp_path / "m.pt")
    (warning,) = load(tmp_path / "m.pt").warnings
    assert "--weights ema takes those" in warning
    for name in ("ema", "ema.state_dict"):
        loaded = load(tmp_path / "m.pt", weights=name)
        assert loaded.checkpoint.metadata["source"]["place"] == "ema.state_dict"
        assert torch.equal(
            loaded.checkpoint.tensors["classifier.3.bias"], average["classifier.3.bias"]
        )
    with pytest.raises(InputError, match="no weights under 'emma'") as caught:
        load(tmp_path / "m.pt", weights="emma")
    assert caught.value.code == "NO_SUCH_WEIGHTS"
    assert "model, ema" in caught.value.hint


def test_weights_without_a_name_say_so(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt", weights="ema")
    assert "leave --weights out" in caught.value.hint


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"prefix": "modle"}, "--prefix modle"),
        ({"ignore": "critreion.*"}, "--ignore critreion.*"),
        ({"map": {"head": "fc"}}, "--map head=fc"),
        ({"prefix": "model.feat"}, "--prefix model.feat"),
    ],
)
def test_a_word_that_no_name_follows_is_an_error_that_says_what_is_there(
    choice, told, model, tmp_path
):
    torch.save({**prefixed("model.", model.state_dict()), **LOSSES}, tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        prunecli.load(tmp_path / "m.pt", **choice)
    assert caught.value.code == "NO_SUCH_TENSORS"
    assert caught.value.message.startswith(told)
    assert "criterion.* (1 tensor)" in caught.value.hint


def test_names_below_a_common_beginning_are_shown(model, tmp_path):
    torch.save(prefixed("model.", model.state_dict()), tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        prunecli.load(tmp_path / "m.pt", prefix="body")
    assert "model.features.* (" in caught.value.hint


def test_renaming_over_another_tensor_is_refused(model, tmp_path):
    state = {**model.state_dict(), "bias": torch.zeros(7)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"would be called classifier\.3\.bias") as caught:
        prunecli.load(tmp_path / "m.pt", map={"bias": "classifier.3.bias"})
    assert caught.value.code == "RENAMED_TWICE"


def test_a_renamed_part_is_read(model, tmp_path):
    names = {k.replace("features.", "stages.", 1): v for k, v in model.state_dict().items()}
    torch.save(names, tmp_path / "m.pt")
    renamed = Selection(renamed={"stages": "features"})
    assert_is_read_as(tmp_path / "m.pt", model, size=64, selection=renamed)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)


def test_what_lies_beside_own_code_is_left_out_too(tmp_path, monkeypatch):
    state = prefixed("model.", Net().state_dict())
    torch.save({**state, "loss.weight": torch.ones(2)}, tmp_path / "m.pt")
    loaded = load(tmp_path / "m.pt", architecture=f"{__name__}:Net", input_size=(8, 8))
    assert any("loss.* (1 tensor)" in warning for warning in loaded.warnings)
    assert loaded.checkpoint.tensors.keys() == Net().state_dict().keys()
