"""A new classifier on a trained network: what is put where, what is trained when, and how fast."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import prunecli
from prunecli import data
from prunecli.errors import InputError
from prunecli.options import FinetuneOptions
from prunecli.training import check_options, finetune
from prunecli.training.new_head import head_of, with_new_head
from prunecli.training.transfer import HeadFirst, rates_of
from prunecli.verbs.finetune import finetune as finetune_file
from tests.support.image_folders import write_three_digits
from tests.support.samples import VGG
from tests.support.training import GREY, QUICK, StopError, make_net, same, stop_at

SHORT = dataclasses.replace(QUICK, batch_size=32, epochs=3, new_head=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Return a folder of digits of three classes."""
    return write_three_digits(tmp_path_factory.mktemp("three"))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("vit_b_32", "heads.head"),
        ("timm/tf_efficientnet_lite0", "classifier"),
        ("timm/convnext_atto", "head.fc"),
    ],
)
def test_the_classifier_is_found_and_replaced(make, path):
    import timm
    import torchvision

    name = make.removeprefix("timm/")
    model = (timm.create_model(name) if name != make else torchvision.models.get_model(name)).eval()
    size = 224 if name.startswith("vit") else 64
    spec = dataclasses.replace(RGB, height=size, width=size)
    assert head_of(model, spec) == path
    changed, found = with_new_head(model, spec, classes=7, seed=0)
    assert found == path
    with torch.no_grad():
        assert changed(torch.zeros(2, *spec.shape)).shape == (2, 7)
        assert model(torch.zeros(1, *spec.shape)).shape == (1, 1000)
    before, after = model.state_dict(), changed.state_dict()
    assert list(before) == list(after)
    assert all(
        torch.equal(after[key], value) for key, value in before.items()
        if not key.startswith(f"{path}.")
    )  # fmt: skip


RGB = dataclasses.replace(GREY, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


class Halved(nn.Module):
    """Ends in no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = make_net()

    def forward(self, images):
        return self.body(images) / 2


def test_a_network_that_ends_in_no_linear_layer_is_told():
    with pytest.raises(InputError, match="does not end in a linear layer") as caught:
        with_new_head(Halved(), GREY, classes=3, seed=0)
    assert caught.value.code == "NO_HEAD"


def test_the_same_seed_draws_the_same_head_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    one, _ = with_new_head(make_net(), GREY, classes=3, seed=1)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    make_net()  # what made the first one seeds the generator
    assert torch.equal(drawn, torch.rand(3))
    assert same(one, with_new_head(make_net(), GREY, classes=3, seed=1)[0])
    assert not same(one, with_new_head(make_net(), GREY, classes=3, seed=2)[0])


class Watched(HeadFirst):
    """Keeps what the network is after every round."""

    def after_round(self, run, report):
        self.kept = [*getattr(self, "kept", []), {
            name: value.clone() for name, value in run.bare.state_dict().items()
        }]  # fmt: skip
        self.rates = [
            (group["lr"], group.get("lr_scale", 1.0)) for group in run.optimizer.param_groups
        ]
        return super().after_round(run, report)


@pytest.fixture(scope="module")
def watched(three):
    model, head = with_new_head(make_net(), GREY, classes=3, seed=0)
    method = Watched(head, epochs=1, first_rate=0.1)
    options = dataclasses.replace(SHORT, schedule="constant", lr=0.01, momentum=0.0)
    source = data.open_source(str(three))
    result = finetune(model, source, input=GREY, options=options, method=method)
    return model, method, result


def test_the_head_is_trained_alone_first_and_then_all(watched):
    model, method, _ = watched
    start = model.state_dict()
    first, second, _ = method.kept
    for name, value in start.items():
        own = name.startswith("8.")
        assert torch.equal(first[name], value) is not own, name
        assert not torch.equal(second[name], first[name]), name


def test_patience_begins_where_all_layers_are_trained(three):
    model, head = with_new_head(make_net(), GREY, classes=3, seed=0)
    source = data.open_source(str(three))
    options = dataclasses.replace(SHORT, epochs=6, head_epochs=2, patience=1, lr=1e-12)
    method = HeadFirst(head, epochs=2, first_rate=0.1)
    result = finetune(model, source, input=GREY, options=options, method=method)
    assert len(result.epochs) == 3  # nothing gets better: two for the head, and one more
    assert result.stopped_early


def test_rates_rise_from_the_first_layers_to_the_head(watched):
    _, method, _ = watched
    scales = {scale for _, scale in method.rates}
    assert max(scales) == 1.0
    assert min(scales) == pytest.approx(0.1)
    assert all(rate == pytest.approx(0.01 * scale) for rate, scale in method.rates)
    model = make_net()
    groups = rates_of(model, "8", first_rate=0.1, weight_decay=0.5)
    found = {
        id(parameter): (group["lr_scale"], group["weight_decay"])
        for group in groups for parameter in group["params"]
    }  # fmt: skip
    own = [found[id(parameter)] for name, parameter in model.named_parameters() if name[0] != "8"]
    assert [scale for scale, _ in own] == sorted(scale for scale, _ in own)
    assert [decay for _, decay in own] == [
        0.5 * (parameter.ndim > 1) for name, parameter in model.named_parameters() if name[0] != "8"
    ]
    assert len(found) == len(own)


def test_the_best_epoch_of_the_head_alone_may_be_the_result(three):
    model, head = with_new_head(make_net(), GREY, classes=3, seed=0)
    source = data.open_source(str(three))

    class Spoilt(HeadFirst):
        def before_step(self, run):
            super().before_step(run)
            if not self.alone:
                for group in run.optimizer.param_groups:
                    group["lr"] = 50.0

    method = Spoilt(head, epochs=2, first_rate=1.0)
    result = finetune(model, source, input=GREY, options=SHORT, method=method)
    assert result.best_epoch in (1, 2)
    backbone = [name for name in model.state_dict() if not name.startswith("8.")]
    assert all(
        torch.equal(result.model.state_dict()[name], model.state_dict()[name]) for name in backbone
    )


@pytest.mark.parametrize("done", [1, 5, 8, 12])
def test_a_stopped_transfer_goes_on_exactly(three, tmp_path, monkeypatch, done):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    options = dataclasses.replace(SHORT, ema=0.5, amp="no")
    straight = prunecli.finetune(make_net(), str(three), input=GREY, options=options)
    arguments = {"input": GREY, "options": options, "run_dir": tmp_path}
    with pytest.raises(StopError):
        prunecli.finetune(make_net(), str(three), progress=stop_at(done, StopError), **arguments)
    resumed = prunecli.finetune(make_net(), str(three), resume=True, **arguments)
    assert same(resumed.model, straight.model)
    assert resumed.best_epoch == straight.best_epoch > 0


def test_a_file_with_a_new_head_is_read_pruned_and_exported(three, tmp_path):
    target = tmp_path / "three.pt"
    with pytest.raises(InputError, match="10 outputs but the data has 3") as caught:
        finetune_file(VGG, data=str(three), output=target, options=QUICK)
    assert "--new-head" in caught.value.hint
    report = finetune_file(VGG, data=str(three), output=target, options=SHORT)
    assert report.accuracy.after > 0.9
    assert report.taught_by is None
    loaded = prunecli.load(target)
    assert loaded(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    slim, onnx = tmp_path / "slim.pt", tmp_path / "slim.onnx"
    from prunecli import verbs
    from prunecli.budget import make_budget

    cut = verbs.prune(target, output=slim, budget=make_budget(flops=0.5))
    assert cut.cost.kept["flops"] <= 0.5
    assert prunecli.load(slim)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    verbs.export(slim, output=onnx)
    scores = [verbs.evaluate(path, data=str(three)).accuracy for path in (slim, onnx)]
    assert scores[0] == scores[1]
    with pytest.raises(InputError, match="it has been pruned") as caught:
        finetune_file(slim, data=str(three), output=tmp_path / "x.pt", options=SHORT)
    assert caught.value.code == "NEW_HEAD_REFUSED"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"new_head": True, "head_epochs": 3}, "leaves no epoch"),
        ({"new_head": True, "sparsity": 0.5}, "cannot be combined"),
        ({"new_head": True, "regularizer": "dropout"}, "cannot be combined"),
        ({"new_head": True, "first_rate": 0.0}, "out of range"),
    ],
)
def test_what_a_new_head_cannot_have_is_told(choices, said):
    with pytest.raises(InputError, match=said):
        check_options(FinetuneOptions(epochs=3, **choices))


@pytest.mark.parametrize("head_epochs", [0, 1])
def test_a_new_classifier_that_is_frozen_is_refused_before_images(three, tmp_path, head_epochs):
    head = head_of(prunecli.load(VGG), GREY)
    options = dataclasses.replace(SHORT, freeze=(head,), head_epochs=head_epochs)

    def nothing(step):
        raise AssertionError(step)

    with pytest.raises(InputError, match=f"keeps the new classifier {head} from") as caught:
        finetune_file(
            VGG, data=str(three), output=tmp_path / "new.pt", options=options, progress=nothing
        )
    assert caught.value.code == "BAD_OPTION"
    with pytest.raises(InputError, match="keeps the new classifier 8 from"):
        prunecli.finetune(
            make_net(), str(three), input=GREY,
            options=dataclasses.replace(options, freeze=("8",)), progress=nothing,
        )  # fmt: skip
