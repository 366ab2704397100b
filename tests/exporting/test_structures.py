"""Exported files keep every output of a network, by name, each compared on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.architectures.argument import Argument
from prunecli.architectures.inputs import InputSpec
from prunecli.errors import ProofError
from prunecli.exporting import ONNX, check_parity, read_metadata, to_onnx, write_proven
from tests.support.structured_networks import (
    Detector,
    Named,
    Pair,
    Reader,
    Several,
    Signals,
    Suppressing,
    TimeFirst,
    Trunk,
    Volumes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC = InputSpec(3, 16, 16, (0.0,) * 3, (1.0,) * 3)


def flat(value: Any) -> list[Tensor]:
    """Return the tensors of an output, by hand and in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in flat(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flat(item)]
    return flat(list(vars(value).values())) if hasattr(value, "__dict__") else []


def assert_same(
    path: Path, model: nn.Module, given: Mapping[str, Tensor], names: list[str]
) -> None:
    """Compare ONNX Runtime itself with torch, on one call by name."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    made = session.run(names, {name: value.numpy() for name, value in given.items()})
    own = "input" in given
    with torch.no_grad():
        due = flat(model(*given.values()) if own else model(**given))
    assert len(made) == len(due)
    for name, one, other in zip(names, made, due, strict=True):
        assert one.shape == tuple(other.shape), name
        assert one.dtype == other.numpy().dtype, name
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)


CASES = {
    "nested lists": (Pair, ["out.0", "out.1.0", "out.1.2.most"]),
    "a dict of awkward names": (Named, ["relu", "bias", "out.x", "add", "twice"]),
    "a record": (Detector, ["boxes", "labels", "found"]),
    "the batch in the middle": (TimeFirst, ["logits"]),
}


@pytest.mark.parametrize(("kind", "names"), CASES.values(), ids=CASES)
def test_every_output_has_its_name_and_its_parity(kind, names, tmp_path):
    torch.manual_seed(0)
    model, path = kind().eval(), tmp_path / "net.onnx"
    spec = SPEC if kind is not Named else InputSpec(arguments=(Argument("x", (3, 16, 16)),))
    parity = prunecli.export(model, path, input=spec)
    assert [output.name for output in parity.outputs] == names
    assert all(output.max_rel_error < 1e-5 for output in parity.outputs)
    assert all("batch" in output.shape for output in parity.outputs)
    key = spec.tensors[0].name
    for batch in (1, 3):
        given = {key: torch.randn(batch, 3, 16, 16)}
        assert_same(path, model, given, names)


def test_what_is_no_tensor_is_left_out_and_said(tmp_path):
    parity = prunecli.export(Detector(), tmp_path / "net.onnx", input=SPEC)
    assert parity.notes == ("the output count is 4, no tensor: it is left out",)
    assert {output.name: output.dtype for output in parity.outputs} == {
        "boxes": "float32",
        "labels": "int64",
        "found": "bool",
    }


def test_outputs_whose_rows_depend_on_values_are_said(tmp_path):
    parity = prunecli.export(Suppressing(), tmp_path / "net.onnx", input=SPEC)
    (note,) = parity.notes
    assert note == "the number of rows of boxes depends on the values of an input"
    boxes, raw = parity.outputs
    assert boxes.shape == ("found_1", 4)
    assert raw.shape == ("batch", 256, 4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_take_any_batch_and_any_length(kind, tmp_path):
    torch.manual_seed(0)
    model, path = Reader(kind).eval(), tmp_path / "net.onnx"
    spec = InputSpec(1, 8, 16, (0.0,), (1.0,))
    parity = prunecli.export(model, path, input=spec, dynamic_size=True)
    assert parity.outputs[0].shape == ("(width//2)", "batch", 5)
    for batch, height, width in ((1, 8, 16), (3, 8, 16), (2, 10, 42)):
        assert_same(path, model, {"input": torch.randn(batch, 1, height, width)}, ["logits"])


# --- a file that is not its network ---------------------------------------------------------------


class Scaled(nn.Module):
    """A second output that a weight scales."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = self.trunk.features(x).mean((2, 3))
        return {"logits": y, "scaled": y * self.scale, "high": y * self.scale > 0.3}


def test_an_output_that_differs_is_named_and_the_others_are_not(tmp_path):
    torch.manual_seed(0)
    model, path = Scaled(), tmp_path / "net.onnx"
    to_onnx(model, path, input=SPEC)
    with torch.no_grad():
        model.scale.fill_(1.01)
    with pytest.raises(ProofError, match=r"relative error 9\..*e-03 of scaled, allowed") as caught:
        check_parity(model, path, input=SPEC)
    assert "logits" not in caught.value.message


class Rounded(nn.Module):
    """Class numbers of pixels, from scores that a bias moves."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(4, 1, 1))

    def forward(self, x):
        y = self.first(x) + self.shift
        return y.argmax(1), y > 0.1, (y * 8).round().to(torch.int32)


def test_integers_that_differ_are_an_error_unless_they_are_on_an_edge(tmp_path):
    torch.manual_seed(0)
    model, path = Rounded(), tmp_path / "net.onnx"
    to_onnx(model, path, input=SPEC)
    assert check_parity(model, path, input=SPEC).notes == ()
    with torch.no_grad():  # what rounding may do: some of thousands of values cross their edge
        model.shift += torch.tensor([3e-5, -3e-5, 3e-5, -3e-5]).view(4, 1, 1)
    parity = check_parity(model, path, input=SPEC)
    assert sum(output.ties for output in parity.outputs) > 0
    assert "integers on an edge" in parity.notes[0]
    with torch.no_grad():
        model.shift += torch.tensor([0.01, 0, 0, 0]).view(4, 1, 1)
    with pytest.raises(ProofError, match=r"\d+ of \d+ values of out\.1 are not equal"):
        check_parity(model, path, input=SPEC)


# --- inputs of any kind ---------------------------------------------------------------------------


def test_volumes_and_signals_are_called_as_the_forward_does(tmp_path):
    cases = ((Volumes(), torch.randn(1, 2, 6, 6, 6)), (Signals(), torch.randn(1, 2, 32)))
    for model, example in cases:
        path, spec = tmp_path / f"{type(model).__name__}.onnx", InputSpec.of(example, model)
        assert prunecli.export(model, path, input=spec, dynamic_size=True).max_rel_error < 1e-5
        name = spec.arguments[0].name
        for shape in ((1, *example.shape[1:]), (3, 2, *(9,) * (example.dim() - 2))):
            assert_same(path, model, {name: torch.randn(shape)}, ["logits"])


def test_several_inputs_go_through_prune_save_load_and_export(tmp_path):
    torch.manual_seed(0)
    example = {
        "image": torch.randn(1, 3, 16, 16),
        "mask": torch.rand(1, 1, 16, 16),
        "ids": torch.randint(0, 50, (1, 7)),
        "whole": False,
    }
    result = prunecli.prune(Several().eval(), example, flops=0.6)
    names = ["logits", "out.mask"]
    parity = prunecli.export(result, tmp_path / "slim.onnx")
    assert [output.name for output in parity.outputs] == names
    prunecli.save(result, tmp_path / "slim.pt")
    loaded = prunecli.load(tmp_path / "slim.pt")
    spec = result.input
    prunecli.export(loaded, tmp_path / "loaded.onnx", input=spec)
    assert read_metadata(tmp_path / "loaded.onnx").input == spec
    for batch in (1, 3):
        tensors = (
            torch.randn(batch, 3, 16, 16),
            torch.rand(batch, 1, 16, 16),
            torch.randint(0, 50, (batch, 7)),
        )
        feeds = dict(zip(("image", "mask", "ids"), tensors, strict=True))
        due = result.model(*tensors, whole=False)
        for file in ("slim.onnx", "loaded.onnx"):
            session = ort.InferenceSession(str(tmp_path / file))
            made = session.run(names, {name: value.numpy() for name, value in feeds.items()})
            for one, other in zip(made, due.values(), strict=True):
                np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-3, atol=1e-5)


def test_a_weight_that_is_called_as_an_output_gives_its_name_up(tmp_path):
    path = tmp_path / "net.onnx"
    write_proven(ONNX, Named(), path, input=SPEC)
    graph = onnx.load(str(path)).graph
    assert "bias" not in {tensor.name for tensor in graph.initializer}
    assert "first.weight" in {tensor.name for tensor in graph.initializer}
    assert [value.name for value in graph.output] == ["relu", "bias", "x", "add", "twice"]
