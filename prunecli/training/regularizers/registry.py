"""Regularisers by name, and what they refuse before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.registry import Registry
from prunecli.training.regularizers.bridgeout import (
    BatchBridgeout,
    LinearBridgeout,
    count_of_targets,
)
from prunecli.training.regularizers.dropout import ConvolutionDropout
from prunecli.training.regularizers.layers import (
    Reach,
    convolutions,
    convolutions_without_module,
    linear_layers,
    linear_without_module,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from prunecli.options import FinetuneOptions
    from prunecli.training.method import TrainingMethod

LARGEST_MASK = 2**28
"""Random numbers that one layer may need in a step: 1 GiB, of which training holds three."""


@dataclass(frozen=True)
class Regularizer:
    """How a regulariser is made from options, and which layers it acts on (`kind` in words)."""

    build: Callable[[FinetuneOptions], TrainingMethod]
    acts_on: Callable[[nn.Module, FinetuneOptions], Reach]
    kind: str


REGULARIZERS: Registry[Regularizer] = Registry("regularizer")

CONVOLUTIONS = "convolutions larger than 1 x 1"


def make_regularizer(options: FinetuneOptions) -> TrainingMethod | None:
    """Return the method that trains with the regulariser of the options; None for none."""
    if options.regularizer is None:
        return None
    return REGULARIZERS.get(options.regularizer).build(options)


def check_regularizer(
    options: FinetuneOptions, model: nn.Module, *, masks: Mapping[str, Tensor] | None = None
) -> tuple[str, ...]:
    """Return warnings about a regulariser; raise `InputError` where it cannot act on a model.

    `NO_SUCH_LAYER`: it has no layer to act on. `BAD_OPTION`: the model has zeros to be kept
    (`masks`), or its layers need too large masks.
    """
    name = options.regularizer
    if name is None:
        return ()
    regularizer = REGULARIZERS.get(name)
    if masks:
        raise InputError(
            f"--regularizer {name} does not keep the zeros of this model",
            code="BAD_OPTION",
            hint="leave --regularizer out, or train the dense model with it and zero weights after",
        )
    found = regularizer.acts_on(model, options)
    if not found.layers:
        without = f", {len(found.left_out)} are left out: {found.reason}" if found.left_out else ""
        raise InputError(
            f"--regularizer {name} acts on {regularizer.kind}, and the model has none{without}",
            code="NO_SUCH_LAYER",
            hint=_other_choice(options, model, found),
        )
    if not found.left_out:
        return ()
    some, total = len(found.left_out), len(found.layers) + len(found.left_out)
    warning = f"--regularizer {name} leaves out {some} of {total} layers: {found.reason}"
    return (f"{warning} ({found.left_out[0]} first)",)


def _other_choice(options: FinetuneOptions, model: nn.Module, found: Reach) -> str:
    """Return what to do where there is nothing to act on."""
    if found.left_out and options.regularizer == "bridgeout":
        return "perturb all weights: --target-fraction 1"
    others = {"bridgeout": convolutions(model), "bridgeout-linear": linear_layers(model)}
    fitting = [name for name, layers in others.items() if layers]
    instead = f"take --regularizer {fitting[0]}, or " if fitting else "leave --regularizer out; "
    return f"{instead}--weight-decay regularises any model"


def _with_targets(model: nn.Module, options: FinetuneOptions) -> Reach:
    """Return the convolutions that have weights to perturb."""
    counts = {
        name: count_of_targets(weight.shape[1], options.target_fraction)
        for name, weight in convolutions(model).items()
    }
    return Reach(
        tuple(name for name, count in counts.items() if count),
        tuple(name for name, count in counts.items() if not count),
        f"--target-fraction {options.target_fraction:g} of the kernels of a filter is none",
    )


def _linear(model: nn.Module, options: FinetuneOptions) -> Reach:
    """Return the linear layers; raise `InputError` for masks beyond `LARGEST_MASK`."""
    layers = linear_layers(model)
    for name, layer in layers.items():
        weights = layer.get_parameter("weight").numel()
        if weights * options.batch_size > LARGEST_MASK:
            raise InputError(
                f"a mask for each of {options.batch_size} images takes "
                f"{weights * options.batch_size * 4 / 2**30:.1f} GiB for {name}",
                code="BAD_OPTION",
                hint=f"train with smaller batches: --batch-size {LARGEST_MASK // weights}"
                if weights <= LARGEST_MASK // 2
                else "regularise the convolutions: --regularizer bridgeout",
            )
    left_out = linear_without_module(model)
    return Reach(tuple(layers), left_out, "their weights are read outside of a module of their own")


def _with_output(model: nn.Module, _options: FinetuneOptions) -> Reach:
    """Return the convolutions whose output a module has."""
    without = convolutions_without_module(model)
    names = tuple(name for name in convolutions(model) if name not in without)
    return Reach(names, without, "the model is a graph and they have no batch norm")


def _noise(options: FinetuneOptions) -> dict[str, float]:
    return {"p": options.p, "q": options.q, "target_fraction": options.target_fraction}


REGULARIZERS.add(
    "bridgeout",
    Regularizer(lambda options: BatchBridgeout(**_noise(options)), _with_targets, CONVOLUTIONS),
    summary="Batch Bridgeout: noise of size abs(w)^(q/2) on the kernels of convolutions (> 1 x 1), "
    "drawn once per mini-batch.",
    source="Khan, Stavness 2020, arXiv 2009.10893",
)
REGULARIZERS.add(
    "bridgeout-linear",
    Regularizer(lambda options: LinearBridgeout(**_noise(options)), _linear, "linear layers"),
    summary="Bridgeout: the same noise on the weights of linear layers, drawn for every image.",
    source="Khan, Shah, Stavness 2018, arXiv 1804.08042",
)
REGULARIZERS.add(
    "dropout",
    Regularizer(lambda options: ConvolutionDropout(p=options.p), _with_output, CONVOLUTIONS),
    summary="Dropout behind convolutions (> 1 x 1) and their batch norm.",
    source="Srivastava et al. 2014, JMLR 15",
)
