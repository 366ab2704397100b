"""What gives way to a budget, and in which order: alignment before exactness."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import prunecli

IMAGE = torch.zeros(1, 8)


class PlainThenNormed(nn.Module):
    """A layer whose cut is exact, and one under a norm over channels, whose cut is not."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.normed = nn.Linear(8, 12), nn.Linear(12, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def hidden(self, x: Tensor) -> Tensor:
        return self.plain(x).relu()

    def rest(self, hidden: Tensor) -> Tensor:
        return self.head(self.norm(self.normed(hidden)).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.hidden(x))


def cut(params: float) -> tuple[nn.Module, prunecli.PruneResult, dict[str, tuple[int, int]]]:
    torch.manual_seed(0)
    model = PlainThenNormed().eval()
    result = prunecli.prune(model, IMAGE, params=params)
    widths = {group.name: (group.before, group.after) for group in result.report.groups}
    return model, result, widths


@pytest.mark.parametrize("params", [0.5, 0.45, 0.4])
def test_a_width_off_the_alignment_is_taken_before_a_cut_that_changes_a_norm(
    params: float,
) -> None:
    model, result, widths = cut(params)
    assert widths["normed"] == (16, 16)
    assert widths["plain"][1] < 4
    (said,) = result.report.warnings
    assert "out of reach at the default alignment" in said
    # Such a cut is the dense network with channels zeroed, and nothing else.
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = model.hidden(x)
        gone = [at for at in range(12) if at not in result.plan.keep["plain"]]
        hidden[:, gone] = 0
        torch.testing.assert_close(result.model(x), model.rest(hidden))
    assert result.report.verified.method == "consumer-zero"


def test_a_cut_under_a_norm_is_made_where_exact_ones_do_not_reach_and_it_is_said() -> None:
    _, result, widths = cut(0.3)
    assert widths["normed"][1] < 16
    assert any("cut under a norm over channels" in said for said in result.report.warnings)
    assert result.report.verified.method == "masked-norm"


def test_nothing_gives_way_where_the_default_alignment_reaches() -> None:
    _, result, widths = cut(0.55)
    assert widths == {"plain": (12, 4), "normed": (16, 16)}
    assert result.report.warnings == ()
