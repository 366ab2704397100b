"""`info`: what is told of a file is what loading it shows, and costs hardly anything."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from functools import cache
from importlib.metadata import version

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.artefacts.provenance import read
from prunecli.checkpoint import ArchitectureRef, save
from prunecli.errors import InputError, LoadRefusedError, PruneError
from prunecli.exporting import to_onnx
from prunecli.options import LoadOptions
from prunecli.report import to_json
from tests.support.samples import VGG
from tests.support.weights import randomize_

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore scripts a function as it is imported
    from fvcore.nn import FlopCountAnalysis

CIFAR = InputSpec(3, 32, 32, (0.5,) * 3, (0.25,) * 3)
FAMILIES = (
    "cifar_resnet20", "digits_mobilenet", "resnet18", "vgg11_bn", "densenet121",
    "mobilenet_v3_small", "efficientnet_b0",
    "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t",
    "maxvit_t", "googlenet", "shufflenet_v2_x0_5", "squeezenet1_0", "mnasnet0_5", "alexnet",
)  # fmt: skip


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("name", ["resnet20-jpeg.pt", "resnet56.th"])
def test_a_real_checkpoint_is_told_as_it_is_read(shared_dir, name):
    path = shared_dir / "checkpoints" / name
    found, loaded = prunecli.info(path), read(path)
    checkpoint = loaded.checkpoint
    assert found.kind == "state dict"
    assert found.sha256 == loaded.sha256
    assert ArchitectureRef(found.architecture.name, found.architecture.arguments) == (
        checkpoint.architecture
    )
    assert dataclasses.asdict(found.input) == dataclasses.asdict(checkpoint.input)
    assert found.class_count == 10
    assert found.weights[0].place == "state_dict"
    assert found.cost["flops"] is None


def test_building_adds_the_flops_and_the_parameters_of_the_model(shared_dir):
    path = shared_dir / "checkpoints" / "resnet20-jpeg.pt"
    model = prunecli.load(path)
    found = prunecli.info(path, build=True)
    assert found.cost["flops"] == sum(counted(model).values())
    assert found.cost["params"] == sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_told_from_statistics_and_tables_by_their_names(tmp_path, name):
    model = build_dense(ArchitectureRef(name, {}), device="meta")
    state = {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape)  # takes no room
        for key, value in model.state_dict().items()
    }
    path = tmp_path / "m.pt"
    torch.save(state, path)
    found = prunecli.info(path)
    assert found.architecture.name == name
    assert found.cost["params"] == sum(value.numel() for value in model.parameters())
    assert name in ARCHITECTURES


def test_further_weights_and_the_optimizer_are_listed(tmp_path):
    model = build_dense(ArchitectureRef("digits_vgg", {}), device="cpu")
    optimizer = torch.optim.Adam(model.parameters())
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    path = tmp_path / "run.pt"
    content = {
        "model": model.state_dict(),
        "ema": {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "best_acc": 71.5,
    }
    torch.save(content, path)
    found = prunecli.info(path)
    taken, ema, adam = found.weights
    assert [one.role for one in found.weights] == ["weights", "other", "optimizer"]
    assert [one.place for one in found.weights] == ["model", "ema", "optimizer"]
    count = sum(value.numel() for value in model.parameters())
    assert taken.parameters == ema.parameters == count
    assert set(ema.dtypes) == {"float16", "int64"}
    assert adam.dtypes["float32"] == 2 * count + len(list(model.parameters()))
    assert found.claimed == {"best_acc": 71.5}


def test_weights_in_half_precision_are_said_to_be_converted(tmp_path):
    state = build_dense(ArchitectureRef("digits_vgg", {}), device="cpu").half().state_dict()
    path = tmp_path / "half.pt"
    torch.save(state, path)
    (note,) = prunecli.info(path).architecture.assumed
    assert note.startswith("float16 weights are converted to float32")


def test_the_history_of_a_pruned_model_its_costs_and_its_export(tmp_path, monkeypatch):
    from prunecli import verbs
    from prunecli.budget import make_budget
    from prunecli.options import ExportOptions

    monkeypatch.chdir(tmp_path)
    slim, exported = tmp_path / "slim.pt", tmp_path / "slim.onnx"
    report = verbs.prune(
        VGG, output=slim, budget=make_budget(flops=0.5), command="prunecli prune x"
    )
    verbs.export(slim, output=exported, options=ExportOptions(benchmark=False), command="export y")
    for path, steps in ((slim, ["prune"]), (exported, ["prune", "export"])):
        found = prunecli.info(path)
        assert [step.verb for step in found.history] == steps
        assert found.history[0].command == "prunecli prune x"
        assert found.history[0].verified.max_rel_error == report.verified.max_rel_error
        assert found.architecture.name == "digits_vgg"
        assert found.input.height == 8
    told = prunecli.info(slim)
    assert told.kind == "artefact"
    assert told.architecture.pruned == "module"
    assert told.cost["flops"] == report.cost.after.flops
    assert told.cost["params"] == report.cost.after.params
    assert told.weights[0].parameters == report.cost.after.params


@cache
def counted(model):
    """Return the multiply-adds of an image of 32 x 32 pixels by operator, as fvcore has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 32, 32))
        return dict(analysis.unsupported_ops_warnings(False).by_operator())


@pytest.mark.parametrize("name", ["convolutions", "cifar_resnet20"])
def test_flops_and_parameters_of_an_onnx_file_are_those_of_the_network(tmp_path, name):
    known = name in ARCHITECTURES
    model = build_dense(ArchitectureRef(name, {}), device="cpu") if known else conv_net()
    path, classes = tmp_path / "m.onnx", tuple(f"c{at}" for at in range(10))
    to_onnx(randomize_(model, seed=0), path, input=CIFAR, classes=classes)
    found = prunecli.info(path)
    expected = counted(model)
    folded = {"batch_norm"}
    if "GlobalAveragePool" not in found.onnx.operators:  # the mean over an image as a sum
        folded.add("adaptive_avg_pool2d")
    assert found.cost["flops"] == sum(expected[name] for name in expected.keys() - folded)
    assert found.onnx.inputs[0].shape == ("batch", 3, 32, 32)
    assert found.onnx.producer == f"prunecli {version('prunecli')}"
    assert found.classes == classes
    assert found.input.mean == (0.5,) * 3
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    count = sum(value.numel() for value in model.parameters())
    # A norm is folded into the convolution before it: two vectors become one bias.
    assert found.cost["params"] == count - sum(norm.num_features for norm in norms)


def foreign_onnx(path, *, batch="N"):
    """Write what another tool may write: a matrix product of known size."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [12, 5], [0.5] * 60)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.producer_name, model.producer_version = "another tool", "2.0"
    helper.set_model_props(model, {"author": "somebody \x1b[31m"})
    onnx.save(model, path)


def test_an_onnx_file_of_another_tool(tmp_path):
    path = tmp_path / "m.onnx"
    foreign_onnx(path)
    found = prunecli.info(path)
    assert found.onnx.producer == "another tool 2.0"
    assert found.onnx.opsets == {"": 17}
    assert [(v.name, v.dtype, v.shape) for v in found.onnx.inputs] == [
        ("x", "float32", ("N", 3, 2, 2))
    ]
    assert found.onnx.outputs[0].shape == ("N", 5)
    assert found.cost["flops"] == 60
    assert found.cost["params"] == 60
    assert found.class_count == 5
    assert (found.input, found.architecture, found.history) == (None, None, ())
    assert found.onnx.metadata == {"author": "somebody \x1b[31m"}


def test_weights_that_no_architecture_has_are_described_all_the_same(shared_dir):
    path = shared_dir / "checkpoints" / "efficientnet-lite0.pth"
    found = prunecli.info(path)
    state = torch.load(path, weights_only=True)
    assert found.weights[0].tensors == len(state)
    assert found.weights[0].bytes == sum(v.numel() * v.element_size() for v in state.values())
    if found.architecture.name is None:
        assert "--arch" in found.architecture.problem


def test_the_user_says_which_architecture_and_which_input(tmp_path, make_checkpoint):
    path = tmp_path / "m.pt"
    torch.save(make_checkpoint("resnet18").tensors, path)
    load = LoadOptions(input_size=(64, 96), mean=(0.1, 0.2, 0.3))
    found = prunecli.info(path, load=load)
    assert (found.input.height, found.input.width, found.input.mean) == (64, 96, (0.1, 0.2, 0.3))
    with pytest.raises(InputError) as caught:
        prunecli.info(path, load=LoadOptions(architecture="resnet34"))
    assert caught.value.code == "ARCHITECTURE_MISMATCH"


def test_every_field_has_a_place_in_json(tmp_path, make_checkpoint):
    path = tmp_path / "m.pt"
    save(make_checkpoint("digits_vgg"), path)
    data = json.loads(json.dumps(to_json(prunecli.info(path))))
    assert {"file", "kind", "format", "file_bytes", "sha256", "architecture", "class_count",
            "classes", "input", "cost", "weights", "sparsity", "claimed", "versions", "history",
            "onnx", "warnings"} == set(data)  # fmt: skip
    assert data["architecture"]["name"] == "digits_vgg"


@pytest.mark.parametrize(
    ("content", "code", "exit_code"),
    [
        (b"", "EMPTY_FILE", 4),
        (b"<html>", "NOT_A_CHECKPOINT", 4),
        (b"PK\x03\x04 damaged", "CORRUPT_FILE", 4),
        (b"\x80\x02}q\x00.", "NOT_A_CHECKPOINT", 4),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "CORRUPT_FILE", 4),
    ],
)
def test_errors_are_those_of_reading(tmp_path, content, code, exit_code):
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    for look in (prunecli.info, read):
        with pytest.raises(PruneError) as caught:
            look(path)
        assert (caught.value.code, caught.value.exit_code) == (code, exit_code)


def test_damaged_onnx_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    foreign_onnx(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(LoadRefusedError) as caught:
        prunecli.info(path)
    assert caught.value.code == "CORRUPT_FILE"


def test_python_needs_no_torch_to_look_at_a_file(tmp_path, make_checkpoint):
    path = tmp_path / "m.pt"
    save(make_checkpoint("digits_vgg"), path)
    text = f"import prunecli, sys; prunecli.info({str(path)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_folder_is_pointed_to_analyze(tmp_path):
    with pytest.raises(InputError, match="prunecli analyze"):
        prunecli.info(tmp_path)


def test_a_whole_model_that_only_has_the_weights_of_another_is_not_called_that(tmp_path):
    path = tmp_path / "m.pt"
    model = build_dense(ArchitectureRef("cifar_resnet20", {}), device="cpu")
    torch.save(model, path)
    same = prunecli.info(path).architecture
    assert same.name == "cifar_resnet20"
    assert same.pickled.endswith("CifarResNet")
    model.conv1.stride = (2, 2)
    torch.save(model, path)
    other = prunecli.info(path).architecture
    assert other.name is None
    assert "conv1" in other.problem


def test_a_folder_of_the_hub_is_told_as_it_is_read(tmp_path):
    transformers = pytest.importorskip("transformers", reason="makes a folder of the hub")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic",
        id2label={0: "cat", 1: "dog", 2: "cow"},
    )  # fmt: skip
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    load = LoadOptions(input_size=(32, 32))
    found, loaded = prunecli.info(tmp_path, load=load), read(tmp_path, load)
    assert found.kind == "model folder"
    assert found.classes == ("cat", "dog", "cow")
    assert found.sha256 == loaded.sha256
    assert found.cost["params"] == sum(value.numel() for value in model.parameters())
