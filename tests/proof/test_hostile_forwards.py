"""Forwards that do something else under one condition: proven, refused, or the condition named."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion
from torch.utils import _pytree as pytree

import prunecli
from prunecli.errors import ProofError, PruneError
from tests.support import hostile_forwards as forwards

IN_MODULE, IN_GRAPH = "module", "graph"

# Older torch cannot export a forward that counts its calls, nor one that holds a generator.
EXPORTS_STATE = TorchVersion(torch.__version__) >= "2.10"
LATER_CALLS = (
    "not verified for a second or third call" if EXPORTS_STATE else "verified on samples alone"
)
NOISE = "RANDOM_FORWARD" if EXPORTS_STATE else "NOT_TRACEABLE"


@functools.cache
def cut(make: type[nn.Module], size: int = 32) -> prunecli.PruneResult:
    torch.manual_seed(0)
    return prunecli.prune(make().eval(), torch.randn(2, 3, size, size), sparsity=0.5, align=1)


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (forwards.Plain, IN_MODULE),
        (forwards.Always, IN_GRAPH),
        (forwards.NotExported, IN_GRAPH),
        (forwards.ByValueInGraph, IN_GRAPH),
        (forwards.ForLargeValues, IN_GRAPH),
        (forwards.BesideLargeOutput, IN_GRAPH),
        (forwards.SilentOutput, IN_GRAPH),
        (forwards.ClassNumber, IN_GRAPH),
        (forwards.Rounded, IN_GRAPH),
        (forwards.CountsCalls, IN_GRAPH),
        (forwards.MovingMean, IN_MODULE),
        (forwards.Width, IN_GRAPH),
        (forwards.OwnTable, IN_GRAPH),
        (forwards.FollowsType, IN_MODULE),
        (forwards.OneImageTwice, IN_MODULE),
        (forwards.HalfPrecision, IN_MODULE),
    ],
)
def test_what_is_called_proven_is_right_for_all_inputs(make, mode):
    result = cut(make)
    verified = result.report.verified
    assert (result.report.mode, verified.by_structure, verified.limits) == (mode, True, ())
    assert verified.scope == "any batch and any image size"
    reference = masked(make().eval(), result)
    for inputs in varied_inputs():
        slim = copy.deepcopy(result.model)
        for _ in range(5):  # a later call is an input as well
            with torch.no_grad():
                assert_same(slim(inputs), reference(inputs))
        reference = masked(make().eval(), result)


@pytest.mark.parametrize(
    ("make", "size", "limit"),
    [
        (forwards.OneImage, 32, "batches of 2 and more"),
        (forwards.ManyImages, 32, "a batch up to 7"),
        (forwards.LargeImages, 32, "a width up to 127"),
        (forwards.LargeImages, 160, "a width of 128 and more"),
        (forwards.WideImages, 32, "differs"),
        (forwards.OddImages, 32, "differs"),
        (forwards.SinglePrecision, 32, "not verified for inputs in float64"),
        (forwards.DoublePrecision, 32, "not verified for inputs in float64"),
        (forwards.WithGradients, 32, "not verified for calls with gradients"),
        (forwards.OnThreads, 32, "not verified for another number of threads"),
        (forwards.OnThreadsInSingle, 32, "not verified for another number of threads"),
        (forwards.SecondCall, 32, LATER_CALLS),
        (forwards.ByLargeValue, 32, "verified on samples alone"),
        (forwards.UnwritableSizes, 32, "images of 32 x 32 alone"),
    ],
)
def test_a_condition_that_is_not_covered_is_named(make, size, limit):
    known = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = cut(make, size)
    finally:
        torch.set_num_threads(known)
    assert any(limit in text for text in result.report.verified.limits), result.report.verified
    assert set(result.report.verified.limits) <= set(result.report.warnings)


def test_buffers_that_move_in_evaluation_are_named():
    assert any("(mean)" in text for text in cut(forwards.MovingMean).report.warnings)
    assert not any("buffers" in text for text in cut(forwards.Plain).report.warnings)


def test_a_limit_is_an_error_where_that_is_asked_for():
    with pytest.raises(ProofError, match="one image differently") as failure:
        prunecli.prune(
            forwards.OneImage().eval(), torch.zeros(2, 3, 32, 32), sparsity=0.5, strict=True
        )
    assert (failure.value.code, failure.value.exit_code) == ("LIMITED_PROOF", 5)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (forwards.NotTraced, "TRACE_NOT_EQUAL"),
        (forwards.SeededNoise, NOISE),
        (forwards.ByValue, "CUT_NOT_EQUAL"),
    ],
)
def test_what_no_trace_stands_for_is_refused(make, code):
    with pytest.raises(PruneError) as failure:
        cut(make)
    assert failure.value.code == code


def masked(model: nn.Module, result: prunecli.PruneResult) -> nn.Module:
    """Zero the columns of the dense network that read removed channels, from the plan alone."""
    with torch.no_grad():
        for name, dims in result.plan.slices.items():
            tensor = model.get_parameter(name) if name in dict(model.named_parameters()) else None
            if tensor is not None and tensor.dim() > 1 and 1 in dims:
                gone = torch.ones(tensor.shape[1], dtype=torch.bool)
                gone[list(dims[1])] = False
                tensor[:, gone] = 0
    return model


def varied_inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 3, 32, 32), (1, 3, 32, 32), (5, 3, 48, 40)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [*drawn, drawn[0] * 0.1, drawn[0] * 100, torch.zeros(shapes[0])]


def assert_same(found: object, expected: object) -> None:
    """Compare every output channel by its own largest value."""
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    for one, other in pairs:
        assert one.shape == other.shape
        scale = other.double().abs().amax(0, keepdim=True).clamp(min=1e-6)
        tolerance = 2e-2 if one.dtype == torch.float16 else 1e-3
        assert float(((one.double() - other.double()).abs() / scale).max()) < tolerance
