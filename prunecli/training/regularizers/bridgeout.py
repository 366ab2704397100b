"""Bridgeout: weights that are perturbed by noise which grows with their size to some power.

Sources: Khan, Shah, Stavness, "Bridgeout: Stochastic Bridge Regularization for Deep Neural
Networks", IEEE Access 2018, arXiv 1804.08042 (one mask per example); Khan, Stavness, "Pruning
Convolutional Filters using Batch Bridgeout", IEEE Access 2020, arXiv 2009.10893 (one mask per
mini-batch). For a generalised linear model the expected loss gains an L_q penalty (bridge
regression): E[w~] = w and Var[w~] = p / (1 - p) |w|^q.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunecli.training.regularizers.layers import convolutions, linear_layers
from prunecli.training.regularizers.noise import Noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.hooks import RemovableHandle

    from prunecli.training.method import Batch, TrainingRun

EPSILON = 1e-8
"""Added to |w|, so that the gradient of |w|^(q/2) at a tiny weight stays finite.

The authors add 1e-12. For q = 1.5 the gradient of a tiny weight is then multiplied by up to 750,
with ours by up to 75; weights that matter (above 1e-4) are perturbed alike to 4 digits.
"""

MASKS = 0
"""The use of random numbers (`TrainingRun.generator`) of the first layer; each has its own."""


def noise(shape: Sequence[int], p: float, generator: torch.Generator) -> Tensor:
    """Return b / (1 - p) - 1 for b ~ Bernoulli(1 - p), float32, on the device of the generator.

    -1 with probability p, otherwise p / (1 - p): the mean is 0, the variance p / (1 - p).
    """
    kept = torch.empty(tuple(shape), dtype=torch.float32, device=generator.device)
    return kept.bernoulli_(1 - p, generator=generator).div_(1 - p).sub_(1)


def reach(weight: Tensor, q: float) -> Tensor:
    """Return (|w| + eps)^(q/2), which noise is multiplied by; 0 for a weight that is exactly 0.

    At 0 it is so in the limit of eps, and a weight that was zeroed stays zero.
    """
    return (weight.abs() + EPSILON).pow(q / 2) * weight.sign().abs()


def perturbation(weight: Tensor, xi: Tensor, q: float, targets: Tensor) -> Tensor:
    """Return w~ - w = m (|w| + eps)^(q/2) xi, `targets` being m; `xi` may have examples before."""
    return targets * reach(weight, q) * xi


def gradient_factor(weight: Tensor, change: Tensor, q: float) -> Tensor:
    """Return dw~/dw = 1 + m (q/2) (|w| + eps)^(q/2 - 1) sign(w) xi, from the perturbation."""
    return 1 + q / 2 * change * weight.sign() / (weight.abs() + EPSILON)


def targeted(weight: Tensor, fraction: float) -> Tensor:
    """Return the mask m of the weights that are perturbed, 0 or 1, in the shape of the weight.

    In every row of a matrix `[out, in]` it is the `int(fraction * in)` smallest by size, in every
    filter of a convolution `[out, in, k, ...]` as many kernels by their L2 norm: those below the
    next one (ties with that are left out, as in the authors' code). 1 takes all.
    """
    if fraction >= 1:
        return torch.ones_like(weight)
    sizes = weight.abs() if weight.ndim == 2 else weight.flatten(2).norm(dim=2)
    taken = min(count_of_targets(sizes.shape[1], fraction), sizes.shape[1] - 1)
    threshold = sizes.kthvalue(taken + 1, dim=1, keepdim=True).values
    below = (sizes < threshold).to(weight.dtype)
    return below.reshape(*below.shape, *(1,) * (weight.ndim - 2)).expand_as(weight)


def count_of_targets(inputs: int, fraction: float) -> int:
    """Return how many of the inputs of a filter are perturbed.

    >>> count_of_targets(3, 0.75), count_of_targets(1, 0.75), count_of_targets(10, 0.7)
    (2, 0, 7)
    """
    return min(math.floor(inputs * fraction + 1e-9), inputs)


def for_examples(inputs: Tensor, weight: Tensor, xi: Tensor, q: float, targets: Tensor) -> Tensor:
    """Return what noise of its own adds to the output of a linear layer for every example.

    `inputs` [n, ..., in], `weight` and `targets` [out, in], `xi` [n, out, in] -> [n, ..., out].
    """
    added = perturbation(weight, xi, q, targets)
    rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    return (rows @ added.transpose(1, 2)).reshape(*inputs.shape[:-1], -1)


class BatchBridgeout(Noise):
    """Perturbs the weights of convolutions once per mini-batch.

    Between `before_step` and `after_backward` the network holds the perturbed weights, in float32
    whatever the passes compute in; then the gradients are multiplied by the derivative of the
    perturbation and the clean weights are put back. So clipping, optimiser, average, evaluation
    and every saved state see clean weights alone. All processes draw the same noise: the factor
    holds for the gradient that they have summed.
    """

    def __init__(self, *, p: float, q: float, target_fraction: float) -> None:
        self.p, self.q, self.target_fraction = p, q, target_fraction
        self.layers: tuple[str, ...] = ()
        self.clean: dict[str, Tensor] = {}
        self.factors: dict[str, Tensor] = {}

    def start(self, run: TrainingRun) -> None:
        """Find the layers."""
        self.layers = tuple(convolutions(run.bare))

    @torch.no_grad()
    def before_step(self, run: TrainingRun) -> None:
        """Put perturbed weights into the network."""
        self._put_back(run)  # after a step that an error has torn
        for at, name in enumerate(self.layers):
            weight = run.bare.get_parameter(name)
            xi = noise(weight.shape, self.p, drawing(run, MASKS + at))
            targets = targeted(weight, self.target_fraction)
            self.clean[name] = weight.detach().clone()
            change = perturbation(weight, xi, self.q, targets)
            self.factors[name] = gradient_factor(weight, change, self.q)
            weight.add_(change)

    @torch.no_grad()
    def after_backward(self, run: TrainingRun, batch: Batch) -> None:  # noqa: ARG002
        """Make the gradients those of the clean weights, and put these back."""
        for name, factor in self.factors.items():
            gradient = run.bare.get_parameter(name).grad
            if gradient is not None:
                gradient.mul_(factor)
        self._put_back(run)

    @torch.no_grad()
    def _put_back(self, run: TrainingRun) -> None:
        for name, value in self.clean.items():
            run.bare.get_parameter(name).copy_(value)
        self.clean, self.factors = {}, {}


class LinearBridgeout(Noise):
    """Perturbs the weights of linear layers, for every example of a mini-batch by its own noise.

    The first dimension of what a layer reads counts examples. Their noise is drawn for the batch
    of all processes, of which each takes its share: several processes train as one does.
    """

    def __init__(self, *, p: float, q: float, target_fraction: float) -> None:
        self.p, self.q, self.target_fraction = p, q, target_fraction
        self.run: TrainingRun | None = None
        self.hooks: list[RemovableHandle] = []

    def start(self, run: TrainingRun) -> None:
        """Listen to the linear layers."""
        self.hooks = [
            layer.register_forward_hook(partial(self._add_noise, at))
            for at, layer in enumerate(linear_layers(run.bare).values())
        ]

    def before_step(self, run: TrainingRun) -> None:
        """Perturb the pass to come."""
        self.run = run

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:  # noqa: ARG002
        """Perturb no other pass."""
        self.run = None

    def finish(self, run: TrainingRun) -> None:  # noqa: ARG002
        """Leave the network as it was."""
        for hook in self.hooks:
            hook.remove()

    def _add_noise(
        self, at: int, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if self.run is None:
            return output
        inputs, weight = given[0], layer.get_parameter("weight")
        accelerator = self.run.recipe.accelerator
        processes, rank = accelerator.num_processes, accelerator.process_index
        shape = (len(inputs) * processes, *weight.shape)
        xi = noise(shape, self.p, drawing(self.run, MASKS + at))[rank::processes]
        with torch.autocast(inputs.device.type, enabled=False):
            targets = targeted(weight.detach(), self.target_fraction)
            added = for_examples(inputs.float(), weight, xi, self.q, targets)
        return output + added.to(output.dtype)


def drawing(run: TrainingRun, use: int) -> torch.Generator:
    """Return the run's generator for a use, on the device of the network.

    A mask as large as the weights would take long to draw on one core and to move.
    """
    seed = run.generator(use).initial_seed()
    return torch.Generator(run.device).manual_seed(seed)
