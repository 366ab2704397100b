"""Weights that stay zero while the others are trained, and sparsity that grows along the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.errors import InputError
from prunecli.sparse.masks import apply_masks_, masks_of_sparsity
from prunecli.training.method import PlainMethod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.sparse.layers import WeightLayer
    from prunecli.sparse.schedules import Gradual
    from prunecli.training.method import Batch, TrainingRun


class MaskedWeights(PlainMethod):
    """The masks of a run, and with a `gradual` sparsity the weights that they hide.

    A masked weight is exactly zero between any two steps, whatever momentum, decay or an average
    would make of it. Where the sparsity grows, a masked weight keeps its last value out of sight,
    and returns with it when the masks are made anew and it is among the largest again (Zhu, Gupta
    2017). Masks and hidden weights are all there is to save: the rest follows from the step.
    """

    def __init__(
        self,
        masks: Mapping[str, Tensor],
        *,
        gradual: Gradual | None = None,
        layers: Sequence[WeightLayer] = (),
        allocation: str = "uniform",
    ) -> None:
        self.first = {name: mask.cpu() for name, mask in masks.items()}
        self.gradual = gradual
        self.layers = tuple(layers)
        self.allocation = allocation
        self.masks: dict[str, Tensor] = {}
        self.hidden: dict[str, Tensor] = {}

    def start(self, run: TrainingRun) -> None:
        """Zero what is masked from the start; raise `InputError` for masks that do not fit."""
        self.masks = _placed(self.first, run.bare)
        apply_masks_(run.bare, self.masks)

    def before_step(self, run: TrainingRun) -> None:
        """Make the masks anew where it is time."""
        if self.gradual is not None and self.gradual.changes(run.taken):
            self._grow(run.bare, self.gradual.sparsity(run.taken))

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:  # noqa: ARG002
        """Zero the gradients of masked weights, so that clipping and momentum leave them out."""
        for name, mask in self.masks.items():
            gradient = run.bare.get_parameter(name).grad
            if gradient is not None:
                gradient.masked_fill_(~mask, 0.0)

    def after_step(self, run: TrainingRun) -> None:
        """Zero masked weights again, in the network and in its average."""
        apply_masks_(run.bare, self.masks)
        if run.average is not None:
            apply_masks_(run.average.model, self.masks)

    def settled(self, run: TrainingRun) -> bool:
        """Tell whether the masks are the last ones."""
        return self.gradual is None or run.taken > self.gradual.end

    def facts(self) -> dict[str, float]:
        """Return the share of zeroed weights, of the layers that can have any."""
        sizes = [layer.size for layer in self.layers] or [m.numel() for m in self.masks.values()]
        kept = sum(int(mask.sum()) - mask.numel() for mask in self._own(self.masks).values())
        return {"sparsity": -kept / max(sum(sizes), 1)}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"masks": dict(self.masks), "hidden": dict(self.hidden)}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        self.masks = _placed(state["masks"], run.bare)
        self.hidden = {name: value.to(run.device) for name, value in state["hidden"].items()}

    @torch.no_grad()
    def _grow(self, model: nn.Module, sparsity: float) -> None:
        """Make the masks anew from the weights and from the hidden ones."""
        dense = {layer.name: self._dense(model, layer.name) for layer in self.layers}
        total = sum(layer.size for layer in self.layers)
        zero = sum(int((~mask).sum()) for mask in self._own(self.first).values())
        masks = self.first
        if round(sparsity * total) > zero:
            values = {name: weight.cpu() for name, weight in dense.items()}
            saliencies = [values[layer.name].abs().double().reshape(-1).numpy()
                          for layer in self.layers]  # fmt: skip
            masks = masks_of_sparsity(
                self.layers, saliencies, values, sparsity=sparsity, allocation=self.allocation,
                held={}, before=self.first,
            )  # fmt: skip
        self.masks = {**self.masks, **_placed(masks, model)}
        for name, weight in dense.items():
            self.hidden[name] = weight
            model.get_parameter(name).copy_(weight)
        apply_masks_(model, self.masks)

    def _dense(self, model: nn.Module, name: str) -> Tensor:
        """Return a copy of a weight with what its mask hides."""
        weight = model.get_parameter(name).detach().clone()
        if name in self.hidden and name in self.masks:
            weight = torch.where(self.masks[name], weight, self.hidden[name])
        return weight

    def _own(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks of the layers, where a shared weight counts once."""
        names = {layer.name for layer in self.layers}
        return {name: mask for name, mask in masks.items() if not names or name in names}


def _placed(masks: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return masks on the devices of their weights; raise `InputError` for misfits."""
    placed = {}
    for name, mask in masks.items():
        try:
            weight = model.get_parameter(name)
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
