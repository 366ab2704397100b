"""Writing ONNX files: what is in them, that they are proven, and that a failure leaves nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from prunecli.architectures.reference import InputSpec
from prunecli.errors import GraphError, InputError, LoadRefusedError, ProofError
from prunecli.evaluation.relative import relative_errors
from prunecli.exporting import ONNX, check_parity, read_metadata, to_onnx, write_proven
from prunecli.exporting.onnx.file import model_bytes
from prunecli.exporting.onnx.tidy import deduplicate_, initializer_bytes

SPEC = InputSpec(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
CLASSES = ("cat", "dog", "bird", "frog")


class PaddedNet(nn.Module):
    """A strided block with a zero-padded shortcut, as the CIFAR residual networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(self.deep(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(x.mean((2, 3)))


def make_net() -> nn.Module:
    torch.manual_seed(0)
    net = PaddedNet()
    with torch.no_grad():
        net.norm.running_mean.uniform_(-1, 1)
        net.norm.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    file, parity = write_proven(
        ONNX,
        net,
        path,
        input=SPEC,
        classes=CLASSES,
        metadata={"seed": "7", "command": "prunecli export"},
    )
    return file, parity


def session_of(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_an_exported_file_passes_the_checker_and_states_its_size_and_opset(exported):
    file, _ = exported
    onnx.checker.check_model(str(file.path), full_check=True)
    proto = onnx.load(str(file.path))
    assert file.bytes == file.path.stat().st_size
    assert [item.version for item in proto.opset_import if item.domain == ""] == [file.opset]


def test_the_batch_is_dynamic_and_every_batch_gives_what_torch_gives(net, exported):
    session = session_of(exported[0].path)
    net.eval()
    for batch in (1, 2, 5):
        values = torch.randn(batch, *SPEC.shape)
        (output,) = session.run(["logits"], {"input": values.numpy()})
        np.testing.assert_allclose(output, net(values).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_parity_is_reported_and_small(exported):
    assert exported[1].inputs == 8
    assert 0 < exported[1].max_rel_error < 1e-5


def test_initialisers_hold_no_more_than_the_model(net, exported):
    graph = onnx.load(str(exported[0].path)).graph
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    floats = sum(array.nbytes for array in weights if array.dtype == np.float32)
    assert sum(array.nbytes for array in weights) == initializer_bytes(graph)
    assert 0 < floats <= model_bytes(net)


def test_metadata_tells_input_classes_and_provenance(exported):
    metadata = read_metadata(exported[0].path)
    assert metadata.input == SPEC
    assert metadata.classes == CLASSES
    assert metadata.provenance == {"seed": "7", "command": "prunecli export"}


def test_the_file_holds_no_path_of_this_machine(exported):
    content = exported[0].path.read_bytes()
    for secret in (str(Path.home()), str(Path(torch.__file__).parent), str(Path(__file__).parent)):
        assert secret.encode() not in content


def test_the_same_model_gives_the_same_bytes_in_another_process(exported, tmp_path):
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "import tests.exporting.test_onnx as t; "
        "t.to_onnx(t.make_net(), Path(sys.argv[2]), input=t.SPEC, classes=t.CLASSES,"
        " metadata={'command': 'prunecli export', 'seed': '7'})"
    )
    other = tmp_path / "other.onnx"
    subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parents[2]), str(other)],
        check=True,
        env={"PYTHONHASHSEED": "123", "PATH": ""},
        timeout=120,
    )
    assert hashlib.sha256(other.read_bytes()).digest() == (
        hashlib.sha256(exported[0].path.read_bytes()).digest()
    )


def test_the_model_keeps_its_modes_and_its_weights(tmp_path):
    model = make_net().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_proven(ONNX, model, tmp_path / "net.onnx", input=SPEC)
    assert model.training
    assert not model.norm.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_channels_last_model_is_exported_the_same(exported, tmp_path):
    model = make_net().to(memory_format=torch.channels_last)
    file = to_onnx(
        model,
        tmp_path / "net.onnx",
        input=SPEC,
        classes=CLASSES,
        metadata={"seed": "7", "command": "prunecli export"},
    )
    assert file.path.read_bytes() == exported[0].path.read_bytes()


def test_nothing_is_printed_while_exporting(tmp_path, capfd):
    to_onnx(make_net(), tmp_path / "net.onnx", input=SPEC)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("opset", [20, 22])
def test_a_wanted_opset_is_written(opset, tmp_path):
    file, _ = write_proven(ONNX, make_net(), tmp_path / "net.onnx", input=SPEC, opset=opset)
    assert file.opset == opset


@pytest.mark.parametrize("opset", [7, 17, 1000])
def test_an_opset_that_cannot_be_written_is_refused(opset, tmp_path):
    with pytest.raises(InputError, match=f"opset {opset} cannot be written") as caught:
        to_onnx(make_net(), tmp_path / "net.onnx", input=SPEC, opset=opset)
    assert caught.value.code == "BAD_OPSET"
    assert list(tmp_path.iterdir()) == []


def test_a_torchvision_network_is_exported_and_proven(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=5)
    spec = InputSpec(3, 64, 64, (0.5,) * 3, (0.2,) * 3)
    file, parity = write_proven(ONNX, model, tmp_path / "net.onnx", input=spec)
    assert parity.max_rel_error < 1e-4
    assert file.bytes < model_bytes(model) + 100_000


class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.load_state_dict(self.first.state_dict())

    def forward(self, x):
        return self.second(functional.relu(self.first(x))).flatten(1)


def test_equal_weights_are_written_once(tmp_path):
    model = SharedWeight()
    file, _ = write_proven(ONNX, model, tmp_path / "net.onnx", input=SPEC)
    weights = onnx.load(str(file.path)).graph.initializer
    assert sorted(tuple(tensor.dims) for tensor in weights if len(tensor.dims) != 1) == [
        (3, 3, 3, 3)
    ]


def test_deduplication_keeps_tensors_that_differ_in_type_shape_or_value():
    arrays = {
        "a": np.zeros((2, 2), np.float32),
        "b": np.zeros((4,), np.float32),
        "c": np.zeros((2, 2), np.int32),
        "d": np.ones((2, 2), np.float32),
        "e": np.zeros((2, 2), np.float32),
    }
    node = onnx.helper.make_node("Sum", ["a", "e"], ["y"])
    inits = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = onnx.helper.make_graph([node], "g", [], [], inits)
    deduplicate_(graph)
    assert [tensor.name for tensor in graph.initializer] == ["a", "b", "c", "d"]
    assert list(graph.node[0].input) == ["a", "a"]


def test_deduplication_reaches_into_inner_graphs():
    zero = np.zeros(3, np.float32)
    inner_node = onnx.helper.make_node("Identity", ["copy"], ["out"])
    inner = onnx.helper.make_graph([inner_node], "inner", [], [])
    node = onnx.helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner)
    inits = [onnx.numpy_helper.from_array(zero, name) for name in ("zero", "copy")]
    graph = onnx.helper.make_graph([node], "g", [], [], inits)
    deduplicate_(graph)
    assert [attribute.g.node[0].input[0] for attribute in graph.node[0].attribute] == ["zero"] * 2


class Bloated(nn.Module):
    """Computes a constant from nothing but numbers that the graph has to carry."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (x * torch.tensor(np.random.default_rng(0).random((3, 32, 32), np.float32))).mean(
            (2, 3)
        ) * self.scale


def test_a_graph_with_more_weights_than_the_model_is_refused(tmp_path):
    big = InputSpec(3, 32, 32, (0.5,) * 3, (0.2,) * 3)

    with pytest.raises(GraphError, match=r"holds \d+ bytes of weights") as caught:
        to_onnx(Bloated(), tmp_path / "net.onnx", input=big)
    assert caught.value.code == "EXPORT_BLOATED"
    assert list(tmp_path.iterdir()) == []


class Eigen(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real.flatten(1)


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.view(2, 3, 256).mean(2)


def test_a_batch_that_the_forward_fixes_is_fixed_and_said(tmp_path):
    file, parity = write_proven(ONNX, FixedBatch(), tmp_path / "net.onnx", input=SPEC)
    (note,) = parity.notes
    assert "the batch is fixed at 2" in note
    assert parity.outputs[0].shape == (2, 3)
    session = session_of(file.path)
    values = torch.randn(2, *SPEC.shape)
    (output,) = session.run(None, {"input": values.numpy()})
    np.testing.assert_allclose(output, FixedBatch()(values).numpy(), rtol=1e-5, atol=1e-6)


class Raising(nn.Module):
    def forward(self, x):
        raise KeyError("no such layer", len(x))


@pytest.mark.parametrize(
    ("model", "reason", "where"),
    [
        (Eigen(), "linalg_eig", "operator aten.linalg_eig.default, node linalg_eig"),
        (Branching(), "data-dependent", f"{__file__}:"),
        (Raising(), "no such layer", ""),
    ],
)
def test_a_network_that_cannot_be_exported_says_what_and_where(
    model, reason, where, tmp_path, capfd
):
    with pytest.raises(GraphError, match=reason) as caught:
        to_onnx(model, tmp_path / "net.onnx", input=SPEC)
    assert caught.value.code == "EXPORT_FAILED"
    assert caught.value.exit_code == 3
    assert where in (caught.value.where or "")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_failed_proof_writes_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ProofError, match="relative error") as caught:
        write_proven(ONNX, make_net(), path, input=SPEC, tolerance=0.0)
    assert (caught.value.code, caught.value.exit_code) == ("PARITY_FAILED", 5)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_parity_notices_one_changed_weight(exported):
    other = make_net()
    with torch.no_grad():
        other.head.bias[0] += 0.01
    with pytest.raises(ProofError, match="ONNX Runtime and torch differ"):
        check_parity(other, exported[0].path, input=SPEC)


def test_parity_fails_on_outputs_that_are_not_numbers(exported):
    other = make_net()
    with torch.no_grad():
        other.head.bias[0] = float("nan")
    with pytest.raises(ProofError):
        check_parity(other, exported[0].path, input=SPEC)


def test_relative_errors_are_per_input_and_never_comparable_across_shapes():
    actual = np.array([[1.0, 2.0], [0.0, 0.0]])
    expected = np.array([[1.0, 4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(relative_errors(actual, expected), [0.5, 0.0])
    assert np.isinf(relative_errors(actual, expected[:, :1])).all()
    assert np.isinf(relative_errors(actual * np.nan, expected)).any()


def test_weights_above_the_limit_go_into_a_file_beside(net, tmp_path):
    path = tmp_path / "net.onnx"
    file, weights = to_onnx(net, path, input=SPEC, embed_limit=100), tmp_path / "net.onnx.data"
    assert sorted(tmp_path.iterdir()) == [path, weights]
    assert file.bytes == path.stat().st_size + weights.stat().st_size
    assert check_parity(net, path, input=SPEC).max_rel_error < 1e-5
    assert read_metadata(path).input == SPEC


def test_a_failed_proof_of_a_file_with_weights_beside_leaves_nothing(net, tmp_path):
    def refuse(_: Path) -> None:
        raise ProofError("no", code="PARITY_FAILED")

    with pytest.raises(ProofError):
        to_onnx(net, tmp_path / "net.onnx", input=SPEC, embed_limit=100, prove=refuse)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_not_there_is_an_error(net, tmp_path):
    with pytest.raises(InputError) as caught:
        to_onnx(net, tmp_path / "missing" / "net.onnx", input=SPEC)
    assert caught.value.code == "UNWRITABLE_OUTPUT"


def test_reserved_metadata_keys_are_refused(net, tmp_path):
    with pytest.raises(ValueError, match="classes"):
        to_onnx(net, tmp_path / "net.onnx", input=SPEC, metadata={"classes": "[]"})


@pytest.mark.parametrize("content", [b"not an onnx file", b"\x08\x0a", b"PK\x03\x04 zip", None])
def test_a_corrupt_file_is_refused(content, exported, tmp_path):
    path = tmp_path / "bad.onnx"
    whole = exported[0].path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    for read in (read_metadata, lambda file: check_parity(make_net(), file, input=SPEC)):
        with pytest.raises(LoadRefusedError) as caught:
            read(path)
        assert (caught.value.code, caught.value.exit_code) == ("CORRUPT_FILE", 4)
        assert caught.value.where == str(path)


def test_empty_missing_and_folder_inputs_say_so(tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(LoadRefusedError, match="empty") as caught:
        read_metadata(tmp_path / "empty.onnx")
    assert caught.value.code == "EMPTY_FILE"
    for path, words in ((tmp_path / "none.onnx", "no such file"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=words) as missing:
            read_metadata(path)
        assert missing.value.code == "FILE_NOT_FOUND"


def test_unreadable_metadata_is_a_corrupt_file(exported, tmp_path):
    proto = onnx.load(str(exported[0].path))
    onnx.helper.set_model_props(proto, {"prunecli.input": '{"channels": 3}'})
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    with pytest.raises(LoadRefusedError, match="metadata cannot be read"):
        read_metadata(tmp_path / "bad.onnx")


def test_a_file_of_another_tool_has_no_metadata(exported, tmp_path):
    proto = onnx.load(str(exported[0].path))
    onnx.helper.set_model_props(proto, {"author": "somebody"})
    onnx.save(proto, str(tmp_path / "other.onnx"))
    metadata = read_metadata(tmp_path / "other.onnx")
    assert metadata.input is None
    assert metadata.classes is None
    assert metadata.provenance == {}
