"""`compare`: every figure is that of the verb that measures it alone, for files of any kind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import prunecli
from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.checkpoint import save
from prunecli.data import load_split, open_source
from prunecli.data.pixels import normalise
from prunecli.errors import InputError, LoadRefusedError
from prunecli.evaluation.intervals import wilson
from prunecli.exporting import to_onnx
from prunecli.options import CompareOptions, LoadOptions
from prunecli.report import to_json
from tests.support.samples import VGG

RESNET, WIDE = (VGG.with_name(f"digits_{name}.safetensors") for name in ("resnet", "wide_resnet"))
UNTIMED = CompareOptions(no_latency=True)
DIGITS = InputSpec(1, 8, 8, (0.305,), (0.376,))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the VGG for digits as ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "vgg.onnx"
    to_onnx(prunecli.load(VGG), path, input=DIGITS)
    return path


def test_scores_are_those_of_evaluate_and_sure_as_the_images_are_many(exported):
    files = (VGG, RESNET, WIDE, exported)
    found = verbs.compare(files, data="digits", options=UNTIMED)
    assert [one.kind for one in found.models] == ["PyTorch", "PyTorch", "PyTorch", "ONNX"]
    for file, one in zip(files, found.models, strict=True):
        alone = verbs.evaluate(file, data="digits")
        assert one.scores.accuracy == alone.accuracy
        assert one.scores.top5 == alone.top5
        assert one.preparation == alone.preparation
        assert one.scores.loss == pytest.approx(alone.loss, rel=1e-5)
        assert one.scores.accuracy_interval == wilson(
            round(alone.accuracy * alone.count), alone.count
        )
        assert found.images == alone.count
        change = one.scores.accuracy - found.models[0].scores.accuracy
        if one is not found.models[0]:
            assert one.scores.change == pytest.approx(change, abs=1e-12)
            assert one.scores.change_interval[0] <= change <= one.scores.change_interval[1]
    assert found.models[0].scores.change is None


def test_agreement_is_that_of_the_outputs_on_the_same_images(exported):
    found = verbs.compare([VGG, RESNET, exported], data="digits", options=UNTIMED)
    images = load_split(open_source("digits"), found.split, input=DIGITS)
    with torch.no_grad():
        first, other = (prunecli.load(p)(normalise(images.images, DIGITS)) for p in (VGG, RESNET))
    errors = ((other - first).abs().amax(1) / first.abs().amax(1)).double().numpy()
    base, resnet, copy = (one.agreement for one in found.models)
    assert base is None
    same = float((first.argmax(1) == other.argmax(1)).double().mean())
    assert resnet.same_class == pytest.approx(same)
    assert resnet.max_rel_error == pytest.approx(errors.max(), rel=1e-4)
    assert resnet.median_rel_error == pytest.approx(np.median(errors), rel=1e-4)
    assert copy.same_class == 1.0
    assert copy.max_rel_error < 1e-4


def test_costs_and_sizes_with_their_ratios(tmp_path, exported):
    slim = tmp_path / "slim.pt"
    from prunecli.budget import make_budget

    report = verbs.prune(VGG, output=slim, budget=make_budget(flops=0.5))
    found = verbs.compare([VGG, slim, exported], options=UNTIMED).models
    assert found[1].cost["flops"] == report.cost.after.flops
    assert found[1].ratios["params"] == pytest.approx(report.cost.kept["params"])
    assert [one.file_bytes for one in found] == [f.stat().st_size for f in (VGG, slim, exported)]
    assert found[1].ratios["file_bytes"] == slim.stat().st_size / VGG.stat().st_size
    assert found[0].ratios is None
    told = prunecli.info(exported)
    assert found[2].cost["flops"] == told.cost["flops"]


def test_without_images_agreement_is_on_random_inputs_and_that_is_said(tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(VGG, copy)
    found = verbs.compare([VGG, copy, WIDE], options=UNTIMED)
    same, wide = found.models[1:]
    assert same.agreement.same_class == 1.0
    assert same.agreement.max_rel_error == 0.0
    assert wide.agreement is None
    assert "its input is 1x16x16" in wide.missing[0]
    assert all(one.scores is None for one in found.models)
    assert any("random inputs" in warning for warning in found.warnings)


def test_another_number_of_classes_is_told_and_the_rest_compared(tmp_path, make_checkpoint):
    other = tmp_path / "seven.pt"
    save(make_checkpoint("digits_vgg", num_classes=7), other)
    found = verbs.compare([VGG, other], data="digits", options=UNTIMED)
    vgg, seven = found.models
    assert vgg.scores is not None
    assert (seven.scores, seven.agreement, seven.class_count) == (None, None, 7)
    assert "7 outputs, and the data has 10 classes" in seven.missing[0]
    assert "7 outputs, the first model has 10" in seven.missing[1]
    assert seven.cost["flops"] > 0


def test_files_of_one_name_go_by_their_paths(tmp_path):
    copy = tmp_path / VGG.name
    shutil.copy(VGG, copy)
    found = verbs.compare([VGG, copy, copy], options=UNTIMED)
    assert len({one.name for one in found.models}) == 3
    (first, second) = verbs.compare([VGG, copy], options=UNTIMED).models
    assert (first.name, second.name) == (str(VGG), str(copy))


def foreign(path, batch):
    """Write a linear classifier of digits as another tool may: no metadata, perhaps one batch."""
    weight = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return weight


def test_an_onnx_file_of_another_tool_that_takes_one_batch_size(tmp_path):
    path = tmp_path / "m.onnx"
    weight = foreign(path, batch=7)
    load = LoadOptions(mean=(0.305,), std=(0.376,))
    found = verbs.compare([VGG, path], data="digits", options=UNTIMED, load=load)
    images = load_split(open_source("digits"), found.split, input=DIGITS)
    outputs = normalise(images.images, DIGITS).flatten(1).numpy() @ weight
    accuracy = float((outputs.argmax(1) == images.labels.numpy()).mean())
    assert found.models[1].scores.accuracy == pytest.approx(accuracy)
    assert found.models[1].cost["params"] == 640
    untold = verbs.compare([VGG, path], data="digits", options=UNTIMED).models[1]
    assert untold.scores is None
    assert "--mean" in untold.missing[0]


def test_all_are_timed_in_turns_as_onnx(exported):
    options = CompareOptions(runs=5, batches=(1, 3), threads=1)
    found = verbs.compare([VGG, WIDE, exported], options=options)
    assert [(row.device, row.batch, row.threads) for row in found.latency] == [
        ("cpu", 1, 1), ("cpu", 3, 1)
    ]  # fmt: skip
    for row in found.latency:
        first, wide, _ = row.models
        assert [one.model for one in row.models] == [one.name for one in found.models]
        assert first.ratio is None
        assert wide.ratio == pytest.approx(wide.median / first.median)
        assert wide.ratio_low <= wide.ratio <= wide.ratio_high


def test_a_single_model_is_an_error():
    with pytest.raises(InputError, match="one model was given") as caught:
        verbs.compare([VGG])
    assert caught.value.code == "ONE_MODEL"


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "broken.pt"
    path.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(LoadRefusedError) as caught:
        verbs.compare([VGG, path])
    assert caught.value.where == str(path)


def test_the_api_takes_keywords_and_the_report_is_json(exported):
    found = prunecli.compare([VGG, exported], no_latency=True)
    data = json.loads(json.dumps(to_json(found)))
    assert data["models"][1]["agreement"]["same_class"] == 1.0
    assert data["models"][1]["missing"] == []
