"""What a network takes: images as ever, and arguments of any shapes, as data and as tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecli.architectures.argument import Argument
from prunecli.architectures.examples import example_arguments, example_tensors, positional
from prunecli.architectures.inputs import (
    InputSpec,
    check_takes_images,
    of_shapes,
)
from prunecli.errors import InputError
from tests.support.structured_networks import Several, Signals, Volumes

IMAGES = InputSpec(3, 8, 6, (0.5,) * 3, (0.25,) * 3)
EXAMPLE = {
    "image": torch.randn(2, 3, 8, 8),
    "mask": torch.rand(2, 1, 8, 8),
    "ids": torch.tensor([[3, 4], [9, 5]]),
    "whole": False,
}


def test_images_are_written_as_they_always_were():
    assert IMAGES.to_json() == {
        "channels": 3,
        "height": 8,
        "width": 6,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    assert InputSpec.from_json(IMAGES.to_json()) == IMAGES
    assert (IMAGES.shape, IMAGES.is_images) == ((3, 8, 6), True)


def test_a_batch_of_images_is_one_whatever_the_parameter_is_called():
    example = torch.randn(1, 3, 8, 6)
    for given in (example, [example], {"volume": example}):
        assert InputSpec.of(given, Volumes()) == InputSpec(3, 8, 6)


def test_arguments_take_names_and_order_from_the_forward():
    spec = InputSpec.of(EXAMPLE, Several())
    assert spec.arguments == (
        Argument("image", (3, 8, 8)),
        Argument("mask", (1, 8, 8)),
        Argument("ids", (2,), "int64", values=(3, 9)),
        Argument("scale"),
        Argument("whole", value=False),
    )
    backwards = dict(reversed(EXAMPLE.items()))
    assert InputSpec.of(backwards, Several()) == spec
    assert InputSpec.of(tuple(EXAMPLE.values())[:3], Several()).arguments == spec.arguments[:3]
    assert InputSpec.from_json(spec.to_json()) == spec
    assert spec.described == ("image 3x8x8, mask 1x8x8, ids 2 (int64), scale=None, whole=False")


def test_tensors_of_another_length_than_the_batch_belong_to_no_input():
    spec = InputSpec.of((torch.randn(2, 4), torch.randn(5, 4), torch.tensor(0.5)))
    assert [(one.shape, one.batched) for one in spec.arguments] == [
        ((4,), True),
        ((5, 4), False),
        ((), False),
    ]
    assert [tuple(one.shape) for one in example_tensors(spec, batch=3)] == [(3, 4), (5, 4), ()]


def test_random_tensors_have_the_types_and_the_range_of_the_example():
    spec = InputSpec.of({**EXAMPLE, "scale": torch.tensor([True, False])}, Several())
    image, mask, ids, scale = example_tensors(spec, batch=50, dtype=torch.float64)
    assert (image.dtype, mask.dtype, ids.dtype, scale.dtype) == (
        torch.float64,
        torch.float64,
        torch.int64,
        torch.bool,
    )
    assert set(ids.unique().tolist()) == set(range(3, 10))
    assert set(scale.unique().tolist()) == {False, True}


def test_arguments_are_put_where_the_forward_takes_them():
    spec = InputSpec(arguments=(Argument("ids", (2,), "int64"), Argument("image", (3, 4, 4)),
                                Argument("mask", (1, 4, 4))))  # fmt: skip
    image, mask, ids = example_arguments(spec, Several())
    assert (image.shape[1:], mask.shape[1:], ids.dtype) == ((3, 4, 4), (1, 4, 4), torch.int64)
    wrong = InputSpec(arguments=(Argument("picture", (3, 4, 4)),))
    with pytest.raises(InputError, match="missing a required argument: 'image'") as caught:
        positional(Several(), wrong, example_tensors(wrong))
    assert caught.value.code == "BAD_INPUT_SPEC"
    assert (
        "they are picture 3x4x4; its forward takes image, mask, ids, scale, whole"
        in caught.value.hint
    )


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ([[torch.zeros(1, 3, 4, 4)]], "is a list, not a tensor"),
        ((1, 2), "none of them is a tensor"),
        (None, "it is a NoneType"),
        (torch.zeros(1, 2, dtype=torch.complex64), "complex64"),
        ({"nothing": torch.zeros(1)}, "missing a required argument: 'wave', given nothing"),
    ],
)
def test_what_cannot_be_described_is_an_error(example, words):
    with pytest.raises(InputError, match=words) as caught:
        InputSpec.of(example, Signals())
    assert caught.value.code == "BAD_EXAMPLE"


@pytest.mark.parametrize(
    "data",
    [
        {"arguments": [{"name": "x", "value": 1}]},
        {"arguments": [{"name": "x", "value": [1]}]},
        {"arguments": [{"name": "x", "shape": [0], "dtype": "float32"}]},
        {"arguments": [{"name": "x", "shape": [2**30], "dtype": "float32"}]},
        {"arguments": [{"name": "x", "shape": [2], "dtype": "object"}]},
        {"arguments": [{"name": "x", "shape": [2], "dtype": "int64", "values": [2, 1]}]},
        {"channels": 0, "height": 1, "width": 1, "mean": [], "std": []},
    ],
)
def test_a_damaged_description_is_refused(data):
    usual = {"batched": True, "values": [0, 1]}
    if "arguments" in data:
        data = {"arguments": [{**usual, **one} for one in data["arguments"]]}
    with pytest.raises(ValueError, match=r"\w"):
        InputSpec.from_json(data)


def test_shapes_that_people_type_are_images_or_arguments():
    assert of_shapes([("", (3, 4, 5), "float32")], IMAGES) == InputSpec(
        3, 4, 5, IMAGES.mean, IMAGES.std
    )
    assert of_shapes([("", (1, 4, 5), "float32")], IMAGES) == InputSpec(1, 4, 5)
    assert of_shapes([("ids", (7,), "int64")]).arguments == (Argument("ids", (7,), "int64"),)
    for shapes in ([("a", (1,), "float32")] * 2, [("a", (1,), "float99")]):
        with pytest.raises(InputError) as caught:
            of_shapes(shapes)
        assert caught.value.code == "BAD_INPUT_SPEC"


def test_images_of_files_are_for_networks_that_take_images_and_say_how():
    check_takes_images(IMAGES)
    with pytest.raises(InputError, match="something else, wave 2x16") as other:
        check_takes_images(InputSpec.of(torch.randn(1, 2, 16), Signals()))
    assert other.value.code == "NO_IMAGE_INPUT"
    with pytest.raises(InputError, match="nobody said how pixels") as unknown:
        check_takes_images(InputSpec(3, 8, 8))
    assert unknown.value.code == "NO_INPUT_SPEC"


def test_what_can_only_be_given_by_name_is_not_left_out():
    class Switched(nn.Module):
        def forward(self, x, *, double=False):
            return x * 2 if double else x

    spec = InputSpec.of({"x": torch.randn(1, 3), "double": True}, Switched())
    with pytest.raises(InputError, match="double can only be given by name"):
        example_arguments(spec, Switched())


def test_a_forward_without_a_signature_to_read_gets_made_up_names():
    class Any(nn.Module):
        def forward(self, *given):
            return sum(given)

    spec = InputSpec.of((torch.randn(1, 3), torch.randn(1, 3)), Any())
    assert [one.name for one in spec.arguments] == ["input_0", "input_1"]
    assert len(example_arguments(spec, Any())) == 2
