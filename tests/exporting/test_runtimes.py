"""Other runtimes than ONNX Runtime: there or not, and computing the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.architectures.reference import InputSpec
from prunecli.errors import DeviceError, InputError, ProofError
from prunecli.exporting import check_devices, to_onnx
from prunecli.exporting.onnx.runtime import open_session
from prunecli.exporting.timing import openvino
from prunecli.exporting.timing.engines import Contestant
from prunecli.exporting.timing.race import Racer, race

SPEC = InputSpec(3, 8, 8, (0.5,) * 3, (0.2,) * 3)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("runtimes") / "net.onnx"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    to_onnx(net, path, input=SPEC)
    return path


def test_openvino_that_is_not_installed_is_exit_6_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(openvino, "find_spec", lambda _: None)
    with pytest.raises(DeviceError, match="not installed") as caught:
        check_devices(("cpu",), runtimes=("onnxruntime", "openvino"))
    assert caught.value.exit_code == 6
    assert "prunecli[openvino]" in caught.value.hint


@pytest.mark.parametrize(("runtime", "device"), [("openvino", "cuda"), ("tensorrt", "cpu")])
def test_a_runtime_on_a_device_that_it_does_not_have_is_refused(runtime, device):
    with pytest.raises(DeviceError, match=f"{runtime} is not there for {device}"):
        check_devices((device,), runtimes=(runtime,))


def test_tensorrt_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="tensorrt is not there"):
        check_devices(("cuda",), runtimes=("tensorrt",))


def test_an_unknown_runtime_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="unknown runtime 'openvina'") as caught:
        check_devices(("cpu",), runtimes=("openvina",))
    assert "openvino" in caught.value.hint


def test_both_runtimes_are_rows_of_one_table(file):
    pytest.importorskip("openvino")
    racers = [Racer("net.onnx", Contestant(file), SPEC)]
    rows = race(
        racers, runtimes=("onnxruntime", "openvino"), batches=(1, 4), threads=1, runs=5,
        time_limit=1.0,
    )  # fmt: skip
    assert [(row.provider, row.batch) for row in rows] == [
        ("CPUExecutionProvider", 1), ("CPUExecutionProvider", 4), ("OpenVINO", 1), ("OpenVINO", 4),
    ]  # fmt: skip
    assert rows[2].where == "cpu (OpenVINO) at batch 1"
    assert all(row.models[0].median > 0 for row in rows)


def test_a_runtime_that_computes_something_else_is_not_timed(file, monkeypatch):
    pytest.importorskip("openvino")
    session = open_session(file)
    wrong = {session.get_outputs()[0].name: np.ones((1, 5), np.float32)}
    monkeypatch.setattr(openvino, "run", lambda *_: wrong)
    with pytest.raises(ProofError, match="OpenVINO and ONNX Runtime differ"):
        openvino.openvino_run(file, input=SPEC, batch=1, threads=1, seed=0)
