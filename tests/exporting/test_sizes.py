"""`--dynamic-size`: image sides are free where the forward leaves them free, else refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import prunecli
from prunecli.architectures.inputs import InputSpec
from prunecli.errors import GraphError, InputError
from prunecli.exporting import ONNX, writer_of
from tests.support.structured_networks import FixedSide, Trunk

SPEC = InputSpec(3, 16, 16, (0.0,) * 3, (1.0,) * 3)


class Segments(Trunk):
    def forward(self, x):
        y = self.head(nn.functional.avg_pool2d(self.features(x), 2))
        return {"out": nn.functional.interpolate(y, x.shape[2:], mode="bilinear")}


def test_images_of_other_sizes_give_what_torch_gives(tmp_path):
    torch.manual_seed(0)
    model, path = Segments().eval(), tmp_path / "net.onnx"
    parity = prunecli.export(model, path, input=SPEC, dynamic_size=True)
    assert parity.outputs[0].shape == ("batch", 4, "height", "width")
    assert parity.inputs == 10  # one and seven at the usual size, two at another
    session = ort.InferenceSession(str(path))
    for shape in ((1, 3, 16, 16), (3, 3, 24, 40), (2, 3, 17, 11)):
        values = torch.randn(shape)
        (made,) = session.run(None, {"input": values.numpy()})
        due = model(values)["out"].detach().numpy()
        np.testing.assert_allclose(made, due, rtol=1e-3, atol=1e-5)


def test_without_the_option_only_the_batch_is_free(tmp_path):
    prunecli.export(Segments(), tmp_path / "net.onnx", input=SPEC)
    (taken,) = ort.InferenceSession(str(tmp_path / "net.onnx")).get_inputs()
    assert taken.shape == ["batch", 3, 16, 16]


def test_a_size_that_the_forward_fixes_is_refused_with_what_goes_wrong(tmp_path):
    with pytest.raises(GraphError, match=r"height of input and width of input") as caught:
        prunecli.export(FixedSide(), tmp_path / "net.onnx", input=SPEC, dynamic_size=True)
    assert caught.value.code == "SIZE_FIXED"
    assert "at 48x80 the forward fails: mat1 and mat2" in caught.value.message
    assert list(tmp_path.iterdir()) == []


class Tabled(Trunk):
    """Adds a table of the very size of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 16, 16))

    def forward(self, x):
        return self.head(self.features(x)) + self.table


def test_a_graph_of_one_size_says_that_it_is_one(tmp_path):
    prunecli.save(Tabled(), tmp_path / "net.pt", input=SPEC)
    graph = prunecli.load(tmp_path / "net.pt")
    with pytest.raises(GraphError) as caught:
        prunecli.export(graph, tmp_path / "net.onnx", input=SPEC, dynamic_size=True)
    assert caught.value.code == "SIZE_FIXED"
    assert "a graph that was written for one size" in caught.value.hint


def test_a_model_without_image_sides_has_none_to_leave_free(tmp_path):
    model = nn.Sequential(nn.Linear(8, 4))
    spec = InputSpec.of(torch.randn(1, 8), model)
    with pytest.raises(GraphError, match="no sides of images"):
        prunecli.export(model, tmp_path / "net.onnx", input=spec, dynamic_size=True)


def test_a_format_that_knows_no_free_sides_refuses_the_option():
    other = dataclasses.replace(ONNX, label="torch.export", write_any_size=None)
    assert writer_of(other, dynamic_size=False) is other.write
    with pytest.raises(InputError, match=r"torch\.export files cannot leave the size") as caught:
        writer_of(other, dynamic_size=True)
    assert caught.value.code == "OPTION_WITHOUT_EFFECT"
