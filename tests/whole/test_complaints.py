"""The complaint list: every kind of network that other pruners break is cut, and right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves as flat_tensors

import prunecli
from tests.support.complaint_networks import COMPLAINTS, Complaint
from tests.support.weights import randomize_

READS = {
    nn.Linear: 1, nn.Conv1d: 1, nn.Conv2d: 1, nn.Conv3d: 1,
    nn.ConvTranspose1d: 0, nn.ConvTranspose2d: 0, nn.ConvTranspose3d: 0,
}  # fmt: skip
"""The dimension of each layer's weight that reads channels."""


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def masked(model: nn.Module, complaint: Complaint, slices) -> nn.Module:
    """Return the dense network with every weight zeroed that `complaint.reference` asks for."""
    dense = copy.deepcopy(model).double()
    sites = set(complaint.reads)
    for path, module in dense.named_modules():
        if type(module) in READS:
            sites.add((f"{path}.weight", READS[type(module)]))
    if complaint.reference == "all":
        sites = {(name, dim) for name, dims in slices.items() for dim in dims}
    for name, dim in sites:
        kept = slices.get(name, {}).get(dim)
        if kept is not None:
            weight = tensors_of(dense)[name].data
            gone = sorted(set(range(weight.shape[dim])) - set(kept))
            weight.index_fill_(dim, torch.tensor(gone), 0.0)
    return dense


def random_inputs(complaint: Complaint) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, *value.shape[1:], generator=generator, dtype=torch.float64)
        if value.is_floating_point()
        else torch.randint(0, int(value.max()) + 1, (2, *value.shape[1:]), generator=generator)
        for value in complaint.example
    )


@torch.no_grad()
@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_network_that_others_break_is_cut_and_equals_its_mask(name: str) -> None:
    complaint = COMPLAINTS[name]
    model = randomize_(complaint.make(), seed=0).eval()
    result = prunecli.prune(
        model, complaint.example, flops=complaint.flops, signal="l2", align=1, only=complaint.only
    )
    assert result.report.verified.max_rel_error < 1e-8
    assert result.report.cost.kept["flops"] <= complaint.flops
    assert complaint.mode in {None, result.report.mode}
    assert not any("touches are frozen" in warning for warning in result.report.warnings)

    dense, slim = tensors_of(model), tensors_of(result.model)
    for tensor in complaint.cut:
        assert slim[tensor].numel() < dense[tensor].numel(), tensor
    for layer, reason in complaint.frozen.items():
        assert any(item.name == layer and reason in item.reason for item in result.frozen), layer
    for tensor, dims in result.plan.slices.items() if complaint.reference else ():
        expected = dense[tensor].clone()
        for rows, factor in result.plan.factors.get(tensor, ()):  # the temperature of attention
            expected[list(rows)] *= factor
        for dim, kept in dims.items():
            expected = expected.index_select(dim, torch.tensor(kept))
        torch.testing.assert_close(slim[tensor], expected, rtol=1e-6, atol=0)

    inputs = random_inputs(complaint)
    whole = flat_tensors(copy.deepcopy(model).double()(*inputs))
    found = flat_tensors(copy.deepcopy(result.model).double()(*inputs))
    assert max(float((a - b).abs().max()) for a, b in zip(whole, found, strict=True)) > 1e-3
    if complaint.reference:
        expected = flat_tensors(masked(model, complaint, result.plan.slices)(*inputs))
        for first, second in zip(found, expected, strict=True):
            torch.testing.assert_close(first, second, rtol=0, atol=complaint.tolerance)
