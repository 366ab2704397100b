"""The opset of a file is the usual one, or the lowest that has all operators of the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import prunecli
from prunecli.architectures.inputs import InputSpec
from prunecli.errors import InputError
from prunecli.exporting.onnx.translate import newer_operators
from tests.support.structured_networks import Deformed

SPEC = InputSpec(3, 16, 16, (0.0,) * 3, (1.0,) * 3)


def test_a_deformable_convolution_raises_the_opset_and_it_is_said(tmp_path):
    torch.manual_seed(0)
    model, path = Deformed().eval(), tmp_path / "net.onnx"
    parity = prunecli.export(model, path, input=SPEC)
    (opset,) = [one.version for one in onnx.load(str(path)).opset_import if one.domain == ""]
    assert opset == 19
    assert parity.notes == ("written with opset 19, which the model needs: DeformConv (opset 19)",)
    for batch in (1, 3):
        values = torch.randn(batch, 3, 16, 16)
        (made,) = ort.InferenceSession(str(path)).run(None, {"input": values.numpy()})
        np.testing.assert_allclose(made, model(values).detach().numpy(), rtol=1e-3, atol=1e-5)


def test_an_opset_that_lacks_an_operator_is_refused_with_its_name(tmp_path):
    with pytest.raises(InputError, match=r"opset 18 lacks .*: DeformConv \(opset 19\)") as caught:
        prunecli.export(Deformed(), tmp_path / "net.onnx", input=SPEC, opset=18)
    assert (caught.value.code, caught.value.hint) == ("BAD_OPSET", "use --opset 19, or none")
    assert list(tmp_path.iterdir()) == []


def test_operators_inside_of_branches_and_functions_count():
    newer = onnx.helper.make_node("Gelu", ["x"], ["y"])
    inner = onnx.helper.make_graph([newer], "inner", [], [])
    branch = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    model = onnx.helper.make_model(onnx.helper.make_graph([branch], "g", [], []))
    assert newer_operators(model, 18) == {"Gelu": 20}
    assert newer_operators(model, 20) == {}
