"""Training that follows a teacher's outputs: by kind, for any output, stopped and gone on with."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.data import load_split, open_images
from prunecli.errors import InputError, InterruptedRunError
from prunecli.evaluation.output_kinds import EMBEDDING, MAP, SCORES, VALUES, OutputKind
from prunecli.options import FinetuneOptions
from prunecli.training import distillation_loss, finetune, loop
from prunecli.training.output_losses import ATTENTION, LOSSES
from tests.support.dense_prediction import (
    RGB16,
    Detector,
    randomised,
    saliency,
    write_plain_images,
)
from tests.support.training import same, stop_at
from tests.support.two_processes import in_two_processes

QUICK = FinetuneOptions(
    epochs=3, batch_size=8, loss="outputs", lr=0.05, amp="no", augment="none", held_out=0.25
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return open_images(write_plain_images(tmp_path_factory.mktemp("plain") / "images"))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kind(name, shape=(5,)):
    return OutputKind("v", name, shape, torch.ones(shape[0]))


def test_scores_follow_by_the_soft_part_of_distillation():
    own, its = drawn(7, 5), drawn(7, 5, seed=1)
    found = LOSSES[SCORES].errors(own, its, kind(SCORES), 3.0).mean()
    labels = torch.zeros(7, dtype=torch.long)
    assert float(found) == pytest.approx(
        float(distillation_loss(own, its, labels, temperature=3.0, alpha=1.0)), rel=1e-5
    )


def test_maps_follow_by_every_pixel_as_if_it_were_an_image():
    own, its = drawn(2, 5, 3, 4), drawn(2, 5, 3, 4, seed=1)
    found = LOSSES[MAP].errors(own, its, kind(MAP), 2.0)
    pixels = [value.permute(0, 2, 3, 1).reshape(-1, 5) for value in (own, its)]
    apart = LOSSES[SCORES].errors(*pixels, kind(SCORES), 2.0)
    torch.testing.assert_close(found, apart.reshape(2, 12).mean(1))


def test_embeddings_follow_by_direction_and_values_by_size():
    own, its = drawn(4, 5), drawn(4, 5, seed=1)
    wanted = 1 - functional.cosine_similarity(own, its)
    torch.testing.assert_close(LOSSES[EMBEDDING].errors(own, its, kind(EMBEDDING), 1.0), wanted)
    scaled = OutputKind("v", VALUES, (5,), torch.full((5,), 4.0))
    found = LOSSES[VALUES].errors(own, its, scaled, 1.0)
    torch.testing.assert_close(found, (own - its).square().mean(1) / 4)


def test_attention_has_no_channels():
    features = drawn(3, 6, 4, 4)
    doubled = torch.cat([features, features], 1)
    assert float(ATTENTION.errors(features, doubled, kind(VALUES), 1.0).abs().max()) < 1e-10
    assert float(ATTENTION.errors(features, features.flip(2), kind(VALUES), 1.0).min()) > 0.01


def test_a_slim_saliency_network_learns_the_maps_of_its_teacher(plain):
    teacher, student = randomised(saliency(8)), saliency(4, seed=3)
    before = copy.deepcopy(student.state_dict())
    options = dataclasses.replace(QUICK, epochs=12)
    result = prunecli.finetune(
        student, plain.path, input=RGB16, teacher=teacher, options=options, amp="no"
    )
    assert result.held_out_before.accuracy < 0.3
    assert result.held_out_after.accuracy > 0.6
    assert result.held_out_after.measure == "agreement"
    (found,) = result.task.report
    assert (found.name, found.kind, found.shape) == ("logits", "values", (1, 16, 16))
    assert "squared error" in found.loss
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    held_out = load_split(plain, "held_out", input=RGB16, held_out=0.25)
    pixels = (held_out.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        wanted, got = teacher(pixels), result.model(pixels)
    near = float(torch.corrcoef(torch.stack([wanted.flatten(), got.flatten()]))[0, 1])
    assert near > 0.8


def test_a_detector_follows_in_its_own_mode_with_boxes_and_scores_alike(plain):
    teacher, student = randomised(Detector()), randomised(Detector(), seed=2)
    result = finetune(student, plain, input=RGB16, teacher=teacher, options=QUICK)
    assert result.task.own_mode  # it returns features while it trains
    assert {one.name: one.kind for one in result.task.report} == {
        "boxes": "values", "scores": "values"
    }  # fmt: skip
    trained = result.model.backbone[1].running_mean
    assert not torch.equal(trained, student.backbone[1].running_mean)  # batch norm has trained
    first, last = result.held_out_before, result.held_out_after
    assert last.loss < first.loss
    assert {one.name for one in last.outputs} == {"boxes", "scores"}


def test_features_of_matched_layers_follow_by_value_or_by_map(plain):
    teacher, student = randomised(saliency(8)), saliency(4, seed=3)
    options = dataclasses.replace(QUICK, match=("3", "6"), epochs=1)
    result = finetune(student, plain, input=RGB16, teacher=teacher, options=options)
    by_name = {one.name: one.loss for one in result.task.report}
    assert "attention" in by_name["3 (layer)"]
    assert "hints" in by_name["6 (layer)"]
    assert not any(module._forward_hooks for module in result.model.modules())


def test_a_layer_that_neither_has_is_refused(plain):
    options = dataclasses.replace(QUICK, match=("neck.*",))
    with pytest.raises(InputError, match=r"neck\.\* names no layer") as caught:
        finetune(saliency(), plain, input=RGB16, teacher=saliency(), options=options)
    assert caught.value.code == "NO_SUCH_LAYER"


@pytest.mark.parametrize("other", [saliency(out=2), Detector(), nn.Sequential(nn.Flatten())])
def test_a_teacher_of_other_outputs_is_refused_before_training(plain, other, tmp_path):
    with pytest.raises(InputError, match="the teacher cannot be followed") as caught:
        finetune(
            saliency(), plain, input=RGB16, teacher=other.eval(), options=QUICK, run_dir=tmp_path
        )
    assert caught.value.code == "TEACHER_MISMATCH"
    assert not (tmp_path / "state.pt").exists()


def test_nobody_can_be_followed_without_a_teacher(plain):
    with pytest.raises(InputError, match="--loss outputs follows a teacher"):
        finetune(saliency(), plain, input=RGB16, options=QUICK)


def test_a_stopped_run_ends_like_one_that_never_stopped(plain, tmp_path, monkeypatch):
    teacher = randomised(saliency(8))
    options = dataclasses.replace(QUICK, ema=0.9, match=("3",), augment="crop-flip")
    given = {"input": RGB16, "teacher": teacher, "options": options}
    straight = finetune(saliency(4, seed=3), plain, **given)
    monkeypatch.setattr(loop, "REPORT_SECONDS", -1.0)

    def stop(step):
        if step.stage == "train" and step.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        finetune(saliency(4, seed=3), plain, run_dir=tmp_path, progress=stop, **given)
    resumed = finetune(saliency(4, seed=3), plain, run_dir=tmp_path, resume=True, **given)
    assert same(resumed.model, straight.model)
    assert resumed.held_out_after == straight.held_out_after
    other = dataclasses.replace(options, match=())
    with pytest.raises(InputError, match="match was"):
        finetune(
            saliency(4, seed=3), plain, input=RGB16, teacher=teacher, options=other,
            run_dir=tmp_path, resume=True,
        )  # fmt: skip


def test_classifiers_follow_without_labels(plain):
    def net(seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        ).append(nn.ModuleDict({"fc": nn.Linear(32, 5)})["fc"])  # fmt: skip

    result = finetune(
        net(0), plain, input=RGB16, teacher=net(1).eval(), teacher_classes=5, options=QUICK
    )
    (found,) = result.task.report
    assert (found.kind, "softened KL" in found.loss) == ("class scores", True)
    assert result.held_out_after.outputs[0].same_class == result.held_out_after.accuracy


PARALLEL = """
import dataclasses
from prunecli.data import open_images
from prunecli.options import FinetuneOptions
from prunecli.training import finetune
from tests.support.dense_prediction import RGB16, Detector, randomised, write_plain_images
options = FinetuneOptions(
    epochs=1, batch_size=8, loss="outputs", lr=0.05, amp="no", augment="none", held_out=0.25,
    match=("backbone.3",),
)
result = finetune(
    randomised(Detector(), seed=2), open_images(folder / "images"), input=RGB16,
    teacher=randomised(Detector()), options=options,
)
found = result.model.state_dict(), result.held_out_before, result.held_out_after
"""


def test_two_processes_follow_as_one(tmp_path):
    source = open_images(write_plain_images(tmp_path / "images"))
    (one, before, after), (two, _, after_too) = in_two_processes(PARALLEL, tmp_path)
    trained = [name for name, _ in Detector().named_parameters()]
    assert all(torch.equal(one[name], two[name]) for name in trained)
    assert after == after_too
    options = dataclasses.replace(QUICK, epochs=1, match=("backbone.3",))
    alone = finetune(
        randomised(Detector(), seed=2), source, input=RGB16, teacher=randomised(Detector()),
        options=options,
    )  # fmt: skip
    assert before.loss == pytest.approx(alone.held_out_before.loss, rel=1e-5)
    for ours, theirs in zip(before.outputs, alone.held_out_before.outputs, strict=True):
        assert ours.agreement == pytest.approx(theirs.agreement, abs=1e-5)
        assert ours.max_rel_error == pytest.approx(theirs.max_rel_error, rel=1e-4)


def test_a_run_that_goes_on_gives_back_the_scores_of_every_output(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", -1.0)
    arguments = {"input": RGB16, "options": QUICK, "run_dir": tmp_path}
    nets = [randomised(Detector(), seed=seed) for seed in (2, 0)]
    stopping = stop_at(2, KeyboardInterrupt)
    with pytest.raises(InterruptedRunError):
        finetune(nets[0], plain, teacher=nets[1], progress=stopping, **arguments)
    found = finetune(nets[0], plain, teacher=nets[1], resume=True, **arguments)
    whole = finetune(nets[0], plain, input=RGB16, teacher=nets[1], options=QUICK)
    assert found.held_out_before == whole.held_out_before
    assert found.held_out_after == whole.held_out_after
