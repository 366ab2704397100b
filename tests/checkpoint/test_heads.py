"""A known backbone with another head is read as what it was saved from."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import prunecli
from prunecli.architectures.changes import KINDS
from prunecli.architectures.changing import MAKERS
from prunecli.checkpoint import Selection, load
from prunecli.checkpoint.heads import read_head
from prunecli.errors import InputError
from prunecli.options.load import HEAD_ACTIVATIONS
from tests.support.checkpoints import assert_is_read_as, prefixed, trained

models = torchvision.models


class Wrapped(nn.Module):
    """A backbone and a head as attributes of one module."""

    def __init__(self, backbone, head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x):
        return self.head(self.backbone(x))


def resnet(head) -> nn.Module:
    model = models.resnet18()
    model.fc = head
    return model


def mobilenet(place, head) -> nn.Module:
    model = models.mobilenet_v3_small()
    if place is None:
        model.classifier = head
    else:
        model.classifier[place] = head
    return model


def vgg(**changes) -> nn.Module:
    model = models.vgg11_bn()
    for name, part in changes.items():
        setattr(model, name, part)
    return model


def mlp(inputs, *, between=()):
    return nn.Sequential(nn.Linear(inputs, 8), *between, nn.ReLU(), nn.Linear(8, 7))


HEADS = {
    "dropout and linear": lambda: resnet(nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 7))),
    "no bias": lambda: resnet(nn.Linear(512, 7, bias=False)),
    "mlp": lambda: resnet(nn.Sequential(nn.Dropout(), mlp(512))),
    "mlp with norm": lambda: resnet(mlp(512, between=(nn.BatchNorm1d(8),))),
    "norm first": lambda: resnet(nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 7))),
    "layer norm": lambda: resnet(nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 7))),
    "no head": lambda: resnet(nn.Identity()),
    "last layer of several": lambda: mobilenet(3, mlp(1024)),
    "all of several": lambda: mobilenet(None, mlp(576)),
    "appended": lambda: mobilenet(
        None, nn.Sequential(*list(models.mobilenet_v3_small().classifier), nn.ReLU(), mlp(1000))
    ),
    "wrapped": lambda: Wrapped(resnet(nn.Identity()), nn.Linear(512, 7)),
    "wrapped mlp": lambda: Wrapped(mobilenet(None, nn.Identity()), mlp(576)),
    "children": lambda: nn.Sequential(*list(models.resnet18().children())[:-1], nn.Flatten()),
    "vgg for small images": lambda: vgg(
        avgpool=nn.AdaptiveAvgPool2d(1), classifier=nn.Linear(512, 10)
    ),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS.keys())
def test_a_network_with_another_head_computes_what_was_saved(make, tmp_path):
    model = trained(make())
    torch.save(model.state_dict(), tmp_path / "m.pt")
    loaded = assert_is_read_as(tmp_path / "m.pt", model, size=64)
    assert loaded.checkpoint.architecture.changes


@pytest.mark.parametrize("kind", ["convnext_tiny", "swin_t", "vit_b_16"])
def test_so_do_transformers_and_what_is_made_like_them(kind, tmp_path):
    model = getattr(models, kind)()
    place = {"convnext_tiny": "classifier.2", "swin_t": "head", "vit_b_16": "heads.head"}[kind]
    holder, _, leaf = place.rpartition(".")
    setattr(model.get_submodule(holder), leaf, mlp(768))
    model = trained(model)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert_is_read_as(tmp_path / "m.pt", model, size=None if kind == "vit_b_16" else 64)


def warnings_of(path):
    return " | ".join(load(path).warnings)


def test_what_the_weights_do_not_show_is_said(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(HEADS["mlp"]().state_dict(), path)
    assert "fc.*: the activation between its layers is taken as ReLU" in warnings_of(path)
    torch.save(HEADS["dropout and linear"]().state_dict(), path)
    assert "taken as a dropout" in warnings_of(path)
    torch.save(HEADS["no head"]().state_dict(), path)
    assert "gives 512 features, no classes" in warnings_of(path)
    torch.save(HEADS["wrapped"]().state_dict(), path)
    assert "head.*: taken as its head" in warnings_of(path)
    torch.save(HEADS["children"]().state_dict(), path)
    assert "the children of resnet18" in warnings_of(path)


@pytest.mark.parametrize("kind", [k for k in HEAD_ACTIVATIONS if k != "relu"])
def test_another_activation_is_built_where_somebody_says_it(kind, tmp_path):
    layer = MAKERS[kind](None)
    head = nn.Sequential(nn.Linear(576, 8), layer, nn.Linear(8, 7))
    model = trained(mobilenet(None, head))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    said = Selection(activation=kind)
    loaded = assert_is_read_as(tmp_path / "m.pt", model, size=64, selection=said)
    assert not any("activation" in warning for warning in loaded.warnings)


def test_an_activation_without_a_place_and_one_of_no_name_are_errors(tmp_path):
    torch.save(HEADS["no bias"]().state_dict(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="has no effect"):
        prunecli.load(tmp_path / "m.pt", head_activation="gelu")
    with pytest.raises(InputError, match="unknown activation 'glue'"):
        prunecli.load(tmp_path / "m.pt", head_activation="glue")


def test_every_activation_that_can_be_said_can_be_built():
    assert set(HEAD_ACTIVATIONS) < set(KINDS) == set(MAKERS)


def test_the_reference_says_in_one_line_what_is_other(tmp_path):
    torch.save(HEADS["mlp"]().state_dict(), tmp_path / "m.pt")
    told = str(load(tmp_path / "m.pt").checkpoint.architecture)
    assert told.startswith("resnet18 with fc: ")
    assert "linear(inputs=8, outputs=7)" in told
    assert "\n" not in told


def test_several_possible_heads_are_asked_for(tmp_path):
    body = HEADS["no head"]().state_dict()
    heads = {"a.weight": torch.randn(7, 512), "b.weight": torch.randn(3, 512)}
    torch.save({**prefixed("encoder.", body), **heads}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="any of a, b may be the head") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_HEAD"
    assert caught.value.where == str(tmp_path / "m.pt")
    assert "--map a=encoder.fc" in caught.value.hint
    assert "--ignore 'b.*'" in caught.value.hint
    chosen = prunecli.load(tmp_path / "m.pt", ignore="b.*")
    assert torch.equal(chosen.fc.weight, heads["a.weight"])
    chosen = prunecli.load(tmp_path / "m.pt", map={"b": "encoder.fc"})
    assert torch.equal(chosen.fc.weight, heads["b.weight"])


def test_a_projection_head_is_left_out_and_said(tmp_path):
    body = prefixed("backbone.", HEADS["no head"]().state_dict())
    projection = prefixed("projection_head.", mlp(512).state_dict())
    torch.save({**body, **projection}, tmp_path / "m.pt")
    loaded = load(tmp_path / "m.pt")
    assert "left out, as no part of resnet18: projection_head.* (4 tensors)" in loaded.warnings
    assert not any("projection" in name for name in loaded.checkpoint.tensors)


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight": (7, 511)},
        {"weight": (7, 512), "bias": (8,)},
        {"0.weight": (8, 512), "2.weight": (7, 9)},
        {"0.weight": (7, 512, 3, 3)},
        {"weight": (512,), "bias": (512,)},
        {"weight": (7, 512), "1.weight": (7, 7)},
        {"weight": (7, 512), "scale": (7,)},
    ],
)
def test_what_is_no_chain_of_layers_is_no_head(shapes):
    assert read_head(shapes, 512) is None
