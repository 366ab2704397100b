"""`evaluate --against`: agreement of every output, with labels, without, and of ONNX files."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import prunecli
from prunecli import verbs
from prunecli.checkpoint import save
from prunecli.data import load_split, open_images
from prunecli.errors import InputError
from prunecli.exporting import to_onnx
from prunecli.options import CompareOptions
from prunecli_cli.main import main
from tests.support.dense_prediction import RGB16, Detector, randomised, saliency, write_plain_images
from tests.support.samples import VGG
from tests.support.segmentation import write_pairs

RESNET = VGG.with_name("digits_resnet.safetensors")
UNTIMED = CompareOptions(no_latency=True)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """Return a folder with images, two detectors, and the first as ONNX."""
    folder = tmp_path_factory.mktemp("detectors")
    write_plain_images(folder / "images")
    first = randomised(Detector())
    second = randomised(Detector())
    with torch.no_grad():
        second.box.weight.mul_(1.1)
        second.score.weight.mul_(0.5)
    for name, model in (("dense", first), ("slim", second)):
        prunecli.save(model, folder / f"{name}.pt", input=RGB16)
    to_onnx(first, folder / "dense.onnx", input=RGB16)
    return folder


def outputs_of(folder, name):
    images = load_split(open_images(folder / "images"), "test", input=RGB16)
    pixels = (images.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        found = prunecli.load(folder / f"{name}.pt")(pixels)
    return {"boxes": found.boxes.double(), "scores": found.scores.double()}


def test_every_output_of_a_detector_is_compared_without_labels(detectors):
    found = verbs.evaluate(
        detectors / "slim.pt", data=str(detectors / "images"), against=detectors / "dense.pt"
    )
    own, true = outputs_of(detectors, "slim"), outputs_of(detectors, "dense")
    assert found.measure == "agreement"
    assert {one.name for one in found.outputs} == {"boxes", "scores"}
    for one in found.outputs:
        wanted, got = true[one.name], own[one.name]
        variance = wanted.transpose(1, 2).var(dim=(0, 2), unbiased=False)
        apart = (got - wanted).transpose(1, 2).square().mean(2) / variance
        assert one.agreement == pytest.approx(max(0.0, 1 - float(apart.mean())), rel=1e-3)
        flat = [value.flatten(1) for value in (got, wanted)]
        cosine = torch.nn.functional.cosine_similarity(*flat).mean()
        assert one.cosine == pytest.approx(float(cosine), rel=1e-5)
        error = (got - wanted).abs().flatten(1).amax(1) / wanted.abs().flatten(1).amax(1)
        assert one.max_rel_error == pytest.approx(float(error.max()), rel=1e-4)
    assert found.accuracy == pytest.approx(sum(one.agreement for one in found.outputs) / 2)


def test_a_file_of_another_kind_agrees_as_its_model_does(detectors):
    data = str(detectors / "images")
    same = verbs.evaluate(detectors / "dense.onnx", data=data, against=detectors / "dense.pt")
    assert same.accuracy > 0.99999
    slim = verbs.evaluate(detectors / "slim.pt", data=data, against=detectors / "dense.onnx")
    both = verbs.evaluate(detectors / "slim.pt", data=data, against=detectors / "dense.pt")
    assert slim.accuracy == pytest.approx(both.accuracy, abs=1e-5)


def test_compare_tells_the_same_in_the_same_words(detectors):
    data = str(detectors / "images")
    found = verbs.compare(
        [detectors / "dense.pt", detectors / "slim.pt"], data=data, options=UNTIMED
    )
    alone = verbs.evaluate(detectors / "slim.pt", data=data, against=detectors / "dense.pt")
    told = found.models[1].agreement
    for one, other in zip(told.outputs, alone.outputs, strict=True):
        assert (one.name, one.kind, one.shape) == (other.name, other.kind, other.shape)
        assert one.agreement == pytest.approx(other.agreement, rel=1e-6)
    assert told.max_rel_error == told.outputs[0].max_rel_error


def test_labels_that_fit_are_looked_at_and_others_said(make_checkpoint, tmp_path):
    found = verbs.evaluate(RESNET, data="digits", against=VGG)
    assert found.measure == "accuracy"
    assert found.accuracy == verbs.evaluate(RESNET, data="digits").accuracy
    assert found.outputs[0].same_class > 0.9
    seven = tmp_path / "seven.pt"
    save(make_checkpoint("digits_vgg", num_classes=7), seven)
    other = verbs.evaluate(seven, data="digits", against=seven)
    assert (other.measure, other.accuracy) == ("agreement", 1.0)
    assert any("labels of the data are not looked at" in one for one in other.warnings)


def test_models_of_other_outputs_are_refused(detectors, make_checkpoint, tmp_path):
    seven = tmp_path / "seven.pt"
    save(make_checkpoint("digits_vgg", num_classes=7), seven)
    with pytest.raises(InputError, match="cannot be compared") as caught:
        verbs.evaluate(seven, data="digits", against=VGG)
    assert caught.value.code == "OTHER_OUTPUTS"
    with pytest.raises(InputError):
        verbs.evaluate(detectors / "slim.pt", data=str(detectors / "images"))


def test_agreement_is_a_gate_and_the_word_for_scripts(detectors, capsys):
    command = [
        "evaluate", str(detectors / "slim.pt"), "--data", str(detectors / "images"),
        "--against", str(detectors / "dense.pt"),
    ]  # fmt: skip
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["measure"] == "agreement"
    assert set(told["outputs"][0]) == {
        "name", "kind", "shape", "agreement", "cosine", "median_rel_error", "max_rel_error",
        "same_class", "iou",
    }  # fmt: skip
    assert main([*command, "-q"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(told["accuracy"], rel=1e-5)
    assert main([*command, "--min-agreement", "0.999"]) == 1
    assert main([*command, "--max-drop", "0.1%"]) == 1
    assert "agreement" in capsys.readouterr().err
    assert main([*command, "--min-agreement", "1%"]) == 0


def test_detectors_are_followed_by_commands_that_need_no_labels(detectors, capsys, tmp_path):
    shutil.copy(detectors / "dense.pt", tmp_path / "dense.pt")
    cut = tmp_path / "cut.pt"
    assert main(["prune", str(tmp_path / "dense.pt"), "--flops", "0.8", "-o", str(cut)]) == 0
    assert "--loss outputs" in capsys.readouterr().err
    exported = ["export", str(cut), "--onnx", str(tmp_path / "cut.onnx"), "--no-benchmark"]
    assert main(exported) == 0
    assert "--against model.pt" in capsys.readouterr().err.replace("\n", " ")


def test_a_drop_in_mean_iou_is_one_between_both_models(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", count=12)
    for seed in (0, 1):
        prunecli.save(
            randomised(saliency(8, out=3), seed=seed), tmp_path / f"{seed}.pt", input=RGB16
        )
    scores = [verbs.evaluate(tmp_path / f"{seed}.pt", data=str(pairs)).accuracy for seed in (0, 1)]
    worse, better = sorted((0, 1), key=scores.__getitem__)
    assert scores[better] - scores[worse] > 0.001
    command = ["evaluate", str(tmp_path / f"{worse}.pt"), "--data", str(pairs)]
    command += ["--against", str(tmp_path / f"{better}.pt"), "--max-drop"]
    assert main([*command, "100%"]) == 0
    assert main([*command, "0.1%"]) == 1
