"""Optimisers by name, each with the learning rate that it is known to work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from prunecli.errors import InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prunecli.options import FinetuneOptions

ParameterGroup: TypeAlias = dict[str, Any]
"""Parameters (`params`) and what an optimiser is told of them, such as `weight_decay`.

An `lr_scale` is a factor on the learning rate of the schedule, for these parameters alone. With
`clipped` false their gradients do not count where gradients are clipped.
"""


@dataclass(frozen=True)
class OptimizerKind:
    """How an optimiser is built from parameter groups, and its peak learning rate."""

    build: Callable[[list[ParameterGroup], FinetuneOptions, float], torch.optim.Optimizer]
    learning_rate: float


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer")


def parameter_groups(
    model: nn.Module, weight_decay: float, own: Sequence[ParameterGroup] = ()
) -> list[ParameterGroup]:
    """Return the trainable parameters in two groups, weights decay, vectors do not, and `own` ones.

    Decay on batch-norm scales and biases only changes the effective learning rate. Raises
    `InputError` (`NOTHING_TO_TRAIN`) when no parameter requires a gradient.
    """
    taken = {id(parameter) for group in own for parameter in group["params"]}
    trainable = [
        parameter
        for parameter in model.parameters()
        if parameter.requires_grad and id(parameter) not in taken
    ]
    if not trainable:
        raise InputError(
            "no parameter of the model can be trained",
            code="NOTHING_TO_TRAIN",
            hint="set requires_grad on the parameters to train",
        )
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups: list[ParameterGroup] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [*(group for group in groups if group["params"]), *own]


def build_optimizer(
    model: nn.Module, options: FinetuneOptions, own: Sequence[ParameterGroup] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser of `options` over a model; `peak_rate` is its first learning rate.

    Some parameters may be in groups of their `own`.
    """
    groups = parameter_groups(model, options.weight_decay, own)
    return OPTIMIZERS.get(options.optimizer).build(groups, options, peak_rate(options))


def peak_rate(options: FinetuneOptions) -> float:
    """Return the learning rate asked for, or the one that the optimiser is known to work with."""
    if options.lr is not None:
        return options.lr
    return OPTIMIZERS.get(options.optimizer).learning_rate


def _sgd(
    groups: list[ParameterGroup], options: FinetuneOptions, peak: float
) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups, lr=peak, momentum=options.momentum, nesterov=options.momentum > 0
    )


def _adam(
    groups: list[ParameterGroup], _options: FinetuneOptions, peak: float
) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=peak)


def _adamw(
    groups: list[ParameterGroup], _options: FinetuneOptions, peak: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=peak)


OPTIMIZERS.add(
    "sgd", OptimizerKind(_sgd, 0.02), summary="Stochastic gradient descent, Nesterov momentum."
)
OPTIMIZERS.add(
    "adam", OptimizerKind(_adam, 1e-3), summary="Adam.", source="Kingma, Ba 2015, arXiv 1412.6980"
)
OPTIMIZERS.add(
    "adamw",
    OptimizerKind(_adamw, 1e-3),
    summary="Adam with decoupled weight decay.",
    source="Loshchilov, Hutter 2019, arXiv 1711.05101",
)
