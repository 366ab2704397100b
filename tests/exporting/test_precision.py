"""INT8 and half precision: against arithmetic by hand, and what stays in float."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.errors import GraphError, InputError, ProofError
from prunecli.exporting import to_onnx
from prunecli.exporting.onnx.precision.layers import Layer, fewest, find_layers
from prunecli.exporting.onnx.quantised import precision_of
from prunecli.options import ExportOptions
from prunecli.verbs.exported import request_of
from tests.support.image_folders import write_folder

SPEC = InputSpec(3, 8, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def make_net(*, classes: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("int8") / "images", count=30)


@pytest.fixture(scope="module")
def exported(images, tmp_path_factory):
    """Return a model, its file in INT8 and in float, and what was reported."""
    folder = tmp_path_factory.mktemp("exported")
    net = make_net()
    found = prunecli.export(net, folder / "net.onnx", input=SPEC, int8=True, data=images)
    to_onnx(net, folder / "float.onnx", input=SPEC)
    return net, folder, found


def run(path, values) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": values})[0]


def weights_of(path) -> dict[str, np.ndarray]:
    graph = onnx.load(str(path)).graph
    return {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


def test_weights_are_rounded_to_255_steps_of_each_channel(exported):
    net, folder, _ = exported
    own = weights_of(folder / "net.onnx")
    for weight in (net[0].weight, net[2].weight, net[6].weight):
        values = weight.detach().numpy()
        steps = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
        rounded = np.round(values / steps.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        found = [each for each in own.values() if each.shape == rounded.shape]
        assert found
        assert all(np.abs(each.astype(int) - rounded.astype(int)).max() <= 1 for each in found)


def test_outputs_are_those_of_float_but_for_rounding(exported):
    net, folder, found = exported
    values = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        expected = net(values).numpy()
    own = run(folder / "net.onnx", values.numpy())
    error = np.abs(own - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.05  # other than float, and near it
    assert found.precision == "int8"
    assert found.calibration in {"min-max", "percentile", "entropy"}
    assert {one.method for one in found.tried} == {"min-max", "percentile", "entropy"}
    assert found.layers == 3
    assert found.in_float == ()
    assert found.bytes == (folder / "net.onnx").stat().st_size


def test_agreement_is_that_of_the_two_files(exported, images):
    _, folder, found = exported
    options = ExportOptions(int8=True)
    request = request_of(
        options, str(images), model=make_net(), input=SPEC, classes=None,
        progress=lambda _: None,
    )  # fmt: skip
    order = torch.randperm(len(request.examples.judged), generator=torch.Generator().manual_seed(0))
    told = order[len(order) // 2 :].sort().values
    pixels, _ = next(request.examples.judged.gather([told]))
    values = ((pixels / 255 - 0.5) / 0.25).numpy().astype(np.float32)
    own, plain = (run(folder / f"{name}.onnx", values) for name in ("net", "float"))
    assert found.images == len(told)
    assert found.agreement == (own.argmax(1) == plain.argmax(1)).mean()


def test_no_image_calibrates_and_judges(images):
    request = request_of(
        ExportOptions(int8=True, calibration=1000), str(images), model=make_net(), input=SPEC,
        classes=None, progress=lambda _: None,
    )  # fmt: skip
    both = request.examples.calibration.paths, request.examples.judged.paths
    assert not set(both[0]) & set(both[1])
    assert request.examples.labels.tolist() == [0, 1]


def test_labels_that_are_not_the_outputs_tell_no_accuracy(images, tmp_path):
    found = prunecli.export(
        make_net(classes=5), tmp_path / "net.onnx", input=SPEC, int8=True, data=images
    )
    assert found.accuracy is None
    assert found.agreement is not None
    assert any("not the classes of the model" in note for note in found.notes)


def test_the_same_model_gives_the_same_bytes(exported, images, tmp_path):
    prunecli.export(make_net(), tmp_path / "again.onnx", input=SPEC, int8=True, data=images)
    assert (tmp_path / "again.onnx").read_bytes() == (exported[1] / "net.onnx").read_bytes()


def spoiled_net() -> nn.Sequential:
    """Return a net with one channel of 10,000 that nothing needs, and others of 1 that decide."""
    net = make_net(classes=16)
    with torch.no_grad():
        net[0].weight[0] *= 1e4  # its range takes all steps of the activation
        net[2].weight[:, 0] *= 1e-6  # and it is not read
        pixels = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 4 - 2
        net[6].bias -= net(pixels).mean(0)  # classes differ from image to image
    return net


def test_the_sensitive_layer_stays_in_float_and_others_do_not(images, tmp_path):
    def export(name, **options):
        path = tmp_path / f"{name}.onnx"
        return prunecli.export(spoiled_net(), path, input=SPEC, int8=True, data=images, **options)

    rough, fine = export("rough"), export("fine", max_drop=0.0)
    assert rough.agreement < 0.9
    assert fine.agreement == 1
    assert "0" in fine.in_float
    assert len(fine.in_float) < fine.layers
    assert fine.agreement > rough.agreement


def test_reduced_weights_have_seven_bits(images, tmp_path):
    prunecli.export(
        make_net(), tmp_path / "net.onnx", input=SPEC, int8=True, data=images, reduce_range="yes"
    )
    packed = [one for one in weights_of(tmp_path / "net.onnx").values() if one.ndim > 1]
    assert packed
    assert all(one.dtype == np.int8 and np.abs(one.astype(int)).max() <= 64 for one in packed)


def test_a_model_without_weights_has_nothing_to_quantise(images, tmp_path):
    net = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(GraphError, match="no convolution") as caught:
        prunecli.export(net, tmp_path / "net.onnx", input=SPEC, int8=True, data=images)
    assert caught.value.code == "NOTHING_TO_QUANTISE"
    assert not (tmp_path / "net.onnx").exists()


def test_int8_without_images_is_an_early_error(tmp_path):
    with pytest.raises(InputError, match="--int8 has no effect without --data"):
        prunecli.export(make_net(), tmp_path / "net.onnx", input=SPEC, int8=True)


def test_half_precision_is_float_within_its_digits(tmp_path):
    net = make_net()
    found = prunecli.export(net, tmp_path / "net.onnx", input=SPEC, fp16=True)
    values = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net(values).numpy()
    own = run(tmp_path / "net.onnx", values.numpy())
    assert own.dtype == np.float32
    assert 0 < np.abs(own - expected).max() < 1e-2 * np.abs(expected).max()
    assert any("for GPUs" in note for note in found.notes)
    assert precision_of(onnx.load(str(tmp_path / "net.onnx"))).name == "FP16"


def test_values_too_large_for_half_precision_are_refused(tmp_path):
    net = make_net()
    with torch.no_grad():
        net[0].weight *= 1e6
        net[6].weight *= 1e-6
    with pytest.raises(ProofError, match="half precision differs"):
        prunecli.export(net, tmp_path / "net.onnx", input=SPEC, fp16=True)
    assert not (tmp_path / "net.onnx").exists()


def test_operators_in_int8_are_counted(exported):
    _, folder, _ = exported
    found = precision_of(onnx.load(str(folder / "net.onnx")))
    assert (found.name, found.layers, found.int8_layers) == ("INT8", 3, 3)
    assert precision_of(onnx.load(str(folder / "float.onnx"))).int8_operators == 0


def test_costs_of_int8_are_those_of_float(exported):
    _, folder, _ = exported
    own, plain = (prunecli.info(folder / f"{name}.onnx") for name in ("net", "float"))
    assert own.cost["flops"] == plain.cost["flops"]
    assert own.cost["params"] == plain.cost["params"]
    assert own.onnx.precision.statement.startswith("INT8: 3 of 3 layers")


def test_layers_hold_what_follows_them(exported):
    layers = find_layers(onnx.load(str(exported[1] / "float.onnx")).graph)
    assert [layer.name for layer in layers] == ["0", "2", "6"]
    graph = onnx.load(str(exported[1] / "float.onnx")).graph
    assert sorted(name for layer in layers for name in layer.nodes) == sorted(
        node.name for node in graph.node
    )


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 9])
def test_the_fewest_layers_are_found(needed):
    order = [Layer(str(at), ()) for at in range(9)]
    assert fewest(order, lambda chosen: len(chosen) >= needed) == needed
