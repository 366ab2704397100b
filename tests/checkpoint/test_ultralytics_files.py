"""Files of ultralytics: a model is rebuilt from its description, of which nothing is evaluated."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from torch import nn

from prunecli.architectures.registry import build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import ArchitectureRef, load, save
from prunecli.errors import InputError, LoadRefusedError
from tests.support.weights import randomize_


def plain(output):
    """Return the first tensor in what a detector gives."""
    return output if isinstance(output, torch.Tensor) else plain(output[0])


def scaled_down(module):
    """Return the module in half precision and back, as the weights in its file are."""
    return copy.deepcopy(module).half().float().eval()


def saved(module, path, **more):
    torch.save({"epoch": -1, "model": copy.deepcopy(module).half(), "ema": None, **more}, path)
    return path


@pytest.fixture(scope="module")
def tasks():
    pytest.importorskip("ultralytics", reason="makes files with the package itself")
    from ultralytics.nn import tasks

    return tasks


@pytest.fixture(scope="module")
def detector(tasks):
    module = randomize_(tasks.DetectionModel("yolov8n.yaml", nc=3, verbose=False), seed=0).eval()
    module.names = {0: "cat", 1: "dog", 2: "cow"}
    module.args = {"imgsz": 64, "data": "coco.yaml"}
    return module


IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_detector_is_read_rebuilt_and_written_as_any_other_model(detector, tmp_path):
    loaded = load(saved(detector, tmp_path / "best.pt"))
    checkpoint = loaded.checkpoint
    assert checkpoint.architecture == ArchitectureRef(
        "ultralytics/yolov8n", {"num_classes": 3, "channels": 3}
    )
    assert checkpoint.classes == ("cat", "dog", "cow")
    assert checkpoint.input.shape == (3, 64, 64)
    assert (checkpoint.input.mean, checkpoint.input.std) == ((0.0,) * 3, (1.0,) * 3)
    assert "(ultralytics.nn.tasks.DetectionModel)" in loaded.warnings[0]
    expected = plain(scaled_down(detector)(IMAGES))
    assert torch.equal(plain(instantiate(checkpoint)(IMAGES)), expected)
    save(checkpoint, tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors").checkpoint
    assert again.architecture == checkpoint.architecture
    assert again.classes == checkpoint.classes
    assert torch.equal(plain(instantiate(again)(IMAGES)), expected)


def test_the_average_is_taken_where_the_model_itself_was_not_saved(detector, tmp_path):
    torch.save({"model": None, "ema": copy.deepcopy(detector).half()}, tmp_path / "last.pt")
    checkpoint = load(tmp_path / "last.pt").checkpoint
    assert checkpoint.architecture.name == "ultralytics/yolov8n"
    assert checkpoint.metadata["source"]["place"] == "ema"


@torch.no_grad()
def test_a_table_of_its_own_is_rebuilt_from_the_file(tasks, tmp_path):
    table = {
        "nc": 5,
        "activation": "torch.nn.ReLU()",
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C2f", [16, True]]],
        "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [-1, 1, "Classify", ["nc"]]],
    }
    module = tasks.ClassificationModel(copy.deepcopy(table), ch=1, verbose=False)
    module = randomize_(module, seed=1).eval()
    checkpoint = load(saved(module, tmp_path / "own.pt")).checkpoint
    assert checkpoint.architecture.name == "ultralytics/ClassificationModel"
    assert checkpoint.input.shape == (1, 224, 224)
    save(checkpoint, tmp_path / "again.pt")
    rebuilt = instantiate(load(tmp_path / "again.pt").checkpoint)
    images = IMAGES[:, :1]
    assert torch.equal(plain(rebuilt(images)), plain(scaled_down(module)(images)))
    assert any(isinstance(layer, nn.ReLU) for layer in rebuilt.modules())


BAD = {
    "an activation with code": {"activation": "__import__('os').system('touch MARK')"},
    "a layer of another kind": {"head": [[-1, 1, "TorchVision", [8, "resnet18", "DEFAULT"]]]},
    "a function as a layer": {"head": [[-1, 1, "torchvision.ops.nms", [8]]]},
    "a global as a layer": {"backbone": [[-1, 1, "torch_safe_load", ["x"]]]},
    "a class that is reached": {"backbone": [[-1, 1, "nn.Module.register_module", []]]},
    "a word with code": {"backbone": [[-1, 1, "Conv", ["().__class__"]]]},
    "a name of the parser": {"backbone": [[-1, 1, "Conv", ["d"]]]},
    "a wide layer": {"backbone": [[-1, 1, "Conv", [10**9, 3, 2]]]},
    "many layers": {"backbone": [[-1, 10**9, "Conv", [8, 3, 2]]]},
    "many classes": {"nc": 10**12},
    "no classes": {"nc": None},
    "a number that is none": {"depth_multiple": float("nan")},
    "lists in lists": {"backbone": [[-1, 1, "Conv", [[[8]]]]]},
    "no list": {"backbone": "Conv"},
    "no rows": {"head": []},
}
GOOD = {"nc": 2, "channels": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
        "head": [[-1, 1, "Classify", ["nc"]]]}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_table_that_is_not_plain_is_refused_and_nothing_runs(what, tasks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tasks.ClassificationModel(copy.deepcopy(GOOD), verbose=False)
    module.yaml = {**GOOD, **BAD[what]}
    with pytest.raises(LoadRefusedError) as caught:
        load(saved(module, tmp_path / "bad.pt"))
    assert (caught.value.code, caught.value.exit_code) == ("UNKNOWN_LAYERS", 4)
    assert "--arch" in caught.value.hint
    name = "ultralytics/ClassificationModel"
    with pytest.raises(InputError) as caught:
        build_dense(ArchitectureRef(name, {"table": {**GOOD, **BAD[what]}}))
    assert caught.value.code in {"ARGUMENT_REFUSED", "FACTORY_FAILED"}
    assert not (tmp_path / "MARK").exists()
    build_dense(ArchitectureRef(name, {"table": GOOD}))


def test_a_table_of_many_wide_layers_is_refused_before_it_takes_memory(tasks):
    rows = [[-1, 1, "Conv", [16_384, 3, 1]]] * 20
    with pytest.raises(InputError, match="weights"):
        build_dense(
            ArchitectureRef(
                "ultralytics/ClassificationModel", {"table": {**GOOD, "backbone": rows}}
            )
        )


@pytest.mark.parametrize("name", ["yolov8q", "../yolov8n", "yolov8n.yaml", "", "yolov8-world"])
def test_names_that_the_package_does_not_know_are_errors(name, tasks):
    with pytest.raises(InputError) as caught:
        build_dense(ArchitectureRef(f"ultralytics/{name}"))
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
        lost = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, lost)

    class DetectionModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(3, 8, 3))
            self.yaml = {**GOOD, "yaml_file": "yolov8n.yaml"}

    DetectionModel.__module__, DetectionModel.__qualname__ = lost.__name__, "DetectionModel"
    lost.DetectionModel = DetectionModel
    torch.save({"model": DetectionModel()}, tmp_path / "m.pt")
    for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="needs ultralytics") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "MISSING_EXTRA"
    assert caught.value.hint == "pip install ultralytics"


def test_a_state_dict_is_read_by_the_name_that_the_user_gives(detector, tmp_path):
    torch.save(detector.state_dict(), tmp_path / "weights.pt")
    name, given = "ultralytics/yolov8n", {"num_classes": 3}
    found = load(tmp_path / "weights.pt", architecture=name, architecture_args=given).checkpoint
    assert found.architecture == ArchitectureRef(name, given)
    assert found.input.shape == (3, 640, 640)
    assert all(torch.equal(t, detector.state_dict()[n]) for n, t in found.tensors.items())
