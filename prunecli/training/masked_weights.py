"""Weights that stay zero while the others are trained, and sparsity that grows along the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.errors import InputError
from prunecli.sparse.masks import apply_masks_, masks_of_sparsity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.sparse.layers import WeightLayer
    from prunecli.sparse.schedules import Gradual


class Zeros:
    """The masks of a run, and with a `gradual` sparsity the weights that they hide.

    A masked weight is exactly zero between any two steps, whatever momentum, decay or an average
    would make of it. Where the sparsity grows, a masked weight keeps its last value out of sight,
    and returns with it when the masks are made anew and it is among the largest again (Zhu, Gupta
    2017). Masks and hidden weights are all there is to save: the rest follows from the step.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        *,
        gradual: Gradual | None = None,
        layers: Sequence[WeightLayer] = (),
        allocation: str = "uniform",
    ) -> None:
        self.model = model
        self.first = {name: mask.cpu() for name, mask in masks.items()}
        self.gradual = gradual
        self.layers = tuple(layers)
        self.allocation = allocation
        self.masks = self._placed(self.first)
        self.hidden: dict[str, Tensor] = {}
        apply_masks_(model, self.masks)

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Make the masks anew where it is time, from the weights and from the hidden ones."""
        gradual = self.gradual
        if gradual is None or not gradual.changes(step):
            return
        dense = {layer.name: self._dense(layer.name) for layer in self.layers}
        total = sum(layer.size for layer in self.layers)
        zero = sum(int((~mask).sum()) for mask in self._own(self.first).values())
        sparsity = gradual.sparsity(step)
        masks = self.first
        if round(sparsity * total) > zero:
            values = {name: weight.cpu() for name, weight in dense.items()}
            saliencies = [values[layer.name].abs().double().reshape(-1).numpy()
                          for layer in self.layers]  # fmt: skip
            masks = masks_of_sparsity(
                self.layers, saliencies, values, sparsity=sparsity, allocation=self.allocation,
                held={}, before=self.first,
            )  # fmt: skip
        self.masks = {**self.masks, **self._placed(masks)}
        for name, weight in dense.items():
            self.hidden[name] = weight
            self.model.get_parameter(name).copy_(weight)
        apply_masks_(self.model, self.masks)

    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights, so that clipping and momentum leave them out."""
        for name, mask in self.masks.items():
            gradient = self.model.get_parameter(name).grad
            if gradient is not None:
                gradient.masked_fill_(~mask, 0.0)

    def enforce(self, average: nn.Module | None = None) -> None:
        """Zero masked weights again, in the network and in its average."""
        apply_masks_(self.model, self.masks)
        if average is not None:
            apply_masks_(average, self.masks)

    def settled(self, steps: int) -> bool:
        """Tell whether the masks are the last ones after so many steps."""
        return self.gradual is None or steps > self.gradual.end

    @property
    def sparsity(self) -> float:
        """The share of zeroed weights, of the layers that can have any."""
        sizes = [layer.size for layer in self.layers] or [m.numel() for m in self.masks.values()]
        kept = sum(int(mask.sum()) - mask.numel() for mask in self._own(self.masks).values())
        return -kept / max(sum(sizes), 1)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"masks": dict(self.masks), "hidden": dict(self.hidden)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        self.masks = self._placed(state["masks"])
        device = {name: self.model.get_parameter(name).device for name in state["hidden"]}
        self.hidden = {name: value.to(device[name]) for name, value in state["hidden"].items()}

    def _dense(self, name: str) -> Tensor:
        """Return a copy of a weight with what its mask hides."""
        weight = self.model.get_parameter(name).detach().clone()
        if name in self.hidden and name in self.masks:
            weight = torch.where(self.masks[name], weight, self.hidden[name])
        return weight

    def _own(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks of the layers, where a shared weight counts once."""
        names = {layer.name for layer in self.layers}
        return {name: mask for name, mask in masks.items() if not names or name in names}

    def _placed(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks on the devices of their weights; raise `InputError` for misfits."""
        placed = {}
        for name, mask in masks.items():
            try:
                weight = self.model.get_parameter(name)
            except AttributeError as error:
                raise _misfit(name) from error
            if weight.shape != mask.shape:
                raise _misfit(name)
            placed[name] = mask.to(weight.device)
        return placed


def _misfit(name: str) -> InputError:
    return InputError(
        f"there is a mask for {name}, and the network has no such weight",
        code="MASK_MISMATCH",
        hint="use the masks with the network that they were made for",
    )
