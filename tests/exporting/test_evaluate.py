"""Scoring an ONNX file on images, against torch's own arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.architectures.reference import InputSpec
from prunecli.data import MemoryImageSet
from prunecli.errors import InputError
from prunecli.exporting import evaluate_onnx, to_onnx
from prunecli.exporting.onnx.evaluate import match_classes, normalise, score

SPEC = InputSpec(3, 8, 8, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CLASSES = tuple("abcdefg")


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, len(CLASSES))
    ).eval()


def make_images(*, count: int = 53, classes: tuple[str, ...] = CLASSES, size: int = 8, labels=None):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (count, 3, size, size), generator=generator).to(torch.uint8)
    return MemoryImageSet(
        labels=torch.randint(len(classes), (count,), generator=generator)
        if labels is None
        else labels,
        classes=classes,
        paths=tuple(str(index) for index in range(count)),
        split="test",
        warnings=("2 images were converted",),
        pixels=pixels,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "net.onnx"
    to_onnx(make_net(), path, input=SPEC, classes=CLASSES)
    return path


def torch_logits(images) -> torch.Tensor:
    mean = torch.tensor(SPEC.mean).view(-1, 1, 1)
    deviation = torch.tensor(SPEC.std).view(-1, 1, 1)
    with torch.no_grad():
        return make_net()((images.pixels / 255 - mean) / deviation)


@pytest.mark.parametrize("batch_size", [7, 53, 256])
def test_scores_are_those_of_torch(path, batch_size):
    images = make_images()
    logits = torch_logits(images)
    steps = []
    result = evaluate_onnx(path, images, batch_size=batch_size, progress=steps.append)
    hits = logits.argmax(1) == images.labels
    top = (logits.topk(5).indices == images.labels[:, None]).any(1)
    assert result.accuracy == pytest.approx(hits.float().mean().item())
    assert result.top5 == pytest.approx(top.float().mean().item())
    assert result.loss == pytest.approx(
        functional.cross_entropy(logits, images.labels).item(), rel=1e-5
    )
    assert result.count == 53
    assert result.per_class == pytest.approx(
        {
            name: hits[images.labels == index].float().mean().item()
            for index, name in enumerate(CLASSES)
        }
    )
    assert (result.split, result.warnings) == ("test", images.warnings)
    assert (steps[-1].done, steps[-1].total) == (53, 53)


def test_classes_in_another_order_are_matched_by_name(path):
    images = make_images()
    shuffled = tuple(reversed(CLASSES))
    renamed = make_images(classes=shuffled, labels=len(CLASSES) - 1 - images.labels)
    first, second = evaluate_onnx(path, images), evaluate_onnx(path, renamed)
    assert (first.accuracy, first.loss) == (second.accuracy, second.loss)
    assert first.per_class == second.per_class


def test_classes_with_other_names_are_taken_in_order_with_a_warning(path):
    result = evaluate_onnx(path, make_images(classes=("a", "b", "c", "d", "e", "f", "x")))
    assert result.accuracy == evaluate_onnx(path, make_images()).accuracy
    assert "1 of 7 classes of the data are unknown to the model by name (x)" in result.warnings[-1]


def test_classes_that_nobody_named_are_not_warned_about():
    order, warnings = match_classes(None, ("a", "b"))
    assert order.tolist() == [0, 1]
    assert warnings == ()


def test_only_classes_with_images_have_a_score_of_their_own(path):
    images = make_images(labels=torch.full((53,), 2))
    assert set(evaluate_onnx(path, images).per_class) == {"c"}


def test_a_wrong_number_of_classes_is_refused(path):
    with pytest.raises(InputError, match="has 7 outputs but the data has 2") as caught:
        evaluate_onnx(path, make_images(classes=("a", "b")))
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


def test_images_of_another_size_are_refused(path):
    with pytest.raises(InputError, match="the model takes") as caught:
        evaluate_onnx(path, make_images(size=9))
    assert caught.value.code == "IMAGE_SHAPE_MISMATCH"


def test_no_images_at_all_are_refused(path):
    with pytest.raises(InputError) as caught:
        evaluate_onnx(path, make_images(count=0))
    assert caught.value.code == "NO_IMAGES"


def foreign_file(path, folder, *, batch: int | None):
    """Return the network as another tool might have written it: no metadata, perhaps one batch."""
    proto = onnx.load(str(path))
    del proto.metadata_props[:]
    if batch is not None:
        for end in (*proto.graph.input, *proto.graph.output):
            end.type.tensor_type.shape.dim[0].dim_value = batch
        del proto.graph.value_info[:]
    onnx.save(proto, str(folder / "foreign.onnx"))
    return folder / "foreign.onnx"


def test_a_file_of_another_tool_needs_to_be_told_its_input(path, tmp_path):
    foreign = foreign_file(path, tmp_path, batch=None)
    with pytest.raises(InputError, match="does not say how images become its input") as caught:
        evaluate_onnx(foreign, make_images())
    assert caught.value.code == "NO_INPUT_SPEC"
    assert evaluate_onnx(foreign, make_images(), input=SPEC) == evaluate_onnx(path, make_images())


def test_a_file_with_a_fixed_batch_is_fed_in_that_batch(path, tmp_path):
    foreign = foreign_file(path, tmp_path, batch=4)
    result = evaluate_onnx(foreign, make_images(), input=SPEC)
    expected = evaluate_onnx(path, make_images())
    assert (result.accuracy, result.top5) == (expected.accuracy, expected.top5)
    assert result.loss == pytest.approx(expected.loss)


def test_normalisation_is_the_documented_formula():
    pixels = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2)
    spec = InputSpec(1, 1, 2, (0.5,), (0.25,))
    np.testing.assert_allclose(normalise(pixels, spec).ravel(), [-2, 2])


def test_the_loss_of_huge_logits_is_finite():
    scores = score(np.array([[1e4, -1e4]], dtype=np.float32), np.array([1]))
    assert scores.loss.tolist() == [2e4]
    assert scores.top.tolist() == [True]


class TwoHeads(nn.Module):
    """The scores of classes are not its first output."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def forward(self, x):
        return {"features": x.mean((2, 3)), "logits": self.net(x)}


def test_of_several_outputs_the_logits_are_scored_and_it_is_said(path, tmp_path):
    to_onnx(TwoHeads(), tmp_path / "two.onnx", input=SPEC, classes=CLASSES)
    images = make_images()
    scores, only = evaluate_onnx(tmp_path / "two.onnx", images), evaluate_onnx(path, images)
    assert scores.accuracy == only.accuracy
    assert scores.loss == pytest.approx(only.loss, rel=1e-6)
    assert scores.warnings[-1] == "the file has 2 outputs (features, logits): logits is scored"
    assert not any("outputs" in warning for warning in only.warnings)


def test_a_file_with_a_fixed_batch_is_scored_on_all_images(path, tmp_path):
    class Fixed(TwoHeads):
        def forward(self, x):
            return self.net(x.view(2, 3, 8, 8))

    to_onnx(Fixed(), tmp_path / "fixed.onnx", input=SPEC, classes=CLASSES)
    images = make_images()  # 53: the last batch is filled up
    assert evaluate_onnx(tmp_path / "fixed.onnx", images).accuracy == (
        evaluate_onnx(path, images).accuracy
    )


def test_a_file_that_takes_no_images_is_not_scored_on_them(tmp_path):
    model = nn.Linear(8, len(CLASSES))
    to_onnx(model, tmp_path / "net.onnx", input=InputSpec.of(torch.randn(1, 8), model))
    with pytest.raises(InputError, match="something else, input 8") as caught:
        evaluate_onnx(tmp_path / "net.onnx", make_images())
    assert caught.value.code == "NO_IMAGE_INPUT"
