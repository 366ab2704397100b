"""Costs of fractional widths, which gradients can go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunecli.cost.kinds import LATENCY

if TYPE_CHECKING:
    from prunecli.cost.model import CostModel


class ExpectedCost:
    """The closed forms of a `CostModel` over tensors of widths, which need not be whole numbers.

    At whole widths the value is that of `CostModel.cost`, and the gradient that of
    `CostModel.gradient`; either in float64, whatever the type of the widths. Milliseconds are
    looked up in the table of the cost model, on the CPU.
    """

    def __init__(self, cost: CostModel, device: torch.device | str = "cpu") -> None:
        self.cost = cost
        self._base = torch.as_tensor(cost.base, device=device)
        self._counts = torch.as_tensor(cost.counts, device=device)
        self._forms = {
            kind: (
                torch.as_tensor(cost.factors[at], device=device),
                torch.as_tensor(cost.coefficients[at], device=device),
            )
            for kind, at in cost.kinds.items()
        }

    def __call__(self, kind: str, widths: Tensor) -> Tensor:
        """Return a cost, a scalar, of the widths [groups]."""
        widths = widths.double()
        if kind == LATENCY:
            return _Milliseconds.apply(widths, self.cost)  # type: ignore[no-any-return]
        factors, coefficients = self._forms[kind]
        sizes = self._base + self._counts @ widths
        return (coefficients * sizes[factors].prod(1)).sum()

    def kept(self, kind: str, widths: Tensor) -> Tensor:
        """Return a cost as a share of that of the user's own network."""
        return self(kind, widths) / self.cost.dense[kind]


class _Milliseconds(torch.autograd.Function):
    """Predicted latency, with the gradient that its table gives."""

    @staticmethod
    def forward(ctx: Any, widths: Tensor, cost: CostModel) -> Tensor:
        ctx.cost = cost
        ctx.save_for_backward(widths)
        return widths.new_tensor(cost.cost(_array(widths))[LATENCY])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (widths,) = ctx.saved_tensors
        slope = torch.as_tensor(ctx.cost.gradient(LATENCY, _array(widths)), device=widths.device)
        return gradients[0] * slope, None


def _array(widths: Tensor) -> Any:
    # The table is looked up between its grid points, so that widths need not be whole.
    return widths.detach().cpu().numpy()
