"""What executing a channel was worth in a step: its first-order Taylor saliency, heard on the way.

Source: Spasov, Lio 2019, arXiv 1905.06435; the saliency is that of Molchanov et al. 2017: the mean
over images of the absolute value of the mean over positions of activation times gradient. A channel
that is read in several places has the sum over them (ours).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from prunecli.graph.coupling.groups import STAYS, staying
from prunecli.methods.iterative.taps import put_behind_
from prunecli.signals.curvature import tracked
from prunecli.signals.places import Places, Tap, read_taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.network.traced import Network


class Ear(nn.Module):
    """Passes a value on, and sums activation times gradient over positions as it goes backward.

    Nothing but these sums is kept, and nothing else is held on to: the layer that reads the value
    keeps it for its own gradient. So listening takes no memory.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.heard: list[tuple[Tensor, int]] = []

    def forward(self, value: Tensor) -> Tensor:
        """Return the value."""
        if not self.training or not torch.is_grad_enabled() or not value.is_floating_point():
            return value
        value = tracked(value)
        # Of the value alone, without its graph: that would hold itself.
        value.register_hook(partial(self._hear, value.detach()))  # type: ignore[no-untyped-call]
        return value

    @torch.no_grad()
    def _hear(self, value: Tensor, gradient: Tensor) -> None:
        # Sums over a channel are taken of these: in the few digits of bf16 they would go astray.
        product = value.float() * gradient.float()
        self.heard = [_over_positions(product, tap) for tap in self.taps]


def _over_positions(product: Tensor, tap: Tap) -> tuple[Tensor, int]:
    """Return sums over all that is neither image nor channel, `[rows, channels]`, of how many."""
    dim = tap.dim
    if tap.samples is None:
        product, dim = product[None], dim + 1
    elif tap.samples:
        product, dim = product.movedim(tap.samples, 0), dim + (dim < tap.samples)
    product = product.movedim(dim, 1)
    if product.dim() == 2:
        return product, 1
    product = product.flatten(2)
    return product.sum(2), product.shape[2]


class Rewards:
    """Listens to a narrow network in training, and tells rewards by the atoms of the dense one."""

    def __init__(self, network: Network) -> None:
        coupling = network.coupling
        self.atom_count = coupling.atom_count
        taps: dict[str, list[Tap]] = {}
        for tap in read_taps(network.trace, coupling):
            taps.setdefault(tap.node, []).append(tap)
        self.ears = {node: Ear(own) for node, own in taps.items()}
        self.places: dict[str, list[Places]] = {}

    def unheard(self) -> NDArray[np.bool_]:
        """Return, per atom, whether it is read nowhere."""
        unheard = torch.ones(self.atom_count, dtype=torch.bool)
        for tap in (tap for ear in self.ears.values() for tap in ear.taps):
            unheard[torch.as_tensor(tap.atoms[tap.atoms != STAYS])] = False
        return unheard.numpy()

    def listen_(self, graph: fx.GraphModule) -> None:
        """Put the ears into a network; `follow` says which channels it has."""
        put_behind_(graph, self.ears)

    def follow(self, keep: NDArray[np.bool_]) -> None:
        """Take the channels that are heard from now on for those that are kept."""
        self.places = {
            node: [Places.of(tap.atoms[:, staying(tap.atoms, keep)]) for tap in ear.taps]
            for node, ear in self.ears.items()
        }

    @torch.no_grad()
    def heard(self, images: int, device: torch.device) -> Tensor:
        """Return what was heard in the last pass, summed over its images: one number per atom.

        All have one factor: the scale of the loss, over the number of images.
        """
        total = torch.zeros(self.atom_count, device=device)
        for node, ear in self.ears.items():
            heard, ear.heard = ear.heard, []
            for places, (sums, positions) in zip(self.places[node], heard, strict=bool(heard)):
                ones = torch.full((sums.shape[1],), float(positions), device=device)
                means = places.sum(_per_image(sums, images)) / places.sum(ones)
                total.index_add_(0, places.atoms.to(device), means.abs().sum(0))
        return total


def _per_image(sums: Tensor, images: int) -> Tensor:
    """Return the mean over the rows of every image, of which windows have several."""
    rows, channels = sums.shape
    if rows <= images or rows % images:
        return sums
    return sums.reshape(images, -1, channels).mean(1)
